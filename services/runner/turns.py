"""After a thaw with a ramp: claims take turns, so many a second."""

from __future__ import annotations

import asyncio

from bus.gate import Gate


class Turns:
    """Gives each claim its turn while a ramp stands; otherwise at once."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._next = 0.0

    async def turn(self) -> None:
        """Wait for a turn."""
        rate = self._gate.ramp
        if rate is None or rate <= 0:
            return
        loop = asyncio.get_running_loop()
        mine = self._next = max(self._next + 1 / rate, loop.time())
        while self._gate.ramp is not None and (left := mine - loop.time()) > 0:
            await self._gate.changed(left)
