"""The mirror as a process: event to Slack's request, an ultra behind thousands that wait, and memory over very many events."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from bus.events import incident, invocation
from bus.events.finding import Severity
from bus.events.invocation import DeathReason
from bus.ids import new_id
from bus.store import INVOCATIONS
from bus.subjects import Ref
from services.fleet.entries import SLACK_KEY, project_key, publish
from services.fleet.slack import Slack
from services.fleet.spec import Project
from services.home import Home
from tests.bench.report import Row
from tests.bench.rig import Rig
from tests.bench.scale import Scale
from tests.slack.fake import FakeSlack, fake_slack
from tests.slack.process import Mirrors
from tests.slack.workspace import Channel

MB = 1_000_000
#: Milliseconds from the event to Slack's request; megabytes by which memory may grow.
LIMIT_MS, GROWTH = 300.0, 8.0
#: Messages that wait when the ultra comes.
QUEUED = 5_000

Death = invocation.DeadLettered(reason=DeathReason.PERMANENT_ERROR)


class Stand:
    """One project on one channel."""

    def __init__(self, rig: Rig, slack: FakeSlack, channel: Channel, mirrors: Mirrors) -> None:
        self.bus, self.slack, self.channel, self.mirrors = rig.bus, slack, channel, mirrors

    async def deaths(self, count: int) -> None:
        """Write so many events that make a message each."""
        waiting: set[asyncio.Task[int]] = set()
        for _ in range(count):
            event = self.bus.author.invocation(Ref("shop", "coder", new_id()), Death)
            waiting.add(asyncio.create_task(self.bus.store.append(event)))
            if len(waiting) >= 64:
                _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if waiting:
            await asyncio.wait(waiting)

    async def unread(self) -> int:
        """Events that the mirror has not been handed."""
        info = await self.bus.connection.api(f"CONSUMER.INFO.{INVOCATIONS}.slack_mirror")
        return int(info["num_pending"])

    async def drained(self) -> None:
        """Wait until everything is shown."""
        while True:
            info = await self.bus.connection.api(f"CONSUMER.INFO.{INVOCATIONS}.slack_mirror")
            if info["num_pending"] + info["num_ack_pending"] == 0:
                return
            await asyncio.sleep(0.05)

    def memory(self) -> float:
        """Resident megabytes of the mirror."""
        pages = int(Path(f"/proc/{self.mirrors.pid}/statm").read_text().split()[1])
        return pages * 4096 / MB


async def measure(rig: Rig, scale: Scale) -> list[Row]:
    """Latency, overtaking, memory."""
    with TemporaryDirectory() as folder:
        async with fake_slack() as slack:
            channel = slack.workspace.channel("shop")
            settings = Slack(channel="#shop", api_url=slack.api, per_second=100_000.0)
            values: dict[str, Any] = {
                SLACK_KEY: msgspec.json.encode(settings),
                project_key("shop"): msgspec.json.encode(Project(slack_channel="#shop")),
            }
            await publish(rig.bus.bucket("registry"), values)
            mirrors = Mirrors(Home(Path(folder) / "home"), rig.server.url, slack)
            mirrors.start()
            try:
                stand = Stand(rig, slack, channel, mirrors)
                return [*await _latency(stand, scale), *await _overtaken(stand), *await _memory(stand, scale)]
            finally:
                mirrors.kill()


async def _latency(stand: Stand, scale: Scale) -> list[Row]:
    took: list[float] = []
    await stand.deaths(1)
    await stand.slack.until(lambda: stand.channel.messages)
    for _ in range(min(300, scale.samples)):
        seen = len(stand.slack.calls)
        begun = time.monotonic()
        await stand.bus.store.append(stand.bus.author.invocation(Ref("shop", "coder", new_id()), Death))
        await stand.slack.until(lambda seen=seen: len(stand.slack.calls) > seen)  # type: ignore[misc]
        took.append(1000 * (stand.slack.calls[seen].at - begun))
        await stand.drained()
    p99 = quantiles(took, n=100)[98]
    return [
        Row(what="event to Slack's request, p50", unit="ms", ours=median(took)),
        Row(what="event to Slack's request, p99", unit="ms", ours=p99, target=f"< {LIMIT_MS:g} ms", met=p99 < LIMIT_MS),
    ]


async def _overtaken(stand: Stand) -> list[Row]:
    slack = stand.slack
    slack.answering.clear()
    await stand.deaths(1)
    before = len(stand.channel.messages)
    await slack.until(lambda: len(stand.channel.messages) > before)
    await stand.deaths(QUEUED)
    while await stand.unread():
        await asyncio.sleep(0.02)
    event = incident.Declared(title="Fire", severity=Severity.ULTRA, by="bench", since=datetime.now(UTC))
    await stand.bus.store.append(stand.bus.author.control("1", event))
    while (await stand.bus.connection.api("CONSUMER.INFO.CONTROL.slack_mirror"))["num_pending"]:
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.2)  # it is handed out; planning it takes a millisecond
    posted, begun = len(stand.channel.messages), time.monotonic()
    slack.answering.set()
    await slack.said(stand.channel.id, "Incident 1")
    took = 1000 * (time.monotonic() - begun)
    place = next(n for n, m in enumerate(stand.channel.messages[posted:], 1) if "Incident 1" in m["text"])
    await stand.drained()
    return [
        Row(
            what=f"an ultra with {QUEUED:,} queued goes out as number", unit="", ours=place, target="1", met=place == 1
        ),
        Row(what="and is at Slack after the answer to the one before it", unit="ms", ours=took),
    ]


async def _memory(stand: Stand, scale: Scale) -> list[Row]:
    marks = [mark // 2 for mark in scale.marks]
    done, sizes = 0, []
    for mark in marks:
        await stand.deaths(mark - done)
        await stand.drained()
        done = mark
        sizes.append(stand.memory())
        stand.channel.messages.clear()
        stand.slack.calls.clear()
    rows = [
        Row(what=f"mirror memory after {mark:,} events", unit="MB", ours=size)
        for mark, size in zip(marks, sizes, strict=True)
    ]
    growth = sizes[-1] - sizes[0]
    what = f"its growth from {marks[0]:,} to {marks[-1]:,}"
    rows.append(Row(what=what, unit="MB", ours=growth, target=f"< {GROWTH:g} MB", met=growth < GROWTH))
    return rows
