"""A prompt is put into the bucket by hand: how long until an invocation has been worked on under it."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from tests.bench.report import Row
from tests.bench.rig import Rig
from tests.bench.scale import Scale
from tests.services.rig import open_rig

#: Milliseconds that a reload may take at worst.
LIMIT_MS = 1000.0


async def told(_input: Any, ctx: Any) -> Any:
    """The prompt that the handler was given."""
    return ctx.prompt


async def measure(rig: Rig, scale: Scale) -> list[Row]:
    """Put, then ask again and again until the answer is the new prompt."""
    took: list[float] = []
    with TemporaryDirectory() as home:
        async with open_rig(rig.server, Path(home)) as fleet:
            await fleet.warden()
            await fleet.bucket("registry").put("prompts.tone", b"0")
            await fleet.registry.load()
            await fleet.role("bench/reload", told, prompt="tone")
            await fleet.runner()
            for n in range(1, 10 * scale.rounds + 1):
                begun = time.perf_counter()
                await fleet.bucket("registry").put("prompts.tone", str(n).encode())
                said = ""
                while said != str(n):
                    accepted = await fleet.ask("bench/reload", n)
                    event = await fleet.story.event(accepted.id, "completed")
                    said = msgspec.json.decode(event.data.output)
                took.append(1000 * (time.perf_counter() - begun))
    worst = max(took)
    return [
        Row(what="prompt put to first result under it, p50", unit="ms", ours=median(took)),
        Row(
            what=f"the same, the longest of {len(took)}",
            unit="ms",
            ours=worst,
            target=f"< {LIMIT_MS / 1000:g} s",
            met=worst < LIMIT_MS,
        ),
    ]
