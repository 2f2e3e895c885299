"""Drills by the clock: ``[drills] every = "1d"`` of the fleet file, kept by the launcher.

When the next round is due is read from the record, so a restart of the fleet neither forgets a drill nor repeats one. A
round is ``systems drill`` as a process of its own, with its own login, on a leash: it ends with the launcher at the latest.
What came of it is the drills' own events. In a freeze nothing is drilled; the round is made up for after it.
"""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import datetime, timedelta

import structlog

from bus import errors, leashed
from bus.store import CONTROL
from services.daemon import Bus
from services.fleet.operations import Drills
from services.home import Home
from services.launcher.main import child_environment

log = structlog.get_logger()

#: Seconds that a fleet is up before its first round.
SETTLE_S = 15.0
#: Seconds until a round that could not be made is tried again, and between two looks at what is due.
_AGAIN_S = 30.0
#: Name of a round's log, without its ending.
_NAME = "drills"
#: Guards by their drills, as the record names them.
_GUARDS = ("kill_switch", "quota", "orphan", "poison", "loop")


def due(drilled: dict[str, datetime], every_s: float, now: datetime) -> datetime:
    """When the next round is due: now for a guard that was never drilled, else when the oldest proof is too old. Pure."""
    if any(guard not in drilled for guard in _GUARDS):
        return now
    return min(drilled[guard] for guard in _GUARDS) + timedelta(seconds=every_s)


class Rounds:
    """Drills all guards again and again."""

    def __init__(self, bus: Bus, home: Home, drills: Drills, *, settle_s: float = SETTLE_S) -> None:
        self._bus = bus
        self._home = home
        self._every_s = drills.every
        self._settle_s = settle_s

    async def run(self) -> None:
        """For ever; returns at once where no drills are wanted."""
        if self._every_s is None:
            return
        await asyncio.sleep(self._settle_s)
        while True:
            wait_s = _AGAIN_S
            try:
                now = self._bus.author.now()
                left_s = (due(await self._drilled(), self._every_s, now) - now).total_seconds()
                if left_s <= 0:
                    await self._bus.gate.opened()
                    await self._round()
                else:
                    wait_s = min(wait_s, left_s)
            except (errors.BusError, OSError) as exc:
                log.warning("drills_not_made", error=str(exc), again_s=_AGAIN_S)
            await asyncio.sleep(wait_s)

    async def _drilled(self) -> dict[str, datetime]:
        """When each guard was last drilled, whatever came of it."""
        found: dict[str, datetime] = {}
        for guard in _GUARDS:
            last = await self._bus.store.last(CONTROL, f"ctl.drill.{guard}.*")
            if last is not None:
                found[guard] = last.stored_at
        return found

    async def _round(self) -> None:
        log.info("drills_begun")
        environ = child_environment(os.environ, self._home) | {"SYSTEMS_ACTOR": "schedule"}
        with (self._home.logs / f"{_NAME}.log").open("ab") as said:
            command = (sys.executable, "-m", "services.cli", "drill", "all", "--home", str(self._home.path))
            async with await leashed.start(command, env=environ, stdout=said, stderr=said, grace=10.0) as tree:
                status = await tree.exited()
        (log.info if status == 0 else log.warning)("drills_ended", status=status, log=f"{_NAME}.log")
