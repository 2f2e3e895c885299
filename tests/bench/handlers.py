"""What the measured runner runs: nothing, or a stamp of when it was entered."""

from __future__ import annotations

import time

#: Nanoseconds from the stamp in each input to the entry of the handler; one machine's processes share this clock.
entered_ns: list[int] = []


async def noop(_input: object) -> None:
    """Be done."""


async def stamp(input: dict[str, int]) -> None:
    """Note how long ago the request was made."""
    entered_ns.append(time.monotonic_ns() - input["at"])
