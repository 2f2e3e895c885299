"""Looks at the fleet, part by part: what could not be seen is named, and takes nothing else with it.

Everything is asked at once; the slowest part is the look. A role's consumer that seems wrong is looked at twice, because
between two pulls it has none for a moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog
from nats import errors as driver

from bus import errors
from bus.events import message, quota, schedule
from bus.invocation import Status
from bus.store import CONTROL, DEAD_LETTERS, INVOCATIONS, Recorded, parse_time
from bus.subjects import parse_role, role_consumer
from services import declaration
from services.daemon import Bus, control_id
from services.fleet.registry import Registry
from services.fleet.spec import SANDBOX, Monitor
from services.health.daemons import State
from services.health.gather import NEWEST, gather
from services.health.panel import Panel
from services.monitor import machine
from services.monitor.seen import (
    ClaimSeen,
    ConsumerSeen,
    LettersSeen,
    Part,
    Said,
    Seen,
    StepSeen,
    Unseen,
)
from services.monitor.tables import Tables
from services.warden import stranded
from services.warden.facts import Facts
from services.warden.work import OpenWork

log = structlog.get_logger()

T = TypeVar("T")

#: What a quick look leaves out: it changes seldom, or costs much.
SLOW = frozenset({Part.SHAPE, Part.TABLES, Part.ARCHIVE})
#: Seconds between two looks at a consumer that seems wrong.
_AGAIN_S = 0.3
#: Seconds after a launcher's start in which daemons and consumers may still come.
SETTLE_S = 10.0
#: Unfolded events from which the fold is not believed.
_LAG = 10_000
#: Seconds that a handed out invocation may lie unclaimed before it is stranded; the sweeper brings it back long before.
_STRANDED_S = 30.0
#: Dead letters up to which they are counted by role.
_BY_ROLE = 10_000
#: What a part may fail by without taking the sweep with it.
_BLIND = (errors.BusError, driver.Error, TimeoutError, OSError, msgspec.DecodeError)
#: Events of CONTROL that are looked at over the look-back window.
_LATELY: tuple[tuple[str, type[msgspec.Struct]], ...] = (
    ("ctl.quota.*.repaired", quota.Repaired),
    ("ctl.schedule.*.missed", schedule.Missed),
    ("ctl.message.*.rejected", message.Rejected),
)


class Looker:
    """Looks."""

    def __init__(
        self,
        bus: Bus,
        registry: Registry,
        *,
        host: str,
        store: Path,
        facts: Callable[[], Awaitable[Facts]],
        work: Callable[[], OpenWork],
    ) -> None:
        """Make it.

        Args:
            bus: what is looked at.
            registry: the roles that there are.
            host: this machine's name.
            store: where the embedded server keeps its store; a folder that is not there has no disk to look at.
            facts: the fold's facts.
            work: the fold itself.
        """
        self._bus = bus
        self._registry = registry
        self._host = host
        self._store = store
        self._facts = facts
        self._work = work
        self._tables = Tables(bus.connection)

    async def look(self, limits: Monitor, *, skip: frozenset[Part] = frozenset()) -> Seen:
        """Look once. Raises nothing that a server or a daemon that is away can cause."""
        unseen: list[Unseen] = []
        now = self._bus.author.now()
        since = now - timedelta(seconds=limits.lately)
        async with asyncio.TaskGroup() as group:

            def begin(part: Part, look: Callable[[], Awaitable[T]]) -> asyncio.Task[T | None]:
                return group.create_task(self._part(part, look, unseen, skip))

            panels = begin(Part.PANEL, lambda: gather(self._bus, self._registry, findings=False))
            servers = begin(Part.SERVER, lambda: machine.look(self._bus, self._host, self._store))
            folds = begin(Part.WORK, self._facts)
            dead = begin(Part.LETTERS, lambda: self._letters(since))
            record = begin(Part.RECORD, lambda: self._said(since))
            shape = begin(Part.SHAPE, self._steps)
            failures = begin(Part.TABLES, lambda: self._tables.errors(now, limits))
            archive = begin(Part.ARCHIVE, self._tables.gaps)
        panel, facts = panels.result(), folds.result()
        errors_seen, lag_events, lag_s = failures.result() or ((), 0, 0.0)
        if facts is not None and facts.lag > _LAG:
            unseen.append(Unseen(Part.WORK, f"the warden has {facts.lag:,} events of the log still to read"))
        if panel is not None:
            hidden = [what for what in panel.unseen if not what.startswith(NEWEST)]
            unseen += [Unseen(Part.WORK, what) for what in hidden]
        seen = Seen(
            at=now,
            host=self._host,
            skipped=skip,
            panel=panel,
            server=servers.result(),
            consumers=await self._consumers(panel, facts, unseen),
            claims=self._claims(facts),
            letters=dead.result() or (),
            said=record.result() or (),
            steps=shape.result() or (),
            errors=errors_seen,
            lag_events=lag_events,
            lag_s=lag_s,
            gaps=archive.result() or (),
        )
        seen = await self._with_daemons(seen, unseen)
        return msgspec.structs.replace(seen, unseen=tuple(dict.fromkeys(unseen)))

    async def _part(
        self,
        part: Part,
        look: Callable[[], Awaitable[T]],
        unseen: list[Unseen],
        skip: frozenset[Part] = frozenset(),
    ) -> T | None:
        if part in skip:
            return None
        try:
            return await look()
        except _BLIND as exc:
            log.warning("part_unseen", part=part.value, error=str(exc) or type(exc).__name__)
            unseen.append(Unseen(part, str(exc) or type(exc).__name__))
            return None

    # ---- work

    async def _consumers(
        self, panel: Panel | None, facts: Facts | None, unseen: list[Unseen]
    ) -> tuple[ConsumerSeen, ...]:
        if panel is None:
            return ()
        unfinished = {role.role: sum(role.unfinished.values()) for role in facts.roles} if facts is not None else {}
        lines = [
            ConsumerSeen(
                role=line.role,
                pending=line.backlog,
                ack_pending=line.in_flight,
                waiting=line.waiting_pulls or 0,
                unfinished=unfinished.get(line.role, 0),
            )
            for line in panel.roles
            if not line.role.startswith(f"{SANDBOX}/")
        ]
        odd = [line for line in lines if _odd(line)]
        if odd:
            await asyncio.sleep(_AGAIN_S)
            again = await asyncio.gather(*(self._part(Part.PANEL, partial(self._again, one), unseen) for one in odd))
            fresh = {one.role: one for one in again if one is not None}
            lines = [fresh.get(line.role, line) for line in lines]
        return tuple(lines)

    async def _again(self, line: ConsumerSeen) -> ConsumerSeen:
        """The consumer as it is now, with what of its work is stranded."""
        name = role_consumer(*parse_role(line.role))
        try:
            found = stranded.read(await self._bus.connection.api(f"CONSUMER.INFO.{INVOCATIONS}.{name}"))
        except errors.ServerError:
            return line  # registered, and its consumer not made yet: still nobody asks
        project, role = parse_role(line.role)
        work = self._work()
        unfinished = sum(
            count
            for (of_project, of_role, status), count in work.unfinished.items()
            if (of_project, of_role) == (project, role) and status is not Status.SCHEDULED
        )
        # Only where runners wait for work and get none can any be stranded: elsewhere nobody has to look through all of it.
        suspicious = found.hungry and not found.pending and unfinished > 0
        return msgspec.structs.replace(
            line,
            pending=found.pending,
            ack_pending=found.ack_pending,
            waiting=found.waiting,
            unfinished=unfinished,
            stranded=self._stranded(project, role) if suspicious else (),
        )

    def _stranded(self, project: str, role: str) -> tuple[str, ...]:
        """Invocations of a role that have been queued for long, though somebody waits for work."""
        now = self._bus.author.now()
        lost = (
            item.ref.id
            for item in self._work().open.values()
            if item.status is Status.QUEUED
            and (item.ref.project, item.ref.role) == (project, role)
            and (now - item.since).total_seconds() > _STRANDED_S
        )
        return tuple(islice(lost, 100))

    def _claims(self, facts: Facts | None) -> tuple[ClaimSeen, ...]:
        found = []
        for fact in facts.running if facts is not None else ():
            registered = self._registry.roles.get(parse_role(fact.role))
            found.append(
                ClaimSeen(
                    role=fact.role,
                    invocation=fact.invocation,
                    since=fact.since,
                    age_s=fact.age_s,
                    timeout_s=registered.role.timeout if registered is not None else 0.0,
                )
            )
        return tuple(found)

    async def _letters(self, since: datetime) -> tuple[LettersSeen, ...]:
        state = (await self._bus.connection.api(f"STREAM.INFO.{DEAD_LETTERS}"))["state"]
        if not state["messages"]:
            return ()
        oldest = parse_time(state["first_ts"])
        if state["messages"] > _BY_ROLE:
            return (await self._letters_of("", "dlq.>", state["messages"], since, oldest, state["last_seq"]),)
        info = await self._bus.connection.api(f"STREAM.INFO.{DEAD_LETTERS}", {"subjects_filter": "dlq.>"})
        counts: dict[str, int] = {}
        for subject in info["state"].get("subjects") or {}:
            _, project, role, _ = subject.split(".", 3)
            counts[f"{project}/{role}"] = counts.get(f"{project}/{role}", 0) + 1
        return tuple(
            await asyncio.gather(
                *(
                    self._letters_of(role, f"dlq.{role.replace('/', '.')}.*", count, since, oldest, 0)
                    for role, count in sorted(counts.items())
                    if not role.startswith(f"{SANDBOX}/")
                )
            )
        )

    async def _letters_of(
        self, role: str, filter_: str, count: int, since: datetime, oldest: datetime, last_seq: int
    ) -> LettersSeen:
        store = self._bus.store
        _, lately = await store.since(DEAD_LETTERS, filter_, since)
        if role:
            async for first in store.messages(DEAD_LETTERS, filter_, limit=1):
                oldest = first.stored_at
            last = await store.last(DEAD_LETTERS, filter_)
            last_seq = last.seq if last is not None else 0
        return LettersSeen(role=role, count=count, lately=lately, oldest_at=oldest, last_seq=last_seq)

    # ---- the record and the shape

    async def _said(self, since: datetime) -> tuple[Said, ...]:
        found: list[Said] = []
        for filter_, kind in _LATELY:
            seq, count = await self._bus.store.since(CONTROL, filter_, since)
            if not count:
                continue
            records = self._bus.store.read(CONTROL, filter_, start=seq, limit=min(count, 1000))
            found += [said(record) async for record in records if isinstance(record.data, kind)]
        return tuple(sorted(found, key=lambda one: one.seq))

    async def _steps(self) -> tuple[StepSeen, ...]:
        _, difference = await declaration.compare(self._bus, None, None)
        frozen = self._bus.gate.switch.frozen
        return tuple(
            StepSeen(name=step.name, action=step.action, changes=step.changes)
            for step in difference.steps
            # A frozen log is not as declared: that is how it is frozen.
            if not (frozen and step.name == INVOCATIONS)
        )

    async def _with_daemons(self, seen: Seen, unseen: list[Unseen]) -> Seen:
        """With the last event about each daemon that is not as it should be, and whether the fleet has just come up."""
        if seen.panel is None:
            return seen
        seats = [
            control_id(line.name, line.host)
            for line in seen.panel.daemons
            if line.state not in (State.ALIVE, State.STARTING) or line.exited_at is not None
        ]

        async def words() -> dict[str, Said]:
            lasts = await asyncio.gather(*(self._bus.store.last(CONTROL, f"ctl.daemon.{seat}.*") for seat in seats))
            return {seat: said(last) for seat, last in zip(seats, lasts, strict=True) if last is not None}

        async def settling() -> bool:
            beats = await self._bus.liveness.all()
            started = [beat.started_at for beat in beats if beat.daemon == "launcher"]
            return any((seen.at - at).total_seconds() < SETTLE_S for at in started)

        found = await self._part(Part.PANEL, words, unseen)
        young = await self._part(Part.PANEL, settling, unseen)
        return msgspec.structs.replace(seen, daemons=found or {}, settling=bool(young))


def said(record: Recorded) -> Said:
    """A record of CONTROL as what was said."""
    return Said(seq=record.seq, at=record.stored_at, id=record.subject.split(".")[2], data=record.data)


def _odd(line: ConsumerSeen) -> bool:
    """A consumer that is worth a second look."""
    idle = line.waiting == 0 and line.ack_pending == 0
    orphaned = line.ack_pending > 0 and line.unfinished == 0
    behind = line.waiting > 0 and line.pending == 0 and line.unfinished > line.ack_pending
    return idle or orphaned or behind
