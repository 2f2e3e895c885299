"""Incidents while no warden is there: the launcher handles them until one is back, above all that the warden is gone.

Two handlers at once do no harm to the record, whose fences let one of them win. Of the launchers of several machines the one
that has started first calls people, as of several wardens (:mod:`services.incident.pager`), and none from the moment on in
which a warden beats. What a stand-in does not know is whose open work waits for whom.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import structlog

from bus import errors
from services.daemon import Bus
from services.fleet.registry import Registry
from services.incident.drafting import Drafter
from services.incident.handler import Handler
from services.loop.tree import Forest
from services.monitor.ring import is_silent

log = structlog.get_logger()

#: Seconds between two looks, and for how long nobody must beat: a warden that is restarted is not away.
LOOK_S, AWAY_S = 2.0, 8.0
#: Seconds until a stand-in that has failed tries again.
_AGAIN_S = 10.0


class Standby:
    """Stands in for the warden's handler."""

    def __init__(
        self,
        bus: Bus,
        home: Path,
        environ: Mapping[str, str],
        first: Callable[[], Awaitable[bool]],
        *,
        away_s: float = AWAY_S,
    ) -> None:
        """Make it.

        Args:
            bus: where everything happens.
            home: the state directory.
            environ: where addresses of ways may stand.
            first: whether no other launcher goes before this one.
            away_s: seconds for which no warden must beat.
        """
        self._bus = bus
        self._home = home
        self._environ = environ
        self._first = first
        self._away_s = away_s

    async def run(self) -> None:
        """For ever. Whatever goes wrong here must not end the launcher: it is logged, and tried again."""
        while True:
            try:
                await self._until_away()
                log.error("warden_away", action="handling incidents in its place")
                await self._stand_in()
                log.info("warden_back", action="leaving incidents to it")
            except Exception:
                log.exception("stand_in_failed", again_s=_AGAIN_S)
                await asyncio.sleep(_AGAIN_S)

    async def _until_away(self) -> None:
        loop = asyncio.get_running_loop()
        seen = loop.time()
        while loop.time() - seen < self._away_s:
            await asyncio.sleep(LOOK_S)
            if not await self._silent():
                seen = loop.time()

    async def _silent(self) -> bool:
        """Whether no warden beats; while the server does not answer nobody can say so."""
        try:
            return is_silent("warden", await self._bus.liveness.all(), self._bus.author.now())
        except errors.BusError:
            return False

    async def _goes_first(self) -> bool:
        """Whether it is this one's turn to call: no warden is back, and no other stand-in goes before it."""
        return await self._silent() and await self._first()

    async def _stand_in(self) -> None:
        registry = Registry(self._bus.bucket("registry"))
        await registry.open()
        handler = Handler(
            self._bus,
            registry,
            forest=Forest,
            draft=Drafter(self._bus, registry).draft,
            home=self._home,
            environ=self._environ,
            first=self._goes_first,
        )
        try:
            async with asyncio.TaskGroup() as group:
                work = group.create_task(handler.run())
                while await self._silent():
                    await asyncio.sleep(LOOK_S)
                work.cancel()
        finally:
            await registry.close()
