"""Resident memory of one runner process over very many invocations."""

from __future__ import annotations

from tests.bench.report import Row
from tests.bench.rig import Rig
from tests.bench.scale import Scale

MB = 1_000_000
#: Megabytes at most, and by how many they may grow between the first mark and the last.
LIMIT, GROWTH = 90, 3


async def measure(rig: Rig, scale: Scale) -> list[Row]:
    """Before the first one, and after each mark."""
    await rig.clear()
    found = await rig.leg("ours", count=scale.marks[-1], concurrency=256, marks=scale.marks)
    start, *after = [size / MB for size in found.rss[: len(scale.marks) + 1]]
    rows = [Row(what="runner memory at its start", unit="MB", ours=start, target=f"< {LIMIT} MB", met=start < LIMIT)]
    rows += [
        Row(what=f"runner memory after {mark:,}", unit="MB", ours=size, target=f"< {LIMIT} MB", met=size < LIMIT)
        for mark, size in zip(scale.marks, after, strict=True)
    ]
    growth = after[-1] - after[0]
    what = f"its growth from {scale.marks[0]:,} to {scale.marks[-1]:,}"
    rows.append(Row(what=what, unit="MB", ours=growth, target=f"< {GROWTH} MB", met=growth < GROWTH))
    return rows
