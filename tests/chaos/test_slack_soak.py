"""Twenty thousand events, 429s, cut answers, dropped sockets and twenty kills: each event stands once, in order of its thread."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog

from bus import plan
from bus.author import Author
from bus.context import Context
from bus.events import finding, incident, invocation
from bus.events.finding import Kind, Severity
from bus.events.invocation import DeathReason
from bus.events.slack import Posted, Updated, Withheld
from bus.ids import new_id
from bus.server import EmbeddedServer
from bus.store import CONTROL, INVOCATIONS
from bus.subjects import Ref
from services.daemon import Bus, open_bus
from services.fleet.entries import SLACK_KEY, project_key, publish
from services.fleet.registry import Registry
from services.fleet.slack import Rule, Slack, Thread
from services.fleet.spec import Project
from services.home import Home
from services.slack import seqs
from services.warden import journal
from tests.slack.fake import FakeSlack, Script, fake_slack
from tests.slack.process import Mirrors

log = structlog.get_logger()

pytestmark = [pytest.mark.soak, pytest.mark.slow, pytest.mark.chaos, pytest.mark.timeout(1500)]

EVENTS, KILLS = 20_000, 20
PROJECTS = ("shop", "ledger", "blog")


@pytest.fixture
async def slack() -> AsyncIterator[FakeSlack]:
    """A workspace that takes 60 messages a second in a channel."""
    async with fake_slack() as running:
        for name in ("fleet", *PROJECTS):
            running.workspace.channel(name)
        running.per_second = 60
        yield running


@pytest.fixture
async def bus(server: EmbeddedServer, slack: FakeSlack, tmp_path: Path) -> AsyncIterator[Bus]:
    """The bus of a fleet of three projects whose channels show all that invocations come to."""
    bus = await open_bus(Context(url=server.url), "test", Author("/test/soak", actor="tester"))
    registry = Registry(bus.bucket("registry"))
    streams = journal.declared(registry)
    await plan.apply(bus.connection, streams, await plan.plan(bus.connection, streams))
    # One channel in threads, two of plain messages that are put together when many wait.
    rules = tuple(
        Rule(
            channel=f"#{name}",
            projects=(name,),
            events=("invocation.*",),
            thread=Thread.INVOCATION if name == "shop" else Thread.NONE,
        )
        for name in PROJECTS
    )
    settings = Slack(channel="#fleet", api_url=slack.api, per_second=80, burst=100, patience=2, rules=rules)
    values = {SLACK_KEY: msgspec.json.encode(settings)}
    values |= {project_key(name): msgspec.json.encode(Project(slack_channel=f"#{name}")) for name in PROJECTS}
    await publish(bus.bucket("registry"), values)
    yield bus
    await bus.close()


async def feed(bus: Bus) -> None:
    """Write the events: lives of invocations, findings, and incidents that are updated."""
    now = datetime.now(UTC)
    written, number = 0, 0
    while written < EVENTS:
        number += 1
        project = "shop" if number % 6 == 0 else PROJECTS[1 + number % 2]
        ref = Ref(project, "coder", new_id())
        batch: list[Any] = [
            bus.author.invocation(ref, invocation.Scheduled(due=now, request=invocation.Requested())),
            bus.author.invocation(ref, invocation.Cancelled(reason=f"number {number}")),
            bus.author.invocation(ref, invocation.DeadLettered(reason=DeathReason.TREE_STOPPED)),
        ]
        if number % 5 == 0:
            print_ = new_id().replace("-", "")[-12:]
            opened = finding.Opened(
                kind=Kind.BACKLOG,
                severity=Severity.CONCERN,
                title=f"number {number}",
                subject=f"{project}/coder",
                since=now,
            )
            batch += [
                bus.author.control(print_, opened),
                bus.author.control(print_, finding.Closed(reason=finding.CloseReason.GONE)),
            ]
        if number % 100 == 1:
            hit = (incident.Impact(project=project, reason="slow"),)
            declared = incident.Declared(
                title=f"number {number}", severity=Severity.ULTRA, by="ann", since=now, affected=hit
            )
            batch.append(bus.author.control(str(number), declared))
        if number % 10 == 2:
            of = str(number - number % 100 + 1)
            batch.append(bus.author.control(of, incident.Updated(text=f"news {number}", by="ann")))
        for event in batch:
            await bus.store.append(event)
        written += len(batch)


async def trouble(slack: FakeSlack, mirrors: Mirrors) -> None:
    """Kill the mirror again and again, and let Slack be difficult in between."""
    for turn in range(KILLS):
        await asyncio.sleep(1)
        more = len(slack.calls) + 100
        await slack.until(partial(_called, slack, more), limit_s=120)
        slack.scripts = [
            Script("ratelimited", retry_after=1),
            Script("cut", after=True, times=2),
            Script("http_500"),
            Script("ratelimited", method="chat.update", retry_after=1),
        ]
        if turn % 3 == 0:
            slack.sockets.drop()
        mirrors.end(signal.SIGKILL)
        mirrors.start()


def _called(slack: FakeSlack, count: int) -> bool:
    return len(slack.calls) >= count


def marks(slack: FakeSlack) -> dict[str, list[dict[str, Any]]]:
    """Channel -> its messages' marks, in the order in which they stand."""
    return {
        channel.name: [
            message["metadata"]["event_payload"]
            | {"thread": message.get("thread_ts", message["ts"]), "ts": message["ts"]}
            for message in channel.messages
        ]
        for channel in slack.workspace.channels.values()
    }


async def test_each_event_stands_once(
    server: EmbeddedServer, bus: Bus, slack: FakeSlack, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Each of 20,000 events is in one message of its channel and no other, threads are in order, and nothing is left over."""
    mirrors = Mirrors(Home(tmp_path / "home"), server.url, slack)
    request.addfinalizer(mirrors.kill)
    mirrors.start()
    async with asyncio.TaskGroup() as group:
        group.create_task(feed(bus))
        group.create_task(trouble(slack, mirrors))

    async def left() -> int:
        total = 0
        for stream in (CONTROL, INVOCATIONS):
            info = await bus.connection.api(f"CONSUMER.INFO.{stream}.slack_mirror")
            total += info["num_ack_pending"] + info["num_pending"]
        return total

    async with asyncio.timeout(600):
        while await left():
            await asyncio.sleep(0.5)
    mirrors.end(signal.SIGTERM)

    stood = marks(slack)
    for name, its in stood.items():
        counts = Counter((m["stream"], seq, m["place"]) for m in its for seq in seqs.unpack(m["seqs"]))
        assert [what for what, count in counts.items() if count > 1] == [], name
        threads: dict[str, list[int]] = defaultdict(list)
        for mark in its:
            if mark["place"] == "reply":
                threads[mark["thread"]].append(next(seqs.unpack(mark["seqs"])))
        assert [order for order in threads.values() if order != sorted(order)] == [], name

    recorded: Counter[tuple[str, str, int, str]] = Counter()
    async for record in bus.store.read(CONTROL, "ctl.slack.>"):
        if isinstance(record.data, Posted | Updated):
            recorded.update(
                (record.data.target, record.data.stream, s, record.data.place) for s in seqs.unpack(record.data.seqs)
            )
        assert not isinstance(record.data, Withheld)
    events = [r async for r in bus.store.read(INVOCATIONS, "inv.>")]
    missing = [
        r.seq
        for r in events
        if not recorded[f"#{r.subject.split('.')[1]}", INVOCATIONS, r.seq, "reply"]
        and not recorded[f"#{r.subject.split('.')[1]}", INVOCATIONS, r.seq, "new"]
    ]
    assert missing == []
    shown = {(stream, seq) for _, stream, seq, _ in recorded}
    async for record in bus.store.read(CONTROL, "ctl.finding.>"):
        assert (CONTROL, record.seq) in shown, record.subject
    async for record in bus.store.read(CONTROL, "ctl.incident.>"):
        assert (CONTROL, record.seq) in shown, record.subject
    posts = {name: len(its) for name, its in stood.items()}
    limited = sum(call.answer == "ratelimited" for call in slack.calls)
    log.info("soaked", messages=posts, calls=len(slack.calls), limited=limited)
