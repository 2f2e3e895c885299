"""Each guard as the panel shows it: whether it can act, when it last did, and when a drill has last proven it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

import msgspec

from bus.events import drill, freeze, quota
from bus.store import CONTROL, INVOCATIONS, Recorded
from services import freezes
from services.daemon import Bus
from services.warden.work import TripFact


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """The last drill of a guard."""

    at: datetime
    passed: bool
    #: Seconds from the fault to the guard's act.
    took_s: float = 0.0
    #: What was expected and seen instead, of a drill that failed.
    got: str = ""


class GuardLine(msgspec.Struct, frozen=True, kw_only=True):
    """A guard: whether it can act, when it last did, and when that was last proven."""

    name: str
    armed: bool
    last_trip_at: datetime | None = None
    last_trip: str = ""
    #: None: never drilled.
    proof: Proof | None = None


class Guard(NamedTuple):
    """A guard of the warden: its name, its drill's, and where its trips are written."""

    name: str
    drill: str
    stream: str
    filter: str


GUARDS = (
    Guard("kill switch", "kill_switch", CONTROL, "ctl.freeze.*.frozen"),
    Guard("quota breaker", "quota", CONTROL, "ctl.quota.*.tripped"),
    Guard("loop breaker", "loop", CONTROL, "ctl.loop.*.tripped"),
    Guard("stuck-claim sweep", "orphan", INVOCATIONS, "inv.*.*.*.swept"),
    Guard("poison-message breaker", "poison", INVOCATIONS, "inv.*.*.*.dead_lettered"),
)


async def look(bus: Bus, *, armed: bool, trips: Mapping[str, TripFact] | None = None) -> tuple[GuardLine, ...]:
    """The guards of the warden: armed when it answers and has read all of the log.

    `trips` are the last acts on invocations as the warden knows them; without them the server is asked, which goes through
    every subject of the log for it.
    """
    return tuple(await asyncio.gather(*(_guard(bus, guard, trips, armed=armed) for guard in GUARDS)))


async def _guard(bus: Bus, guard: Guard, trips: Mapping[str, TripFact] | None, *, armed: bool) -> GuardLine:
    filter_ = guard.filter
    if guard.filter.startswith("ctl.freeze."):
        # Drills throw a switch of their own.
        filter_ = f"ctl.freeze.{await freezes.newest(bus) or 'none'}.frozen"
    known = trips is not None and guard.stream == INVOCATIONS
    drilled = await bus.store.last(CONTROL, f"ctl.drill.{guard.drill}.*")
    if known and trips is not None:
        trip = trips.get(filter_.rpartition(".")[2])
    else:
        trip = trip_of(await bus.store.last(guard.stream, filter_))
    return line(guard, trip, drilled, armed=armed)


def trip_of(last: Recorded | None) -> TripFact | None:
    """A guard's last act out of its record. Pure."""
    if last is None:
        return None
    return TripFact(at=last.stored_at, text=_trip(last) if last.data is not None else "")


def line(guard: Guard, trip: TripFact | None, drilled: Recorded | None, *, armed: bool) -> GuardLine:
    """A guard out of its last trip and its last drill. Pure."""
    proof: Proof | None = None
    if drilled is not None and drilled.data is not None:
        data = drilled.data
        passed = isinstance(data, drill.Passed)
        proof = Proof(
            at=drilled.stored_at,
            passed=passed,
            took_s=data.took_s if passed else 0.0,
            got="" if passed else f"expected {data.expected}, got: {data.got}",
        )
    return GuardLine(
        name=guard.name,
        armed=armed,
        last_trip_at=trip.at if trip is not None else None,
        last_trip=trip.text if trip is not None else "",
        proof=proof,
    )


def _trip(last: Recorded) -> str:
    """What tripped a guard last, in some words."""
    match last.data:
        case freeze.Frozen(reason=reason):
            return reason or "frozen"
        case quota.Tripped(key=key):
            return key
        case _:
            return f"{last.data.reason} {last.subject.split('.')[3 if last.subject.startswith('inv.') else 2]}"
