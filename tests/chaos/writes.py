"""Waits until a process is at work on its files, wherever in it: the moment to kill it."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.chaos.story import LIMIT_S

#: Seconds without a write after which files have come to rest.
_REST_S = 5.0


async def writes(
    process: subprocess.Popen[bytes], files: Iterable[Path], times: int, load: asyncio.Future[Any], log: str
) -> None:
    """Wait until files have changed so often, or have come to rest behind the load after a first change.

    Args:
        process: whose files they are; it must not end by itself.
        files: they need not exist.
        times: how often.
        load: what gives it something to write.
        log: where it says why it ended.
    """
    files = list(files)

    def state() -> list[tuple[int, int]]:
        return [(f.stat().st_size, f.stat().st_mtime_ns) if f.exists() else (0, 0) for f in files]

    async with asyncio.timeout(LIMIT_S):
        for n in range(times):
            before, since = state(), time.monotonic()
            while state() == before:
                if n and load.done() and time.monotonic() - since > _REST_S:
                    return
                assert process.poll() is None, f"it ended by itself: see {log}"
                await asyncio.sleep(0.001)
