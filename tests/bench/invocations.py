"""Fenced invocations per second: one runner process with a handler that does nothing, against the floor."""

from __future__ import annotations

from functools import partial

from tests.bench.report import Row, compared, rounds
from tests.bench.rig import SIDES, Rig
from tests.bench.scale import Scale

#: Share of the floor, and invocations per second on two cores.
RATIO, RATE = 0.6, 10_000


async def measure(rig: Rig, scale: Scale) -> list[Row]:
    """At the concurrency that fills the machine, and at an eighth of it."""
    rows: list[Row] = []
    for concurrency in (256, 32):
        ours, floor = (partial(rig.leg, side, count=scale.invocations, concurrency=concurrency) for side in SIDES)
        pairs = await rounds(rig, scale.rounds, ours, floor)
        full = concurrency == 256
        rows += compared(
            f"invocations, {concurrency} at once", pairs, ratio=RATIO if full else None, rate=RATE if full else None
        )
    return rows
