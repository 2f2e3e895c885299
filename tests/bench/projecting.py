"""Reading and projecting a stream as a process of its own, as the daemon is one: without the publisher's heap and interpreter.

``python -m tests.bench.projecting read|apply URL COUNT FOLDER`` prints what it found as JSON.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import time
from pathlib import Path
from typing import Literal

import msgspec
import uvloop

from bus import leashed
from bus.author import Author
from bus.context import Context
from bus.follower import Follower
from bus.store import INVOCATIONS
from projections.primary import Files
from projections.projector import CAPACITY, PULL_BYTES, Options, Projector
from services import logs
from services.app.parts import calm_collector, share_interpreter
from services.daemon import Bus, open_bus

#: Seconds that it may take at most.
_LIMIT_S = 300.0

Work = Literal["read", "apply"]


class Found(msgspec.Struct, frozen=True):
    """How it went."""

    #: Seconds until so many events were read or applied.
    took_s: float
    #: Seconds until the tables held all that the stream held.
    caught_up_s: float = 0.0
    #: Megabytes of the process at most.
    memory_mb: float = 0.0


async def begin(work: Work, url: str, count: int, folder: Path) -> Found:
    """Have it done by a process of its own.

    Raises:
        RuntimeError: it did not end well.
    """
    command = [sys.executable, "-m", "tests.bench.projecting", work, url, str(count), str(folder)]
    words = folder / f"{work}.log"
    with words.open("wb") as said:
        process = await leashed.start(command, stdout=leashed.PIPE, stderr=said, grace=0)
    assert process.stdout is not None
    async with process, asyncio.timeout(_LIMIT_S):
        answer = await process.stdout.read()
        status = await process.wait()
    if status != 0 or not answer:
        raise RuntimeError(f"expected to {work} {count:,} events, got status {status}: {words.read_text()[-2000:]}")
    return msgspec.json.decode(answer, type=Found)


async def _read(bus: Bus, count: int) -> Found:
    """The projector's own reader, when nothing is done with what it reads."""
    follower = Follower(
        bus.connection, INVOCATIONS, [], capacity=CAPACITY, max_bytes=max(PULL_BYTES, 2 * bus.connection.nc.max_payload)
    )
    seen, begun = 0, time.perf_counter()
    async for batch in follower.batches(CAPACITY // 4):
        seen += len(batch)
        if seen >= count:
            break
    return Found(time.perf_counter() - begun)


async def _apply(bus: Bus, count: int, folder: Path) -> Found:
    """From an empty file to all of them in the tables, and on until nothing waits."""
    files = Files(folder / "projections", folder / "fleet.duckdb")
    projector = Projector(bus.connection, bus.store, bus.author, Options(files=files, seat=f"bench_{os.getpid()}"))
    task = asyncio.create_task(projector.run())
    begun = time.perf_counter()
    while projector.applied < count:
        await asyncio.sleep(0.01)
    took = time.perf_counter() - begun
    while not projector.primary.ready or (await projector.status()).behind:
        await asyncio.sleep(0.05)
    caught_up = time.perf_counter() - begun
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return Found(took, caught_up, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


async def _main(work: str, url: str, count: int, folder: Path) -> None:
    calm_collector()
    share_interpreter()
    bus = await open_bus(Context(url=url), f"bench-{os.getpid()}", Author("/bench/projecting"))
    try:
        found = await (_read(bus, count) if work == "read" else _apply(bus, count, folder))
    finally:
        await bus.close()
    sys.stdout.buffer.write(msgspec.json.encode(found))


if __name__ == "__main__":
    logs.configure(level="error")
    uvloop.run(_main(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])))
