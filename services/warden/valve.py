"""The valve on each role's consumer: the one place that pauses and resumes what the server hands out.

Why a role is paused is somebody else's: the kill switch, a thaw that has not come to it yet, a standing trip that covers it.
The valve compares what is wanted with what the server has and changes what differs, also what somebody changed by hand.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec
import structlog

from bus import errors, wire
from bus.events.guard import Resumed
from bus.refusal import Refusal
from bus.store import INVOCATIONS
from bus.subjects import role_consumer
from services.daemon import Bus
from services.fleet.registry import Registry

log = structlog.get_logger()

#: Seconds between two looks at the clock: a pause may be over.
_LOOK_S = 1.0
#: Looks at the clock between two at what the server has without news: somebody may have turned a valve by hand.
_LOOKS = 5
#: How long a pause without an end is set for; it is set again long before.
_FOR_EVER = timedelta(days=365)
#: Seconds that two ends of a pause may differ and count as the same.
_SLACK_S = 1.0
#: A pull that no message fits into: it takes nothing, and has the server look at the pulls that wait. A resume alone does not
#: (seen with 2.15.1): what waits would be handed out when the next pull comes, up to five seconds later.
_WAKE = msgspec.json.encode({"batch": 1, "max_bytes": 1, "expires": int(1e9)})


def wanted(role: str, *, withheld: bool, trips: dict[str, Refusal], now: datetime) -> datetime | None:
    """Until when a role is to be paused; None for not at all. Pure."""
    far = now + _FOR_EVER
    ends = [far] if withheld else []
    ends += [trip.until or far for trip in trips.values() if trip.covers(role)]
    end = max(ends, default=None)
    return end if end is not None and end > now else None


def differs(present: datetime | None, end: datetime | None, now: datetime) -> bool:
    """Whether the server's pause has to be changed. Pure."""
    if present is None or end is None:
        return present is not end
    if end - now > _FOR_EVER / 2:
        return present - now < _FOR_EVER / 2
    return abs((present - end).total_seconds()) > _SLACK_S


class Valve:
    """Pauses and resumes the consumers of all registered roles."""

    def __init__(self, bus: Bus, registry: Registry, withholds: Callable[[str], bool], known: asyncio.Event) -> None:
        """Make it; `withholds` says of a ``project/role`` whether a freeze or its thaw keeps it closed, once it is `known`."""
        self._known = known
        self._bus = bus
        self._registry = registry
        self._withholds = withholds
        self._turned = asyncio.Lock()

    async def run(self) -> None:
        """For ever: at each change of the switch and the trips, and now and then."""
        await self._known.wait()
        gate, heeded, looks = self._bus.gate, -1, 0
        while True:
            try:
                if gate.changes != heeded or looks >= _LOOKS:
                    heeded, looks = gate.changes, 0
                    await self.turn()
                else:
                    await self._end_pauses()
            except errors.BusError as exc:
                heeded = -1
                log.warning("valve_stuck", error=str(exc), again_s=_LOOK_S)
            looks += 1
            await gate.changed(_LOOK_S)

    async def turn(self) -> None:
        """Bring every role's consumer to what is wanted, once."""
        async with self._turned:
            await asyncio.gather(*(self._turn(project, name) for project, name in list(self._registry.roles)))
            await self._end_pauses()

    async def _end_pauses(self) -> None:
        """Clear pauses whose time is over, and put that on record; caps are the treasurer's."""
        now = datetime.now(UTC)
        for key, trip in list(self._bus.gate.trips.items()):
            if key.startswith("pause.") and not trip.stands(now):
                await self._bus.trips.clear(key)
                self._bus.gate.know(key, None)
                event = Resumed(role=trip.scope, reason="its time is over")
                await self._bus.store.append(self._bus.author.control(trip.scope.replace("/", "_"), event))

    async def _turn(self, project: str, name: str) -> None:
        role, now = f"{project}/{name}", datetime.now(UTC)
        end = wanted(role, withheld=self._withholds(role), trips=self._bus.gate.trips, now=now)
        consumer = role_consumer(project, name)
        try:
            info = await self._bus.connection.api(f"CONSUMER.INFO.{INVOCATIONS}.{consumer}")
        except errors.ServerError as exc:
            if exc.code == wire.Code.CONSUMER_NOT_FOUND:
                return
            raise
        text = info["config"].get("pause_until") if info.get("paused") else None
        if not differs(msgspec.convert(text, datetime) if text else None, end, now):
            return
        body = {"pause_until": end.isoformat().replace("+00:00", "Z")} if end is not None else {}
        await self._bus.connection.api(f"CONSUMER.PAUSE.{INVOCATIONS}.{consumer}", body)
        if end is None:
            nc = self._bus.connection.nc
            nc.send(f"$JS.API.CONSUMER.MSG.NEXT.{INVOCATIONS}.{consumer}", _WAKE, reply=nc.new_inbox())
        log.info("valve_turned", role=role, paused_until=str(end) if end is not None else "", open=end is None)
