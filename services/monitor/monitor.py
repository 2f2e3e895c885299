"""When the fleet is looked at: by the server's schedule, on demand, and at once after what cannot wait.

The schedule is the server's own, so that a sweep is due whoever is alive; its tick is handled through a durable consumer. A tick
that waited while the warden was away is covered by the sweep that its start makes. The event path follows the log from where
the last sweep had seen it: what happened while nobody watched is an alarm all the same. A flood of alarms becomes sweeps
that are further and further apart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import msgspec
import structlog
from nats.micro.request import Request

from bus import errors, wire
from bus.events.sweep import Finished, Trigger
from bus.flags import REAL
from bus.follower import Follower
from bus.ids import key_id
from bus.store import CONTROL, INVOCATIONS
from bus.topology import MONITOR_TICKS, SCHEDULES
from services.daemon import Bus
from services.fleet.registry import Registry
from services.fleet.spec import SANDBOX
from services.monitor import memory
from services.monitor.ledger import Ledger
from services.monitor.look import SETTLE_S, Looker
from services.monitor.memory import Known
from services.monitor.ping import Pinger
from services.monitor.raised import Raises
from services.monitor.status import Done, Open, Status, last_sweep
from services.monitor.sweep import Sweeps
from services.monitor.triage import Carry, Triage
from services.patience import AGAIN_S, insist
from services.requests.requests import Requests
from services.requests.service import ACTOR
from services.warden.durable import handle
from services.warden.facts import Facts
from services.warden.work import OpenWork

log = structlog.get_logger()

#: Name of the schedule.
SCHEDULE = "monitor.sweep"
#: What cannot wait until the next sweep: deaths, trips, lost work, what somebody raises; and recoveries.
_ALARMS = [
    "ctl.daemon.*.exited",
    "ctl.daemon.*.gave_up",
    "ctl.card.*.opened",
    "ctl.card.*.closed",
    "ctl.freeze.*.frozen",
    "ctl.freeze.*.thawed",
    "ctl.quota.*.tripped",
    "ctl.loop.*.tripped",
    "ctl.guard.*.paused",
    "ctl.guard.*.resumed",
    "ctl.drill.*.failed",
    "ctl.finding.*.raised",
]
_LOST = ["inv.*.*.*.dead_lettered"]
#: Seconds in which what belongs together comes together, and the pause after a sweep that an event asked for. It doubles
#: while dead letters go on and on; what else alarms is bounded by itself, and must not wait behind them.
_GATHER_S = 0.2
PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
#: Seconds between two looks whether the server still ticks for the sweeps.
_SCHEDULE_S = 10.0
#: What is logged while the server does not take something.
_WAITS = "monitor_waits"
#: Seconds that a start waits for the rest of the warden: without it a part would be unseen.
_READY_S = 5.0


class Alarm:
    """Something happened that cannot wait: several in a row are one."""

    def __init__(self, longest_s: float) -> None:
        self._longest_s = longest_s
        self._pause_s = PAUSE_S
        self._rung = asyncio.Event()
        self._why = ""

    def ring(self, why: str) -> None:
        """Something happened."""
        self._why = why
        self._rung.set()

    async def next(self) -> str:
        """Wait for it, and for what belongs to it: the subject of the last one."""
        await self._rung.wait()
        await asyncio.sleep(_GATHER_S)
        self._rung.clear()
        return self._why

    async def pause(self) -> None:
        """Rest; twice as long as the last time if it has rung again meanwhile."""
        await asyncio.sleep(self._pause_s)
        self._pause_s = min(2 * self._pause_s, self._longest_s) if self._rung.is_set() else PAUSE_S


class Monitor:
    """Decides when to sweep, and answers for what was found."""

    def __init__(
        self,
        bus: Bus,
        registry: Registry,
        *,
        host: str,
        store: Path,
        facts: Callable[[], Awaitable[Facts]],
        work: Callable[[], OpenWork],
        ready: Callable[[], Awaitable[None]],
        requests: Requests,
        carry: Carry | None = None,
    ) -> None:
        """Make it; for what is not here see :class:`Looker`.

        Args:
            bus: where everything happens.
            registry: roles and settings.
            host: this machine's name.
            store: the server's store.
            facts: the fold's facts.
            work: the fold.
            ready: returns when the warden answers and has read the log.
            requests: the door through which a triage is asked.
            carry: does what a triage may do without a person; None: nobody does.
        """
        self._bus = bus
        self._registry = registry
        self._ready = ready
        self.ledger = Ledger(bus)
        looker = Looker(bus, registry, host=host, store=store, facts=facts, work=work)
        pinger = Pinger(lambda: registry.monitor.ping_url)
        self.sweeps = Sweeps(bus, registry, looker, self.ledger, pinger, self.next_at)
        self.raises = Raises(bus, registry, self.ledger)
        self.triage = Triage(bus, registry, requests, self.ledger, carry)
        self.sweeps.listeners.append(self.triage.heed)
        #: Set when the first sweep is over.
        self.begun = asyncio.Event()
        self._asked: asyncio.Task[Done] | None = None

    @property
    def endpoints(self) -> dict[str, tuple[str, Callable[[Request], Awaitable[bytes]]]]:
        """The micro service ``monitor``."""
        return {
            "sweep": ("monitor.sweep", self._sweep_asked),
            "status": ("monitor.status", self._status_asked),
            "raise": ("monitor.raise", self.raises.answer),
        }

    async def run(self) -> None:
        """For ever."""
        await insist(self.ledger.catch_up, _WAITS)
        await insist(self.triage.recall, _WAITS)
        last = await insist(lambda: self._bus.store.last(CONTROL, "ctl.sweep.*.finished"), _WAITS)
        seen = last.data.positions if last is not None and isinstance(last.data, Finished) else {}
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_schedule())
            for stream, filters, longest_s in ((CONTROL, _ALARMS, PAUSE_S), (INVOCATIONS, _LOST, _LONGEST_PAUSE_S)):
                alarm = Alarm(longest_s)
                group.create_task(self._follow(alarm, stream, filters, seen))
                group.create_task(self._sweep_on(alarm))
            group.create_task(self._look_for_ever())
            group.create_task(self._heed_ticks())
            group.create_task(self.triage.run())

    # ---- the schedule

    async def _keep_schedule(self) -> None:
        """Have the server tick as often as the settings say; looked at when they change, and now and then."""
        changed = asyncio.Event()
        self._registry.listeners.append(changed.set)
        while True:
            changed.clear()
            pause_s = _SCHEDULE_S
            wanted = (f"@every {self._registry.monitor.every:g}s", "")
            try:
                if await self._bus.schedules.pattern(SCHEDULE) != wanted:
                    await self._bus.schedules.repeat(SCHEDULE, wanted[0], b"{}")
                    log.info("sweeps_scheduled", every=wanted[0])
            except errors.BusError as exc:
                pause_s = AGAIN_S
                log.warning("sweeps_unscheduled", error=str(exc), again_s=pause_s)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await changed.wait()

    async def _heed_ticks(self) -> None:
        await self.begun.wait()
        await handle(self._bus, MONITOR_TICKS, self._tick)

    async def _tick(self, delivery: wire.Delivery) -> None:
        id_ = key_id("sweep", f"tick@{delivery.seq}")
        stored_at = datetime.fromtimestamp(delivery.stored_ns / 1e9, UTC)
        last = self.sweeps.last
        late_s = (self._bus.author.now() - stored_at).total_seconds()
        if last is not None and late_s > self._registry.monitor.every and last.at > stored_at:
            log.info("tick_covered", seq=delivery.seq, sweep=last.id)
            return
        if await self._bus.store.last(CONTROL, f"ctl.sweep.{id_}.finished") is None:
            await self.sweeps.sweep(Trigger.SCHEDULE, id_=id_)

    async def next_at(self) -> datetime | None:
        """When the schedule is due next: one interval after its last tick, or after it was set."""
        last = await self._bus.store.last(SCHEDULES, f"tick.{SCHEDULE}")
        last = last or await self._bus.store.last(SCHEDULES, f"sched.{SCHEDULE}")
        return None if last is None else last.stored_at + timedelta(seconds=self._registry.monitor.every)

    # ---- the event path

    async def _follow(self, alarm: Alarm, stream: str, filters: list[str], seen: dict[str, int]) -> None:
        info = await insist(lambda: self._bus.connection.api(f"STREAM.INFO.{stream}"), _WAITS)
        end: int = info["state"]["last_seq"]
        # A position beyond the end is that of a stream that was made anew.
        start = min(seen.get(stream, end), end) + 1
        async for batch in Follower(self._bus.connection, stream, filters, start=start).batches():
            for item in batch:
                if _matters(item.subject):
                    alarm.ring(item.subject)

    async def _sweep_on(self, alarm: Alarm) -> None:
        while True:
            why = await alarm.next()
            await insist(partial(self.sweeps.sweep, Trigger.EVENT, why), _WAITS)
            await alarm.pause()

    async def _look_for_ever(self) -> None:
        """The first sweep, once the fleet is up; then quick looks."""
        try:
            async with asyncio.timeout(_READY_S):
                await self._ready()
        except TimeoutError:
            log.warning("sweep_before_ready", waited_s=_READY_S)
        await asyncio.sleep(await insist(self._settling_s, _WAITS))
        await insist(lambda: self.sweeps.sweep(Trigger.START), _WAITS)
        self.begun.set()
        while True:
            await asyncio.sleep(self._registry.monitor.look)
            await insist(self.sweeps.quick, _WAITS)

    async def _settling_s(self) -> float:
        """Seconds until a fleet that has just come up must be complete."""
        now = self._bus.author.now()
        ages = [(now - b.started_at).total_seconds() for b in await self._bus.liveness.all() if b.daemon == "launcher"]
        return max(0.0, SETTLE_S - min(ages, default=SETTLE_S))

    # ---- on demand

    async def demand(self, who: str) -> Done:
        """A sweep that begins after now; those who ask while one waits to begin share it."""
        if self._asked is None:
            begun = self.sweeps.sweep(Trigger.DEMAND, who, begins=self._forget_asked)
            self._asked = asyncio.create_task(begun, name="sweep")
        return await asyncio.shield(self._asked)

    def _forget_asked(self) -> None:
        self._asked = None

    async def _sweep_asked(self, request: Request) -> bytes:
        done = await self.demand((request.headers or {}).get(ACTOR, "") or "anonymous")
        return msgspec.json.encode(await self.status(done))

    async def _status_asked(self, _request: Request) -> bytes:
        return msgspec.json.encode(await self.status())

    async def status(self, last: Done | None = None) -> Status:
        """What is open, and when was and will be looked."""
        await self.ledger.catch_up()
        listed = sorted(self.ledger.known.values(), key=memory.order)
        last = last or self.sweeps.last or await last_sweep(self._bus)
        return Status(last=last, next_at=await self.next_at(), findings=tuple(shown(k, self.ledger) for k in listed))


def shown(known: Known, ledger: Ledger) -> Open:
    """An open finding as people see it."""
    found, silence = known.finding, known.silence
    proposed = ledger.proposed.get(found.fingerprint)
    return Open(
        fingerprint=found.fingerprint,
        kind=found.kind.value,
        severity=found.severity.value,
        title=found.title,
        subject=found.subject,
        since=found.since,
        detail=found.detail,
        evidence=tuple(f"{e.stream}:{e.seq}" for e in found.evidence),
        command=found.command,
        cause=found.cause,
        by=found.by,
        silenced_by=silence.owner if silence is not None else "",
        silenced_until=silence.until if silence is not None else None,
        proposals=tuple(
            f"{p.action} {p.target} ({'allowed' if p.allowed else 'waits for a person'}): {p.why}"
            for p in (proposed.proposals if proposed is not None else ())
        ),
    )


def _matters(subject: str) -> bool:
    """Drills make faults on purpose: their own switch and their own project alarm nobody."""
    _, noun, name, *_ = subject.split(".")
    if subject.startswith("ctl.freeze."):
        return name.startswith(REAL.letter)
    return not (subject.startswith("inv.") and noun == SANDBOX)
