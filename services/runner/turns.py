"""After a thaw with a ramp: claims take turns, so many a second."""

from __future__ import annotations

import asyncio

from bus.gate import Gate

#: Seconds between two looks at whether there is still something to wait for.
_LOOK_S = 0.5


class Turns:
    """Gives each claim its turn while a ramp stands; otherwise at once."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._next = 0.0
        self._ended = False

    def end(self) -> None:
        """Nothing is claimed any more: let go whoever waits, to be put back."""
        self._ended = True

    async def turn(self) -> None:
        """Wait for a turn. A freeze may have come meanwhile."""
        rate = self._gate.ramp
        if rate is None or rate <= 0:
            return
        loop = asyncio.get_running_loop()
        mine = self._next = max(self._next + 1 / rate, loop.time())
        while self._gate.ramp is not None and not self._ended and (left := mine - loop.time()) > 0:
            await self._gate.changed(min(left, _LOOK_S))
