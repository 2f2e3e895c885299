"""The mirror: what happens, shown in channels. Reads, plans, hands to channels, and acknowledges what is shown.

An event is acknowledged when each of its messages stands and is recorded. Nothing of what waits is kept anywhere else: after
a restart it is read again. Memory is bounded by what may be read ahead (:data:`services.slack.source.CAPACITY`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta

import structlog

from bus import errors
from bus.events import incident
from bus.store import CONTROL, INVOCATIONS, Recorded
from services.daemon import Bus, Evidence
from services.fleet.registry import Registry
from services.incident.ledger import fold, scope
from services.incident.state import Incident, answer
from services.slack import plan
from services.slack.alarm import Alarm
from services.slack.board import Board
from services.slack.channel import Channel, Status
from services.slack.notice import Notice
from services.slack.plan import Fleet
from services.slack.record import Record
from services.slack.screen import Refused, Screen
from services.slack.source import Source

log = structlog.get_logger()

#: Events that are planned before others get their turn.
_TURN = 50
#: What the board is made of.
_HISTORY = ("ctl.finding.>", "ctl.incident.>")


class Mirror:
    """The whole of it."""

    def __init__(self, bus: Bus, registry: Registry, screen: Screen) -> None:
        self._bus, self._registry, self._screen = bus, registry, screen
        self.board = Board()
        self.record = Record(bus)
        self.channels: dict[str, Channel] = {}
        self.fleet = fleet_of(registry)
        filters = plan.filters(self.fleet.slack)
        self.sources = {stream: Source(bus, stream, filters[stream]) for stream in (CONTROL, INVOCATIONS)}
        self._group: asyncio.TaskGroup | None = None
        self._alarm = Alarm(bus)
        #: Concerns that are being raised, by channel.
        self._raising: dict[str, asyncio.Task[None]] = {}
        registry.listeners.append(self._changed)

    def evidence(self) -> Evidence:
        """What the daemon can show for its being alive."""
        seen = [source.last_answer_at for source in self.sources.values()]
        heard = max((at for at in seen if at is not None), default=None)
        return Evidence(
            last_empty_at=heard,
            in_flight=sum(len(source.open) for source in self.sources.values()),
            handled=sum(source.settled for source in self.sources.values()),
        )

    def statuses(self) -> tuple[Status, ...]:
        """How each channel stands."""
        return tuple(channel.status for _, channel in sorted(self.channels.items()))

    async def run(self) -> None:
        """For ever."""
        for source in self.sources.values():
            await source.open_first()
        begun = [at for source in self.sources.values() if (at := await source.begun_at()) is not None]
        await self.record.read(min(begun, default=self._bus.author.now()))
        await self._remember(self.sources[CONTROL].floor)
        log.info("slack_mirror_begins", floors={name: source.floor for name, source in self.sources.items()})
        async with asyncio.TaskGroup() as group:
            self._group = group
            for source in self.sources.values():
                group.create_task(self._follow(source), name=f"slack {source.stream}")

    async def _remember(self, floor: int) -> None:
        """Fold what was shown long ago: what comes next is told by it."""
        for filter_ in _HISTORY:
            async with aclosing(self._bus.store.read(CONTROL, filter_)) as records:
                async for record in records:
                    if record.seq > floor:
                        break
                    self.board.take(record)

    async def _follow(self, source: Source) -> None:
        records: AsyncGenerator[Recorded, None] = source.records()
        count = 0
        async with aclosing(records):
            async for record in records:
                notices = plan.step(record, self.board, self.fleet)
                left = [notice for notice in notices if notice.page is not None or not self.record.has(notice)]
                source.expect(record.seq, len(left))
                for notice in left:
                    self._channel(notice.channel).add(notice)
                count += 1
                if count % _TURN == 0:
                    await asyncio.sleep(0)

    def _channel(self, name: str) -> Channel:
        channel = self.channels.get(name)
        if channel is None:
            channel = self.channels[name] = Channel(
                name,
                self._screen,
                self.record,
                pace=lambda: (self.fleet.slack.per_second, self.fleet.slack.burst),
                suspect=lambda notice: notice.seq <= self.sources[notice.stream].suspect_until,
                settle=lambda notice: self.sources[notice.stream].shown(notice.seq),
                answer=self._answer,
                moot=self._moot,
                refusing=self._refusing,
            )
            assert self._group is not None
            self._group.create_task(channel.run(), name=f"slack {name}")
        return channel

    def _changed(self) -> None:
        """The settings have: from the next event on."""
        self.fleet = fleet_of(self._registry)
        for stream, filters in plan.filters(self.fleet.slack).items():
            self.sources[stream].ask_for(filters)

    async def _moot(self, notice: Notice) -> str:
        """Why somebody need not be called any more.

        The record is asked, for the board may lie behind it, above all after a start: nobody is called for what somebody has
        acknowledged. Where it does not answer, the call goes out by what the board says.
        """
        assert notice.page is not None
        try:
            state = await self._stands(notice.incident)
        except errors.BusError as exc:
            log.warning("slack_incident_unread", incident=notice.incident, error=str(exc))
            state = self.board.incidents.get(notice.incident)
        if state is not None and not state.pages:
            return f"not sent: incident {notice.incident} is {state.status.value}, nobody is called for it any more"
        if state is not None and notice.page.page not in {line.page for line in state.lines}:
            return f"not sent: another call has taken its place in incident {notice.incident}"
        limit = self._registry.settings.incidents.answer_within
        if self._bus.author.now() - notice.at > timedelta(seconds=limit):
            return f"not sent: Slack took nothing within {limit:g} s"
        return ""

    async def _stands(self, number: int) -> Incident | None:
        """An incident as the record has it now.

        Raises:
            BusError: the server does not answer.
        """
        found: dict[int, Incident] = {}
        async with aclosing(self._bus.store.read(CONTROL, scope(number))) as records:
            async for record in records:
                fold(found, record)
        return found.get(number)

    async def _answer(self, notice: Notice, why: str) -> None:
        """Say what became of a call; once."""
        order = notice.page
        assert order is not None
        async with aclosing(self._bus.store.read(CONTROL, f"ctl.incident.{notice.incident}.paged")) as answers:
            async for record in answers:
                said = record.data
                # That it went out is also said after the warden has given it up.
                if isinstance(said, incident.Paged) and said.page == order.page and (said.ok or why):
                    return
        paged = answer(order, why, (self._bus.author.now() - notice.at).total_seconds())
        event_id = f"{order.page}-{order.attempt}-paged"
        event = self._bus.author.control(str(notice.incident), paged, cause=notice.event, event_id=event_id)
        await self._bus.store.append(event)

    async def _refusing(self, name: str, refused: Refused | None) -> None:
        """A channel takes nothing, or takes messages again: the first is raised, because people must repair it."""
        before = self._raising.pop(name, None)
        if before is not None:
            before.cancel()
        if refused is not None and self._group is not None:
            # Not awaited: the warden may be away, and other messages of the channel must not wait for it.
            self._raising[name] = self._group.create_task(self._alarm.channel(name, refused))


def fleet_of(registry: Registry) -> Fleet:
    """The settings by which is decided where something is shown."""
    roles: dict[str, list[str]] = {}
    for role in registry.roles.values():
        roles.setdefault(role.project, []).append(role.name)
    return Fleet(
        slack=registry.settings.slack,
        channels={name: its.slack_channel for name, its in registry.projects.items() if its.slack_channel},
        roles={name: tuple(its) for name, its in roles.items()},
        people={name: its.slack for name, its in registry.settings.people.items() if its.slack},
    )
