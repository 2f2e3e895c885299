"""Sweeps on a real server: by the clock, on demand and at once after what cannot wait; what they find, and remember."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from bus.events import daemon as daemon_events
from bus.events import finding as ev
from bus.events.finding import Kind, Severity
from bus.events.sweep import Finished, Trigger, Verdict
from bus.ids import key_id
from bus.store import Recorded
from services.fleet.entries import MONITOR_KEY
from services.fleet.spec import Monitor
from services.monitor.finding import Finding
from services.monitor.finding import opened as opened_event
from services.monitor.ledger import Ledger
from services.monitor.memory import Step
from services.monitor.ring import Ring
from services.monitor.status import Status
from services.runner.handler import Permanent
from tests.services.rig import Rig


async def echo(input: Any) -> Any:
    """Give the input back."""
    return input


def finished(rig: Rig, trigger: Trigger | None = None) -> list[Finished]:
    """The sweeps that have finished, in order."""
    data = [r.data for r in rig.control.records if isinstance(r.data, Finished)]
    return [one for one in data if trigger in (None, one.trigger)]


async def sweep(rig: Rig) -> Status:
    """Ask for a sweep, as `nats req monitor.sweep ''` does."""
    answer = await rig.connection.nc.request("monitor.sweep", b"", timeout=20)
    return msgspec.json.decode(answer.data, type=Status)


async def settings(rig: Rig, **change: Any) -> None:
    """Set `[monitor]` as the fleet file would."""
    value = msgspec.structs.replace(Monitor(), **change)
    await rig.bucket("registry").put(MONITOR_KEY, msgspec.json.encode(value))
    await rig.registry.load()


def of(rig: Rig, kind: Kind, event: type) -> list[Recorded]:
    """The events about findings of a kind, in order."""
    prints = {
        r.subject.split(".")[2] for r in rig.control.records if isinstance(r.data, ev.Opened) and r.data.kind is kind
    }
    return [r for r in rig.control.records if isinstance(r.data, event) and r.subject.split(".")[2] in prints]


async def raising(rig: Rig, body: Any, who: str = "somebody") -> tuple[dict[str, Any], str]:
    """Raise as `nats req monitor.raise` does: the answer, and the error of a refusal."""
    answer = await rig.connection.nc.request(
        "monitor.raise", msgspec.json.encode(body), headers={"Systems-Actor": who}, timeout=10
    )
    return msgspec.json.decode(answer.data), (answer.headers or {}).get("Nats-Service-Error", "")


async def test_sweep_is_never_nominal_by_ignorance(rig: Rig) -> None:
    """With no projector a sweep names the parts that it could not see, is a concern, and keeps saying so when silenced."""
    await rig.role("shop/echo", echo)
    await rig.warden()
    await rig.runner()
    await rig.control.until(lambda: finished(rig, Trigger.START))
    first = await sweep(rig)
    assert first.last is not None
    assert first.last.finished.verdict is Verdict.CONCERN
    assert first.last.finished.unseen == ("tables (no projector answers)", "archive (no projector answers)")
    assert {f.title for f in first.findings} == {"not seen: tables", "not seen: archive"}
    ledger = Ledger(rig.bus)
    await ledger.catch_up()
    for print_ in ledger.known:
        silence = ev.Silenced(owner="ann", reason="known", until=rig.bus.author.now() + timedelta(hours=1))
        assert await ledger.write(Step(print_, silence))
    second = await sweep(rig)
    assert second.last is not None
    assert second.last.finished.counts.silenced == 2
    assert second.last.finished.findings == ()
    assert second.last.finished.verdict is Verdict.CONCERN


async def test_sweep_finds_a_stream_that_was_edited_by_hand(rig: Rig) -> None:
    """A stream that somebody changed is found and named with its field, and the finding closes when it is put back."""
    await rig.warden()
    await rig.control.until(lambda: finished(rig, Trigger.START))
    config = (await rig.connection.api("STREAM.INFO.DRILL"))["config"]
    await rig.connection.api("STREAM.UPDATE.DRILL", config | {"max_msgs": 77})
    found = {f.subject: f for f in (await sweep(rig)).findings}
    assert "max_msgs 77 instead of 10000" in found["DRILL"].detail
    assert (found["DRILL"].kind, found["DRILL"].command) == (Kind.DRIFT, "systems plan")
    await rig.connection.api("STREAM.UPDATE.DRILL", config)
    after = await sweep(rig)
    assert "DRILL" not in {f.subject for f in after.findings}
    assert after.last is not None
    assert after.last.finished.counts.gone == 1
    await rig.control.until(lambda: of(rig, Kind.DRIFT, ev.Closed))


async def test_dead_letters_alarm_at_once_and_each_is_told(rig: Rig) -> None:
    """A dead letter is a finding without waiting for a sweep, with its message as evidence; one more is worse, none is gone."""

    async def broken(_input: Any) -> None:
        raise Permanent("no")

    await settings(rig, look=0.2)
    await rig.role("shop/broken", broken)
    await rig.warden()
    await rig.runner()
    await rig.control.until(lambda: finished(rig, Trigger.START))
    await rig.ask("shop/broken", 1)
    await rig.control.until(lambda: of(rig, Kind.DEAD_LETTERS, ev.Opened))
    (opened,) = of(rig, Kind.DEAD_LETTERS, ev.Opened)
    assert (opened.data.subject, opened.data.value, opened.data.command) == ("shop/broken", 1, "systems dlq ls")
    (evidence,) = opened.data.evidence
    letter = await rig.bus.store.last("DEAD_LETTERS", "dlq.shop.broken.*")
    assert letter is not None
    assert evidence == ev.Evidence("DEAD_LETTERS", letter.seq)
    await rig.control.until(lambda: any("dead_lettered" in f.why for f in finished(rig, Trigger.EVENT)))
    await rig.ask("shop/broken", 2)
    await rig.control.until(lambda: of(rig, Kind.DEAD_LETTERS, ev.Changed))
    worse = of(rig, Kind.DEAD_LETTERS, ev.Changed)[-1].data
    assert (worse.change, worse.value, worse.was) == (ev.Change.WORSE, 2, 1)
    await rig.connection.api("STREAM.PURGE.DEAD_LETTERS")
    await rig.control.until(lambda: of(rig, Kind.DEAD_LETTERS, ev.Closed))


async def test_anybody_may_raise_and_nobody_can_cry_wolf(rig: Rig) -> None:
    """What is raised is a finding; the same again is that one, worse once; ever new ones are refused in words for an hour."""
    await settings(rig, raises=3, look=0.2)
    await rig.warden()
    await rig.control.until(lambda: finished(rig, Trigger.START))
    asked = {"severity": "concern", "title": "the shop is slow", "evidence": ["INVOCATIONS:7", "see the graph"]}
    first, problem = await raising(rig, asked)
    assert problem == ""
    await rig.control.until(lambda: of(rig, Kind.RAISED, ev.Opened))
    (opened,) = of(rig, Kind.RAISED, ev.Opened)
    assert (opened.data.title, opened.data.by, opened.data.detail) == ("the shop is slow", "somebody", "see the graph")
    assert ev.Evidence("INVOCATIONS", 7) in opened.data.evidence
    for _ in range(20):
        again, problem = await raising(rig, asked)
        assert (again["fingerprint"], again["deduplicated"], problem) == (first["fingerprint"], True, "")
    await raising(rig, asked | {"severity": "ultra"})
    await rig.control.until(lambda: of(rig, Kind.RAISED, ev.Changed))
    assert of(rig, Kind.RAISED, ev.Changed)[-1].data.severity is Severity.ULTRA
    answers = [await raising(rig, {"severity": "concern", "title": f"failed {n}"}) for n in range(5)]
    assert [bool(problem) for _, problem in answers] == [False, True, True, True, True]
    assert "expected at most 3 findings raised by somebody within an hour" in answers[-1][1]
    other, problem = await raising(rig, {"severity": "concern", "title": "something else"}, who="another")
    assert problem == ""
    assert other["fingerprint"] != first["fingerprint"]
    _, problem = await raising(rig, {"severity": "disaster", "title": "x"})
    assert "with severity concern or ultra" in problem
    raised = [r for r in rig.control.records if isinstance(r.data, ev.Raised)]
    assert len(raised) == 4


async def test_raised_concern_closes_when_a_person_says_so(rig: Rig) -> None:
    """What was raised stays until somebody closes it; raised again after that it is a new one."""
    await settings(rig, look=0.2)
    await rig.warden()
    await rig.control.until(lambda: finished(rig, Trigger.START))
    taken, _ = await raising(rig, {"severity": "concern", "title": "odd"})
    print_ = taken["fingerprint"]
    await rig.control.until(lambda: of(rig, Kind.RAISED, ev.Opened))
    ledger = Ledger(rig.bus)
    await ledger.catch_up()
    assert await ledger.write(Step(print_, ev.Closed(reason=ev.CloseReason.CLOSED, why="looked", by="ann")))
    assert print_ not in {f.fingerprint for f in (await sweep(rig)).findings}
    again, _ = await raising(rig, {"severity": "concern", "title": "odd"})
    assert (again["fingerprint"], again["deduplicated"]) == (print_, False)
    await rig.control.until(lambda: len(of(rig, Kind.RAISED, ev.Opened)) == 2)


async def test_two_who_write_about_one_finding_do_it_once(rig: Rig) -> None:
    """Of two ledgers that open the same finding one is refused by the fence: there is one `opened`."""
    found = Finding(kind=Kind.DRIFT, severity=Severity.CONCERN, subject="X", title="x", since=rig.bus.author.now())
    ledgers = [Ledger(rig.bus), Ledger(rig.bus)]
    step = Step(found.fingerprint, opened_event(found, ""))
    assert sorted([await ledger.write(step) for ledger in ledgers]) == [False, True]


@pytest.mark.soak
async def test_a_day_of_sweeps_has_all_of_them_and_a_missed_one_is_found(rig: Rig) -> None:
    """Each of the server's twelve ticks becomes one sweep; while the warden is away the ring says that one is late, until it is not."""
    await settings(rig, every=1, grace=5)
    first, _ = await rig.warden()
    ring = Ring(rig.bus, "launcher", "launcher", rig.bus.author.now(), rig.home)
    watching = asyncio.create_task(ring.run())
    try:
        await rig.control.until(lambda: len(finished(rig, Trigger.SCHEDULE)) >= 12)
        ticks = [m async for m in rig.bus.store.messages("SCHEDULES", "tick.monitor.sweep")]
        swept = [r.subject.split(".")[2] for r in rig.control.records if isinstance(r.data, Finished)]
        due = [key_id("sweep", f"tick@{tick.seq}") for tick in ticks]
        assert [id_ for id_ in swept if id_ in due] == due[: len(finished(rig, Trigger.SCHEDULE))]
        assert of(rig, Kind.SWEEP_LATE, ev.Opened) == []
        await rig.end(first)
        await rig.control.until(lambda: of(rig, Kind.SWEEP_LATE, ev.Opened))
        (late,) = of(rig, Kind.SWEEP_LATE, ev.Opened)
        assert (late.data.by, late.data.command) == ("launcher", "systems sweep")
        await rig.warden()
        await rig.control.until(lambda: of(rig, Kind.SWEEP_LATE, ev.Closed))
        assert len(of(rig, Kind.SWEEP_LATE, ev.Opened)) == 1
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def test_sweep_after_an_absence_begins_with_what_was_missed(rig: Rig) -> None:
    """What alarmed while the warden was away is swept for as soon as it is back, whatever the schedule says."""
    await settings(rig, look=60)
    first, _ = await rig.warden()
    await rig.control.until(lambda: finished(rig, Trigger.START))
    await rig.end(first)
    exited = daemon_events.Exited(daemon="x-1", host="h", pid=1, status=-9)
    await rig.bus.store.append(rig.bus.author.control("x-1_h", exited))
    await rig.warden()
    await rig.control.until(lambda: any(f.why == "ctl.daemon.x-1_h.exited" for f in finished(rig, Trigger.EVENT)))
    opened = of(rig, Kind.DAEMON_DOWN, ev.Opened)
    assert [r.data.subject for r in opened] == ["x-1@h"]


async def test_outside_switch_hears_start_success_and_fail(rig: Rig) -> None:
    """Every sweep calls the outside switch at its start and its end, with fail for ultra; a call that fails is a finding."""
    calls: list[tuple[str, str]] = []
    answer = [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next((int(line[15:]) for line in head.split("\r\n") if line.lower().startswith("content-length:")), 0)
        calls.append((head.split()[1], (await reader.readexactly(length)).decode()))
        writer.write(answer[0])
        await writer.drain()
        writer.close()

    outside = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = outside.sockets[0].getsockname()[1]
    async with outside:
        await settings(rig, ping_url=f"http://127.0.0.1:{port}/abc", look=60)
        await rig.warden()
        await rig.control.until(lambda: finished(rig, Trigger.START))
        await sweep(rig)
        assert [path for path, _ in calls[:3]] == ["/abc/start", "/abc", "/abc/start"]
        assert calls[1][1].startswith("concern: ")
        await raising(rig, {"severity": "ultra", "title": "fire"})
        await rig.control.until(lambda: any(f.verdict is Verdict.ULTRA for f in finished(rig)))
        await sweep(rig)
        assert "/abc/fail" in [path for path, _ in calls]
        answer[0] = b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"
        problems = [f for f in (await sweep(rig)).findings if f.kind == Kind.PING_FAILED]
        assert len(problems) == 1
        assert "500" in problems[0].detail
