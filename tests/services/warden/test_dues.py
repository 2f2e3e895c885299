"""The due times of schedules: agreement with the server, and one outcome for each."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import nats
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nats.aio.client import Client

from bus.events.schedule import MissReason
from services.fleet import cron
from services.fleet.spec import Overlap, Schedule
from services.warden import dues
from services.warden.dues import Ask, Miss

SERVER = Path(sys.executable).with_name("nats-server")
LIMIT_S = 30.0


def at(text: str) -> datetime:
    """An ISO time; UTC when it names no offset."""
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


ZONES = ("UTC", "Europe/Paris", "America/New_York", "America/Santiago", "Asia/Kolkata", "Australia/Lord_Howe")
CRONS = (
    "*/7 * * * * *",
    "0 */5 * * * *",
    "15,45 30 1-3 * * *",
    "0 0 */6 * * MON-FRI",
    "0 0 0 1,15 * *",
    "0 30 2 13 * FRI",
    "0 0 12 29 FEB *",
)
moments = st.integers(0, 10 * 365 * 86_400_000).map(lambda ms: at("2024-01-01") + timedelta(milliseconds=ms))
#: Seconds; short, so that schedules of every second have few due times in it.
spans = st.floats(0, 600)
schedules = st.builds(
    Schedule,
    cron=st.sampled_from(CRONS),
    time_zone=st.sampled_from(ZONES),
    overlap=st.sampled_from(Overlap),
    catch_up=st.floats(1, 1e6),
) | st.builds(Schedule, cron=st.integers(1, 200_000).map(lambda n: f"@every {n}s"), catch_up=st.floats(1, 1e6))


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Client]:
    """A client of a server of its own, with a stream that takes schedules."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        str(SERVER), "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(tmp_path), stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(LIMIT_S):
            async for line in process.stderr:
                if b"Server is ready" in line:
                    break
        client = await nats.connect(f"nats://127.0.0.1:{port}")
        config = {
            "name": "S",
            "subjects": ["sched.>", "tick.>"],
            "storage": "memory",
            "allow_msg_schedules": True,
        }
        answer = await client.request("$JS.API.STREAM.CREATE.S", json.dumps(config).encode())
        assert "error" not in json.loads(answer.data)
        yield client
        await client.close()
    finally:
        process.terminate()
        # Also reads what it still prints, so that it cannot block on a full pipe.
        await process.communicate()


async def put(client: Client, name: str, pattern: str, zone: str) -> int:
    """Set a schedule; the error code of the server's answer, 0 for none."""
    headers = {"Nats-Schedule": pattern, "Nats-Schedule-Target": f"tick.{name}", "Nats-Schedule-Time-Zone": zone}
    answer = json.loads((await client.request(f"sched.{name}", b"", headers=headers)).data)
    code: int = answer.get("error", {}).get("err_code", 0)
    return code


async def test_due_agrees_with_the_next_tick_that_the_server_announces(server: Client) -> None:
    """For crons that tick in a moment, the server's Nats-Schedule-Next is our next due time."""
    ticks = await server.jetstream().subscribe("tick.*", stream="S", ordered_consumer=True)
    soon = datetime.now(UTC) + timedelta(seconds=3)
    wanted: dict[str, Schedule] = {}
    for zone in ("UTC", "America/New_York", "Asia/Kolkata"):
        local = soon.astimezone(ZoneInfo(zone))
        time = f"{local.second} {local.minute} {local.hour}"
        today, tomorrow = local.strftime("%a").upper(), (local + timedelta(days=1)).strftime("%a").upper()
        for pattern in (
            "* * * * * *",
            f"{local.second},{(local.second + 20) % 60} * * * * *",
            f"{local.second} {local.minute} * * * *",
            f"{local.second}/7 {local.minute} */1 * * *",
            f"{time} * * *",
            f"{time} {local.day} * *",
            f"{time} {local.day} {local.strftime('%b')} *",
            f"{time} * * {today}",
            f"{time} {local.day} * {tomorrow}",
            f"{time} */1 * {today}",
            f"{time} 1-31/1 * {today}",
            f"{time} * */1 *",
        ):
            wanted[f"n{len(wanted)}"] = Schedule(cron=pattern, time_zone=zone)
    for seconds in (1, 2, 3):
        wanted[f"n{len(wanted)}"] = Schedule(cron=f"@every {seconds}s")
    for name, schedule in wanted.items():
        assert await put(server, name, *dues.server_pattern(schedule)) == 0
    left = dict(wanted)
    async with asyncio.timeout(LIMIT_S):
        while left:
            message = await ticks.next_msg(LIMIT_S)
            schedule_of = left.pop(message.subject.removeprefix("tick."), None)
            if schedule_of is None:
                continue
            due = dues.due_of_tick(schedule_of, message.metadata.timestamp)
            assert due is not None
            assert message.headers is not None
            announced = at(message.headers["Nats-Schedule-Next"])
            assert dues.next_due(schedule_of, due) == announced, schedule_of.cron


@pytest.mark.parametrize(
    ("pattern", "server_takes", "we_take"),
    [
        ("0 0 0 * * 0", True, True),
        ("0 0 0 * jan-MAR mon,Wed", True, True),
        ("0 0 0 29 2 *", True, True),
        ("5/15 0 0 * * *", True, True),
        ("*/100 * * * * *", True, False),
        ("0 0 0 ? * 1", True, False),
        ("1,,2 * * * * *", True, False),
        ("+5 * * * * *", True, False),
        ("0 0 0 */2 * MON", True, False),
        ("0 0 0 1 * */2", True, False),
        ("0 0 0 * * 7", False, False),
        ("0 0 0 L * *", False, False),
        ("0 0 0 * * MON#1", False, False),
        ("0 0 0 30 2 *", False, False),
        ("0 0 * * *", False, False),
        ("60 * * * * *", False, False),
        ("5-1 * * * * *", False, False),
        ("@reboot", False, False),
        ("@every 500ms", False, False),
    ],
)
async def test_cron_taken_here_is_taken_by_the_server(
    server: Client, pattern: str, server_takes: bool, we_take: bool
) -> None:
    """Whatever a fleet file may hold the server accepts, and what only the server reads is refused."""
    assert (await put(server, "x", pattern, "UTC") == 0) == server_takes
    if we_take:
        assert await put(server, "y", *dues.server_pattern(Schedule(cron=pattern))) == 0
    else:
        with pytest.raises(cron.BadCron, match="expected"):
            dues.server_pattern(Schedule(cron=pattern))


@pytest.mark.parametrize(
    ("text", "after", "expected"),
    [
        ("@every 90s", "1970-01-01T00:01:30", "1970-01-01T00:03:00"),
        ("@every 36h", "1970-01-01T00:00:00", "1970-01-02T12:00:00"),
        ("@hourly", "2026-03-01T10:00:00", "2026-03-01T11:00:00"),
        ("@weekly", "2026-03-03T10:00:00", "2026-03-08T00:00:00"),
        ("0 0 0 13 * FRI", "2026-02-06T00:00:00", "2026-02-13T00:00:00"),
        ("0 0 0 29 2 *", "2025-01-01T00:00:00", "2028-02-29T00:00:00"),
        ("59 59 23 31 12 *", "2025-12-31T23:59:59", "2026-12-31T23:59:59"),
    ],
)
def test_due_is_what_the_calendar_says(text: str, after: str, expected: str) -> None:
    """Periods count from the Unix epoch; restricted days of month and week match either way."""
    assert dues.next_due(Schedule(cron=text), at(after)) == at(expected)


def test_due_follows_daylight_saving() -> None:
    """A local time that is left out is not due, and one that comes twice is due twice."""
    nightly = Schedule(cron="0 30 2 * * *", time_zone="Europe/Paris")
    assert dues.due_times(nightly, at("2026-03-28T12:00"), at("2026-03-30T12:00")) == [at("2026-03-30T00:30")]
    assert dues.due_times(nightly, at("2026-10-24T12:00"), at("2026-10-25T12:00")) == [
        at("2026-10-25T00:30"),
        at("2026-10-25T01:30"),
    ]
    midnight = Schedule(cron="0 0 0-1 * SEP SUN", time_zone="America/Santiago")
    assert dues.due_times(midnight, at("2026-09-05T12:00"), at("2026-09-06T12:00")) == [at("2026-09-06T04:00")]
    assert dues.server_pattern(midnight) == ("0 0 0-1 * * *", "America/Santiago")


@settings(deadline=None)
@given(schedules, moments, spans)
def test_due_times_are_the_chain_of_next_due(schedule: Schedule, after: datetime, length: float) -> None:
    """The due times of a span are what next_due finds one after the other, ascending, within the span."""
    until = after + timedelta(seconds=length)
    found = dues.due_times(schedule, after, until, limit=50)
    assert found == sorted(set(found))
    last = after
    for due in found:
        assert due == dues.next_due(schedule, last)
        assert due.tzinfo is UTC
        last = due
    following = dues.next_due(schedule, last)
    assert len(found) == 50 or following is None or following > until


@settings(deadline=None)
@given(schedules, moments)
def test_due_is_found_backwards_as_forwards(schedule: Schedule, moment: datetime) -> None:
    """The next due time is its own latest, and just before it the latest is an older one."""
    due = dues.next_due(schedule, moment)
    assert due is not None
    timetable = cron.parse(schedule.cron, schedule.time_zone)
    assert timetable.preceding(due) == due
    older = timetable.preceding(due - timedelta(microseconds=1))
    assert older is None or (older <= moment and timetable.following(older) == due)


@settings(deadline=None)
@given(schedules, moments, st.floats(-0.499, 0.499))
def test_due_of_tick_is_the_due_time_it_was_made_for(schedule: Schedule, moment: datetime, late: float) -> None:
    """A tick stored within half a second of its due time, before or after, stands for that one."""
    due = dues.next_due(schedule, moment)
    assert due is not None
    assert dues.due_of_tick(schedule, due + timedelta(seconds=late)) == due


@settings(deadline=None)
@given(schedules, moments, spans, st.sampled_from(["", "r1"]))
def test_dues_each_get_one_outcome_in_order(schedule: Schedule, last: datetime, length: float, running: str) -> None:
    """Every due time since the last handled one is decided exactly once, and at most the newest is asked."""
    now = last + timedelta(seconds=length)
    outcomes = dues.decide_dues(schedule, last, now, running, limit=10**6)
    assert [outcome.due for outcome in outcomes] == dues.due_times(schedule, last, now, limit=10**6)
    for place, outcome in enumerate(outcomes):
        newest = place == len(outcomes) - 1
        late = (now - outcome.due).total_seconds() > schedule.catch_up
        match outcome:
            case Ask():
                assert newest
                assert not late
            case Miss(reason=MissReason.TOO_LATE):
                assert late
            case Miss(reason=MissReason.SUPERSEDED):
                assert not late
                assert not newest
            case Miss():
                assert outcome.reason is MissReason.OVERLAP
                assert (newest, late, schedule.overlap, outcome.running) == (True, False, Overlap.SKIP, "r1")


@settings(deadline=None)
@given(schedules, moments, spans, st.integers(1, 7), st.sampled_from(["", "r1"]))
def test_dues_decided_in_parts_are_the_dues_decided_at_once(
    schedule: Schedule, last: datetime, length: float, limit: int, running: str
) -> None:
    """Asking again from the last one decided gives, together, what one call without a limit gives."""
    now = last + timedelta(seconds=length)
    whole = dues.decide_dues(schedule, last, now, running, limit=10**6)
    parts: list[Ask | Miss] = []
    while part := dues.decide_dues(schedule, parts[-1].due if parts else last, now, running, limit):
        assert len(part) <= limit
        parts += part
    assert parts == whole


@settings(deadline=None)
@given(schedules, moments, spans, spans)
def test_dues_decided_early_are_not_decided_again(
    schedule: Schedule, last: datetime, first: float, second: float
) -> None:
    """Two looks at different times decide the same due times as one late look, each of them once."""
    middle = last + timedelta(seconds=first)
    end = middle + timedelta(seconds=second)
    early = dues.decide_dues(schedule, last, middle, "", limit=10**6)
    late = dues.decide_dues(schedule, early[-1].due if early else last, end, "", limit=10**6)
    once = dues.decide_dues(schedule, last, end, "", limit=10**6)
    assert [outcome.due for outcome in early + late] == [outcome.due for outcome in once]
    if late:
        assert late == once[len(early) :]


@pytest.mark.parametrize(
    ("overlap", "expected"),
    [
        (Overlap.SKIP, Miss(at("2026-01-01T00:02"), MissReason.OVERLAP, "r1")),
        (Overlap.ALLOW, Ask(at("2026-01-01T00:02"))),
        (Overlap.CANCEL_PREVIOUS, Ask(at("2026-01-01T00:02"), cancel="r1")),
    ],
)
def test_overlap_rule_decides_the_newest_due_time(overlap: Overlap, expected: Ask | Miss) -> None:
    """While the invocation before still runs, the newest due time is skipped, asked, or asked after a cancel."""
    schedule = Schedule(cron="0 * * * * *", overlap=overlap, catch_up=90)
    assert dues.decide_dues(schedule, at("2025-12-31T23:59"), at("2026-01-01T00:02"), "r1") == [
        Miss(at("2026-01-01T00:00"), MissReason.TOO_LATE),
        Miss(at("2026-01-01T00:01"), MissReason.SUPERSEDED),
        expected,
    ]


def test_schedule_never_handled_owes_only_its_latest_due_time() -> None:
    """Without a last handled due time only the latest is decided, asked or too late."""
    schedule = Schedule(cron="0 0 * * * *", catch_up=60)
    assert dues.decide_dues(schedule, None, at("2026-01-01T05:00:01"), "") == [Ask(at("2026-01-01T05:00"))]
    assert dues.decide_dues(schedule, None, at("2026-01-01T05:30"), "") == [
        Miss(at("2026-01-01T05:00"), MissReason.TOO_LATE)
    ]
