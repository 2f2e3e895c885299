"""What a spend cap costs: the same runner with its role under a cap, against the one without."""

from __future__ import annotations

from functools import partial

from tests.bench.report import Row, compared, rounds
from tests.bench.rig import Rig
from tests.bench.scale import Scale

#: A reservation may add a quarter to the cost of an invocation: the rate that is left.
RATIO = 0.8
CONCURRENCY = 256


async def measure(rig: Rig, scale: Scale) -> list[Row]:
    """Both at the concurrency that fills the machine."""
    leg = partial(rig.leg, "ours", count=scale.invocations, concurrency=CONCURRENCY)
    pairs = await rounds(rig, scale.rounds, partial(leg, capped=True), leg)
    return compared(f"invocations under a cap, {CONCURRENCY} at once, against without", pairs, ratio=RATIO)
