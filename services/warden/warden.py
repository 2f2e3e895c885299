"""The warden: the guards that need to see the whole fleet, schedules, and the services that people and agents ask.

One of it runs. When it is away, work goes on: runners claim and finish, the server keeps ticks and advisories, and a silent
holder's claim runs out after ``ack_wait``. What stops meanwhile: new requests over NATS, sweeps within seconds, schedules.
All of it is caught up with when the warden is back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import structlog
from nats.micro.request import Request

from bus import subjects, topology, wire
from bus.events import advisory
from bus.flags import DRILL, REAL
from bus.store import INVOCATIONS
from services.daemon import Bus, Evidence
from services.fleet.registry import RegisteredRole, Registry
from services.patience import insist
from services.requests.requests import Requests
from services.requests.service import Services
from services.warden import journal
from services.warden.durable import handle
from services.warden.facts import Facts, RoleFact, RunningFact
from services.warden.freezer import Freezer, Roles
from services.warden.graves import Graves
from services.warden.journal import Journal
from services.warden.loops import Loops
from services.warden.sweeper import Sweeper
from services.warden.ticks import Ticks
from services.warden.treasurer import Treasurer
from services.warden.valve import Valve
from services.warden.work import TRIPS, TripFact, trip_of

log = structlog.get_logger()

_DEAD_LETTERS, _TICKS, _ADVISORIES = topology.SERVICE_CONSUMERS[:3]

#: Endpoints of a micro service: name -> subject and answer.
Endpoints = dict[str, tuple[str, Callable[[Request], Awaitable[bytes]]]]


class Warden:
    """Runs the guards, the schedules and the services."""

    def __init__(self, bus: Bus, registry: Registry, requests: Requests, folder: Path, archive: Path) -> None:
        self._bus = bus
        self._registry = registry
        self.sweeper = Sweeper(bus, registry, folder, lambda: self.freezer.standstill)
        self.freezer = Freezer(bus, REAL, Roles(self._cheapest_first, self._backlog, self.sweeper.put_back, self._turn))
        self._drill = Freezer(bus, DRILL)
        self.treasurer = Treasurer(bus, registry, folder, archive)
        self.loops = Loops(bus, registry, folder, self.treasurer.price)
        self.valve = Valve(bus, registry, self.freezer.withholds, self.freezer.known)
        self._graves = Graves(bus)
        self._journal = Journal(bus, registry)
        self._ticks = Ticks(bus, registry, requests)
        self._services = Services(bus, registry, requests, self.facts)
        self._changed = asyncio.Event()
        self._looked_up: set[str] = set()
        #: Micro services of what runs beside the warden: name, description, endpoints.
        self.beside: list[tuple[str, str, Endpoints]] = []

    async def open(self) -> None:
        """Begin to answer: what is asked from now on is heard."""
        await self._services.open()
        await self._services.serve("quota", "Caps, and what is spent", self.treasurer.endpoints)
        for name, description, endpoints in self.beside:
            await self._services.serve(name, description, endpoints)

    async def run(self) -> None:
        """For ever, after :meth:`open`."""
        self._registry.on_change = self._registry_changed
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.sweeper.run())
                group.create_task(self.freezer.run())
                group.create_task(self._drill.run())
                group.create_task(self.valve.run())
                group.create_task(self.treasurer.run())
                group.create_task(self.loops.run())
                group.create_task(handle(self._bus, _DEAD_LETTERS, self._graves.bury))
                group.create_task(handle(self._bus, _TICKS, self._ticks.tick))
                group.create_task(handle(self._bus, _ADVISORIES, self._advised))
                group.create_task(handle(self._bus, journal.CONSUMER, self._journal.write))
                group.create_task(self._keep_schedules())
        finally:
            await self._services.close()

    async def ready(self) -> None:
        """Wait until it has read all that was in the log at its start."""
        await self.sweeper.caught_up()

    def _registry_changed(self, _key: str) -> None:
        self._changed.set()
        self.treasurer.changed()

    def _cheapest_first(self) -> list[str]:
        """The roles in the order in which a thaw releases them: what may run twice and costs least, first."""

        def risk(registered: RegisteredRole) -> tuple[object, ...]:
            role = registered.role
            unknown = float("inf")
            usd = role.max_usd if role.max_usd is not None else unknown
            tokens = role.max_tokens if role.max_tokens is not None else unknown
            return (not role.idempotent, usd, tokens, registered.path)

        return [registered.path for registered in sorted(self._registry.roles.values(), key=risk)]

    def _backlog(self, role: str, seq: int) -> int:
        """What of a role was asked up to a sequence and waits to be claimed; none where something else keeps it closed."""
        if self._bus.gate.refusal(role=role) is not None:
            return 0
        work = self.sweeper.work
        if work.position < seq:
            return 1  # not read that far yet
        return work.queued(subjects.parse_role(role), seq)

    async def _turn(self) -> None:
        await self.valve.turn()

    async def _keep_schedules(self) -> None:
        while True:
            self._changed.clear()
            await insist(self._ticks.sync, "schedules_not_set")
            await self._changed.wait()

    async def _advised(self, delivery: wire.Delivery) -> None:
        """The server gave up on a delivery: quicker than the scan, and never the only way."""
        found = advisory.read(delivery.data)
        if found is None or found.stream != "INVOCATIONS":
            return
        await self.sweeper.bury(found.stream_seq, found.consumer)

    def evidence(self) -> Evidence:
        """What the warden can show for itself."""
        work = self.sweeper.work
        return Evidence(handled=work.position, in_flight=len(work.open), last_empty_at=self.sweeper.last_answer_at)

    async def _trips(self) -> dict[str, TripFact]:
        """The last acts of guards: those before our start are looked up once, because the server goes through all subjects."""
        known = self.sweeper.work.last_trips
        for name in TRIPS:
            if name not in known and name not in self._looked_up:
                last = await self._bus.store.last(INVOCATIONS, f"inv.*.*.*.{name}")
                self._looked_up.add(name)
                if last is not None:
                    known.setdefault(name, trip_of(last))
        return dict(known)

    async def facts(self) -> Facts:
        """The fold's facts."""
        work = self.sweeper.work
        now = datetime.now(UTC)
        unfinished: dict[str, dict[str, int]] = {}
        for (project, name, status), count in work.unfinished.items():
            if count:
                unfinished.setdefault(f"{project}/{name}", {})[status.value] = count
        held = (work.open[id_] for ids in work.by_holder.values() for id_ in ids)
        running = [
            RunningFact(
                invocation=item.ref.id,
                role=f"{item.ref.project}/{item.ref.role}",
                runner=item.runner,
                since=item.since,
                age_s=round(max(0.0, (now - item.since).total_seconds()), 3),
            )
            for item in held
        ]
        events: dict[str, dict[str, int]] = {}
        for (role, name), count in work.counts.items():
            events.setdefault(role, {})[name] = count
        names = sorted({*events, *unfinished, *(r.path for r in self._registry.roles.values())})
        running.sort(key=lambda fact: fact.since)
        return Facts(
            position=work.position,
            lag=self.sweeper.lag,
            roles=tuple(RoleFact(role=r, unfinished=unfinished.get(r, {}), events=events.get(r, {})) for r in names),
            running=tuple(running[:20]),
            last_errors=tuple(reversed(work.last_errors))[:20],
            swept=self.sweeper.acted,
            trips=await self._trips(),
        )
