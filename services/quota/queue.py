"""Who waits for room on which counter: first come, first served, for each role and counter.

Only the first of a line asks again when something comes back; the others wait behind it, and try together when it is gone.
The order is that of tickets over all lines, so nobody ever waits for somebody who waits behind him.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

#: ``project/role`` and the counter.
Line = tuple[str, str]


class Place:
    """One who waits."""

    def __init__(self, ticket: int) -> None:
        self.ticket = ticket
        #: Set when it is worth trying again.
        self.called = asyncio.Event()
        self.line: Line | None = None

    async def wait(self, seconds: float) -> None:
        """Wait to be called, at most so long."""
        try:
            async with asyncio.timeout(seconds):
                await self.called.wait()
        except TimeoutError:
            return


class Queue:
    """All lines of a process."""

    def __init__(self) -> None:
        self._tickets = 0
        self._places: dict[int, Place] = {}
        #: By ticket.
        self._lines: dict[Line, dict[int, Place]] = {}

    def __bool__(self) -> bool:
        """Whether anybody waits for room."""
        return bool(self._lines)

    def enter(self) -> Place:
        """A place, in no line yet. Leave it in the end."""
        self._tickets += 1
        place = self._places[self._tickets] = Place(self._tickets)
        return place

    def behind(self, place: Place, role: str, keys: Iterable[str]) -> bool:
        """Whether somebody of the role who came earlier waits for room on one of these counters: then wait behind him."""
        if not self._lines:
            return False
        for key in keys:
            line = self._lines.get((role, key))
            if line and min(line) < place.ticket:
                self.join(place, (role, key))
                return True
        return False

    def join(self, place: Place, line: Line) -> None:
        """Wait in a line; those of another line that it was in may try."""
        if place.line == line:
            return
        self._step_out(place)
        self._lines.setdefault(line, {})[place.ticket] = place
        place.line = line

    def leave(self, place: Place) -> None:
        """Wait no longer; those behind may try."""
        self._step_out(place)
        self._places.pop(place.ticket, None)

    def _step_out(self, place: Place) -> None:
        if place.line is None:
            return
        line = self._lines[place.line]
        first = min(line) == place.ticket
        del line[place.ticket]
        if not line:
            del self._lines[place.line]
        elif first:
            for other in line.values():
                other.called.set()
        place.line = None

    def call_first(self) -> None:
        """Something came back: the first of each line may try."""
        for line in self._lines.values():
            line[min(line)].called.set()

    def call_all(self) -> None:
        """What refuses, or what is needed, has changed: everybody looks again."""
        for place in self._places.values():
            place.called.set()
