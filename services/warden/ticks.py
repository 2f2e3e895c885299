"""Ticks of the server's schedules become requests: neither lost nor doubled by a crash in between.

A tick is handled through a durable consumer. What it asks for has an id derived from the schedule and the due time, so
handling it twice asks once. Due times between the last one handled and this one (the server was away) are decided as well:
each is asked, or written down as missed with its reason.
"""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import structlog

from bus import errors, invocation, subjects, wire
from bus.bucket import Bucket, Entry
from bus.events.schedule import Missed, MissReason
from bus.ids import key_id
from bus.invocation import FallDue, Refused
from bus.store import CONTROL, INVOCATIONS
from bus.subjects import Ref
from services.daemon import Bus
from services.fleet.registry import Registry
from services.fleet.spec import Schedule
from services.requests.requests import Ask, Requests
from services.warden import dues

log = structlog.get_logger()

_CRON = "cron"


class Handled(msgspec.Struct, frozen=True, kw_only=True):
    """What the bucket ``schedules`` remembers of a schedule."""

    due: datetime
    #: The invocation that was asked for last.
    invocation: str = ""


class Ticks:
    """Turns ticks into requests, and keeps the server's schedules in step with the registry."""

    def __init__(self, bus: Bus, registry: Registry, requests: Requests) -> None:
        self._bus = bus
        self._registry = registry
        self._requests = requests
        self._memory: Bucket = bus.bucket("schedules")

    async def sync(self) -> None:
        """Set what is registered and not set, remove what is set and no longer registered."""
        wanted: dict[str, Schedule] = {}
        for registered in self._registry.roles.values():
            for name, schedule in registered.role.schedules.items():
                wanted[f"{_CRON}.{registered.project}.{registered.name}.{name}"] = schedule
        present = await self._bus.schedules.names(_CRON)
        for name in present.keys() - wanted.keys():
            await self._bus.schedules.remove(name)
            log.info("schedule_removed", name=name)
        for name, schedule in wanted.items():
            cron, zone = dues.server_pattern(schedule)
            if await self._bus.schedules.pattern(name) == (cron, zone):
                continue
            try:
                await self._bus.schedules.repeat(name, cron, b"{}", time_zone=zone)
            except errors.ServerError as exc:
                # This one it does not understand; the others must be set all the same.
                log.error("schedule_refused", name=name, cron=schedule.cron, error=str(exc))
            else:
                log.info("schedule_set", name=name, cron=schedule.cron)

    async def tick(self, delivery: wire.Delivery) -> None:
        """Handle one tick."""
        _, kind, *rest = delivery.subject.split(".")
        if not all(map(subjects.is_token, rest)):
            # Anybody may publish here: what can be no name must not come again for ever.
            kind = ""
        match kind, rest:
            case "delayed", [project, role, id_]:
                await self._fall_due(Ref(project, role, id_))
            case "cron", [project, role, name]:
                stored_at = datetime.fromtimestamp(delivery.stored_ns / 1e9, UTC)
                await self._cron(project, role, name, stored_at)
            case "monitor", _:
                pass  # the monitor's own consumer has it
            case _:
                log.warning("rubbish_stepped_over", subject=delivery.subject, seq=delivery.seq)

    async def _fall_due(self, ref: Ref) -> None:
        try:
            await self._bus.invocations.carry_out(ref, FallDue(), self._registry.limits(ref.project, ref.role))
        except Refused as refused:
            log.info("delayed_request_dropped", invocation=ref.id, reason=refused.reason.value)

    async def _cron(self, project: str, role: str, name: str, stored_at: datetime) -> None:
        registered = self._registry.roles.get((project, role))
        schedule = registered.role.schedules.get(name) if registered is not None else None
        if schedule is None:
            await self._missed(project, role, name, stored_at, MissReason.UNREGISTERED)
            await self._bus.schedules.remove(f"{_CRON}.{project}.{role}.{name}")
            return
        key = f"{project}.{role}.{name}"
        entry = await self._memory.get(key)
        # Not only this tick's due time: those whose ticks never came are decided with it.
        now = max(self._bus.author.now(), stored_at)
        last = await self._recall(project, role, name, schedule, _remembered(entry), now)
        running = await self._running(project, role, last)
        while outcomes := dues.decide_dues(schedule, last.due if last else None, now, running):
            for outcome in outcomes:
                if isinstance(outcome, dues.Miss):
                    await self._missed(project, role, name, outcome.due, outcome.reason, outcome.running)
                    last = Handled(due=outcome.due, invocation=last.invocation if last else "")
                    continue
                if outcome.cancel:
                    await self._cancel(Ref(project, role, outcome.cancel), name)
                last = Handled(due=outcome.due, invocation=await self._ask(project, role, name, schedule, outcome.due))
        if last is not None:
            await self._memory.put(key, msgspec.json.encode(last))

    async def _recall(
        self, project: str, role: str, name: str, schedule: Schedule, last: Handled | None, now: datetime
    ) -> Handled | None:
        """The newest due time with an outcome by what the log says: a crash may have come between outcome and memory.

        Outcomes are written oldest first and a request is the newest of its round, so of unremembered ones the last miss
        and the due time after it are all that has to be looked at.
        """
        missed = await self._bus.store.last(CONTROL, f"ctl.schedule.{project}_{role}_{name}.missed")
        fact = missed.data if missed is not None else None
        if not isinstance(fact, Missed) or fact.reason is MissReason.UNREGISTERED:
            fact = None
        if last is not None and fact is not None and fact.due > last.due:
            last = Handled(due=fact.due, invocation=last.invocation)
        for due in dues.due_times(schedule, last.due, now, 1) if last is not None else []:
            ref = self._requests.ref(_request(project, role, name, schedule, due))
            if await self._bus.store.last(INVOCATIONS, ref.all) is not None:
                last = Handled(due=due, invocation=ref.id)
        return last

    async def _ask(self, project: str, role: str, name: str, schedule: Schedule, due: datetime) -> str:
        return (await self._requests.submit(_request(project, role, name, schedule, due))).id

    async def _running(self, project: str, role: str, last: Handled | None) -> str:
        """The invocation of the last due time, if it has not ended."""
        if last is None or not last.invocation:
            return ""
        state = await self._bus.store.state(Ref(project, role, last.invocation))
        return "" if state is None or state.status.ended else last.invocation

    async def _cancel(self, ref: Ref, name: str) -> None:
        command = invocation.Cancel(reason=f"schedule {name}: its next due time came (overlap = cancel_previous)")
        try:
            await self._bus.invocations.carry_out(ref, command, self._registry.limits(ref.project, ref.role))
        except Refused as refused:
            log.info("previous_not_cancelled", invocation=ref.id, reason=refused.reason.value)

    async def _missed(
        self, project: str, role: str, name: str, due: datetime, reason: MissReason, running: str = ""
    ) -> None:
        log.warning("schedule_missed", role=f"{project}/{role}", schedule=name, due=due.isoformat(), reason=str(reason))
        event = Missed(schedule=name, project=project, role=role, due=due, reason=reason, running=running)
        thing = f"{project}_{role}_{name}"
        event_id = key_id("schedule.missed", f"{thing}@{due.isoformat()}")
        await self._bus.store.append(self._bus.author.control(thing, event, event_id=event_id))


def _request(project: str, role: str, name: str, schedule: Schedule, due: datetime) -> Ask:
    return Ask(
        role=f"{project}/{role}",
        input=msgspec.Raw(msgspec.json.encode(schedule.input)),
        schedule=name,
        due=due,
        actor=f"schedule {name}",
    )


def _remembered(entry: Entry | None) -> Handled | None:
    if entry is None:
        return None
    try:
        return msgspec.json.decode(entry.value, type=Handled)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        # Somebody put rubbish there. A schedule that forgot its past goes on from now.
        log.warning("schedule_memory_unreadable", key=entry.key, error=str(exc))
        return None
