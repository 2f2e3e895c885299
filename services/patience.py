"""What must be done, however long the bus does not take it.

For what waits for nothing else meanwhile: a loop that comes round by itself does better to let the next round try.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import structlog

from bus import errors

log = structlog.get_logger()

T = TypeVar("T")

#: Seconds until something is tried again that the bus did not take.
AGAIN_S = 2.0


async def insist(call: Callable[[], Awaitable[T]], waits: str, *, again_s: float = AGAIN_S, **facts: Any) -> T:
    """Call until the bus has taken it: what came of it.

    Args:
        call: one try; it must stand being made again after one of which nobody knows the outcome.
        waits: what is logged of each try that failed: ``incidents_wait``.
        again_s: seconds between two tries.
        facts: logged with it.
    """
    while True:
        try:
            return await call()
        except errors.BusError as exc:
            log.warning(waits, **facts, error=str(exc), again_s=again_s)
            await asyncio.sleep(again_s)
