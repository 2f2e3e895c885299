"""From a request to its handler when nothing else is to be done; the claim is in the log before the handler begins."""

from __future__ import annotations

import asyncio
import time

import msgspec

from tests.bench import ours
from tests.bench.leg import Found
from tests.bench.report import Row
from tests.bench.rig import Rig, Side
from tests.bench.scale import Scale

#: Milliseconds at the median, and that one of a hundred may exceed.
P50, P99 = 1.5, 5.0
#: Requests before the measured ones: the first ones find imports undone and caches cold.
_WARM_UP = 50


async def measure(rig: Rig, scale: Scale) -> list[Row]:
    """Stamped requests at a steady pace, to a runner and then to the floor (whose mark is its acknowledged claim)."""
    ours_ms = await _ask(rig, "ours", scale, scale.samples)
    floor_ms = await _ask(rig, "floor", scale, max(100, scale.samples // 2))
    rows: list[Row] = []
    for name, share, limit in (("p50", 0.50, P50), ("p99", 0.99, P99)):
        mine, least = _quantile(ours_ms, share), _quantile(floor_ms, share)
        rows.append(
            Row(
                what=f"request to handler, idle, {name}",
                unit="ms",
                ours=mine,
                floor=least,
                ratios=(mine / least,),
                target=f"< {limit:g} ms",
                met=mine < limit,
                note=f"{len(ours_ms):,} samples at {scale.samples_per_s:g}/s",
            )
        )
    return rows


async def _ask(rig: Rig, side: Side, scale: Scale, samples: int) -> list[float]:
    count = samples + _WARM_UP
    pause = 1 / scale.samples_per_s

    async def ask(name: str) -> None:
        requests = rig.front_door(name)
        due = time.monotonic()
        for _ in range(count):
            due += pause
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            body = msgspec.Raw(msgspec.json.encode({"at": time.monotonic_ns()}))
            await requests.submit(ours.ask(name, body))

    await rig.clear()
    found: Found = await rig.leg(side, count=count, concurrency=32, feed=False, handler="stamp", meanwhile=ask)
    return [ns / 1e6 for ns in found.latency_ns[_WARM_UP:]]


def _quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]
