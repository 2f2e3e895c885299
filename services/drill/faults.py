"""What the drills' own roles do: the faults. Run only by runners that a drill has started."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

from services.runner.handler import Context

#: What a drill's role declares: it uses nothing, which caps of the whole system have to be told.
FREE: dict[str, Any] = {"max_tokens": 0, "max_usd": 0}
#: Seconds between two turns of the ping-pong: what a quick handler takes.
_TURN_S = 0.02
#: Seconds that work is held: longer than any drill.
_HOLD_S = 600.0


async def hold(_input: object) -> None:
    """Hold the claim until the process is killed."""
    await asyncio.sleep(_HOLD_S)


async def die(_input: object) -> None:
    """Take the whole runner along."""
    os.kill(os.getpid(), signal.SIGKILL)


async def answer(input: dict[str, Any], ctx: Context) -> int:
    """Ask the other role, which asks this one: ends by itself after `left` turns, should nobody stop it."""
    left = int(input["left"])
    if left > 0:
        await asyncio.sleep(_TURN_S)
        await ctx.request(input["other"], {"me": input["other"], "other": input["me"], "left": left - 1})
    return left
