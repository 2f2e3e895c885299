"""Keeps incidents going: opens them for findings, calls people, minds the clock, and drafts the post-mortem.

Everything it does follows from the record and the time, so a handler that was away goes on where things stand. It heeds
every event of findings and incidents at once, and time once a second. What the server does not take is tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import structlog

from bus import errors
from bus.events.incident import Declared
from bus.follower import Follower
from bus.store import CONTROL, Recorded
from services.daemon import Bus
from services.fleet.registry import Registry
from services.incident import affected, opening, policy
from services.incident import commands as ask
from services.incident.affected import Scene
from services.incident.causes import Causes
from services.incident.decision import GRAPH, IncidentRefused
from services.incident.ledger import Ledger
from services.incident.opening import Declare, Standing
from services.incident.pager import Pager
from services.incident.state import Incident, Status, evolve
from services.incident.teller import Teller
from services.loop.tree import Forest
from services.patience import insist

log = structlog.get_logger()

_FINDINGS = "ctl.finding.>"
_HEEDED = [_FINDINGS, "ctl.incident.>"]
#: What is logged while the server does not take something.
_WAITS = "incidents_wait"
#: Seconds between two looks at the clock.
_LOOK_S = 1.0
#: Seconds between two looks at which projects an open incident hits.
_GRAPH_S = 5.0
#: Seconds that somebody who was quicker gets to be read.
_OVERTAKEN_S = 0.1
#: Steps in one turn: one event makes no more than a few, so more is a fault of ours that must not spin.
_STEPS = 200
#: Drafts a post-mortem: its Markdown.
Draft = Callable[[Incident], Awaitable[str]]


class Handler:
    """Handles incidents."""

    def __init__(
        self,
        bus: Bus,
        registry: Registry,
        *,
        forest: Callable[[], Forest],
        draft: Draft,
        home: Path,
        environ: Mapping[str, str],
        first: Callable[[], Awaitable[bool]],
    ) -> None:
        """Make it.

        Args:
            bus: where everything happens.
            registry: roles, policies and settings.
            forest: the run trees with open work.
            draft: writes a post-mortem.
            home: the state directory.
            environ: where addresses of ways may stand.
            first: whether no other handler goes before this one, and calls.
        """
        self._bus = bus
        self._registry = registry
        self._forest = forest
        self._draft = draft
        self.ledger = Ledger(bus)
        self._pager = Pager(bus, self.ledger, lambda: policy.duty_of(registry), home, environ, first)
        self._teller = Teller(bus, registry, self.ledger, home, environ)
        #: Open findings by fingerprint, and the sequence of the last event of one.
        self._standing: dict[str, Standing] = {}
        self._position = 0
        self._causes = Causes(bus)
        self._rung = asyncio.Event()
        #: When the graph was looked at, by the incident's number and how many findings it had.
        self._graphed_at: dict[tuple[int, int], float] = {}

    async def run(self) -> None:
        """For ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._heed())
            group.create_task(self._work())
            group.create_task(self._teller.run())

    async def _heed(self) -> None:
        info = await insist(lambda: self._bus.connection.api(f"STREAM.INFO.{CONTROL}"), _WAITS)
        self._rung.set()
        async for _ in Follower(self._bus.connection, CONTROL, _HEEDED, start=info["state"]["last_seq"] + 1).batches():
            self._rung.set()

    async def _work(self) -> None:
        try:
            while True:
                await insist(self._turn, _WAITS)
                try:
                    async with asyncio.timeout(_LOOK_S):
                        await self._rung.wait()
                except TimeoutError:
                    continue
        finally:
            await self._pager.close()

    async def _turn(self) -> None:
        """Everything that follows from what is known now.

        Raises:
            BusError: the server does not answer.
        """
        if self._rung.is_set():
            self._rung.clear()
            try:
                await self._read()
            except errors.BusError:
                self._rung.set()
                raise
        # Each by itself: whatever the server does not take of one must not keep people from being called.
        for part in (self._open, self._pager.turn, self._clocks, self._graphs, self._drafts):
            try:
                await part()
            except errors.BusError as exc:
                log.warning(_WAITS, part=part.__name__.strip("_"), error=str(exc), again_s=_LOOK_S)
                await self._bus.connection.ready()

    async def _clocks(self) -> None:
        for incident in self.ledger.open:
            await self._clock(incident)

    async def _graphs(self) -> None:
        for incident in self.ledger.open:
            await self._graph(incident)

    async def _drafts(self) -> None:
        for incident in list(self.ledger.incidents.values()):
            if incident.status is Status.CLOSED and not incident.drafted:
                await self._try(incident.number, ask.Draft(await self._draft(incident)))

    async def _read(self) -> None:
        await self.ledger.catch_up()
        async for record in self._bus.store.read(CONTROL, _FINDINGS, start=self._position + 1):
            self._take(record)
        for print_, found in self._standing.items():
            cause = await self._causes.of(found.known.finding.evidence)
            self._standing[print_] = msgspec.structs.replace(found, roots=cause.roots)
        self._causes.keep({found.known.finding.evidence for found in self._standing.values()})

    def _take(self, record: Recorded) -> None:
        self._position = record.seq
        if record.data is None:
            return
        print_ = record.subject.split(".")[2]
        after = opening.stand(self._standing.get(print_), record)
        if after is None:
            self._standing.pop(print_, None)
        else:
            self._standing[print_] = after

    async def _open(self) -> None:
        for _ in range(_STEPS):
            limits = self._registry.settings.incidents
            step = opening.next_step(self.ledger.incidents, self._standing, limits, self._bus.author.now())
            if step is None:
                return
            if isinstance(step, Declare):
                incident = await self.ledger.declare(await self._hit(step.event))
                log.error("incident_declared", incident=incident.number, title=incident.title, command=incident.command)
            elif not await self._try(step.number, step.command):
                return
        log.error("incidents_spin", steps=_STEPS, action="going on at the next look")

    async def _try(self, number: int, command: ask.Command) -> bool:
        """Whether it was done; who was quicker has made it needless, and the next turn sees that."""
        try:
            await self.ledger.act(number, command)
        except IncidentRefused as exc:
            log.info("incident_overtaken", incident=number, command=type(command).__name__, why=str(exc))
            self._rung.set()
            await asyncio.sleep(_OVERTAKEN_S)
            return False
        return True

    async def _clock(self, incident: Incident) -> None:
        """End what is over, and say that there is no news when some were due."""
        now, limits = self._bus.author.now(), self._registry.settings.incidents
        lapsed = incident.status is Status.ACKNOWLEDGED and _passed(incident.owner_until, now)
        if lapsed and await self._try(incident.number, ask.Expire()):
            log.error("acknowledgement_expired", incident=incident.number, owner=incident.owner)
        if _passed(incident.next_at, now):
            next_at = now + timedelta(seconds=limits.update_every)
            if await self._try(incident.number, ask.Tick(next_at)):
                log.warning("update_overdue", incident=incident.number, nags=incident.in_charge or "nobody")

    async def _graph(self, incident: Incident) -> None:
        """Say which projects are hit, as far as that is news; looked at again now and then, because work goes on."""
        loop_time = asyncio.get_running_loop().time()
        key = (incident.number, len(incident.findings))
        if loop_time - self._graphed_at.get(key, float("-inf")) < _GRAPH_S:
            return
        self._graphed_at[key] = loop_time
        added = affected.news(incident, affected.impacts(incident, await self._scene(incident)))
        added = tuple(impact for impact in added if impact.project not in incident.spared)
        if added:
            await self._try(incident.number, ask.Affect(by=GRAPH, add=added))

    async def _hit(self, event: Declared) -> Declared:
        """The declaration with the projects that it hits: its first word goes to them."""
        as_is = evolve(None, 0, event, 0, self._bus.author.now())
        assert as_is is not None
        return msgspec.structs.replace(event, affected=affected.impacts(as_is, await self._scene(as_is)))

    async def _scene(self, incident: Incident) -> Scene:
        """What is known of the fleet now, and of where an incident's findings come from.

        Raises:
            BusError: the server does not answer.
        """
        now = self._bus.author.now()
        waits = affected.waits(self._forest())
        for print_ in incident.findings.keys() & self._standing.keys():
            cause = await self._causes.of(self._standing[print_].known.finding.evidence)
            waits = affected.merged(waits, cause.asked)
        return Scene(
            roles=frozenset(registered.path for registered in self._registry.roles.values()),
            refusals=tuple(refusal for refusal in self._bus.gate.trips.values() if refusal.stands(now)),
            waits=waits,
        )


def _passed(at: datetime | None, now: datetime) -> bool:
    return at is not None and now >= at
