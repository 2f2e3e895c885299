"""Requests per second: the front door of production against raw acknowledged publishes of the same size."""

from __future__ import annotations

from tests.bench.report import Row, compared, rounds
from tests.bench.rig import Rig
from tests.bench.scale import Scale

#: Share of the floor.
RATIO = 0.7


async def measure(rig: Rig, scale: Scale) -> list[Row]:
    """With the same number of publishes under way."""
    size = await rig.request_size()
    pairs = await rounds(
        rig,
        scale.rounds,
        lambda: rig.publishing("ours", count=scale.requests, size=size),
        lambda: rig.publishing("floor", count=scale.requests, size=size),
    )
    return compared("requests accepted", pairs, ratio=RATIO)
