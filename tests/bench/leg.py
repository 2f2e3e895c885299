"""One leg of a comparison: a process of its own that says ``ready``, measures itself, and prints what it found as JSON.

Ours and the floor are started in the same way, run the same event loop, and are watched by the same meter.
"""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import uvloop

#: Publishes under way at once.
IN_FLIGHT = 1024


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What a leg is told to do."""

    url: str
    #: Directory for whatever the leg keeps.
    home: str
    #: Name of the role that is asked, in project ``bench``.
    role: str
    count: int
    concurrency: int = IN_FLIGHT
    #: Function that the runner runs, of :mod:`tests.bench.handlers`.
    handler: str = "noop"
    #: Bytes of each message that is published.
    size: int = 0
    #: The role is under a spend cap that it never reaches.
    capped: bool = False
    #: Numbers of invocations after which the memory is looked at.
    marks: tuple[int, ...] = ()


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What a leg found."""

    count: int
    #: From the start to the last acknowledged result.
    wall_s: float
    #: Processor time of the leg's process meanwhile, user and system.
    cpu_s: float
    #: Resident bytes: before the start, and after each mark.
    rss: tuple[int, ...] = ()
    #: Request to handler, nanoseconds each.
    latency_ns: tuple[int, ...] = ()

    @property
    def rate(self) -> float:
        """Per second of wall time."""
        return self.count / self.wall_s

    @property
    def cpu_us(self) -> float:
        """Microseconds of processor time for each."""
        return self.cpu_s / self.count * 1e6


class Meter:
    """Wall and processor time since its making."""

    def __init__(self) -> None:
        gc.collect()
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self, count: int, *, rss: tuple[int, ...] = (), latency_ns: tuple[int, ...] = ()) -> Found:
        """What it took until now."""
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        return Found(count=count, wall_s=wall, cpu_s=cpu, rss=rss, latency_ns=latency_ns)


def resident() -> int:
    """Bytes of this process in memory."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except FileNotFoundError:  # no Linux
        return int(subprocess.check_output(["ps", "-o", "rss=", "-p", str(os.getpid())])) * 1024


async def bounded(count: int, in_flight: int, publish: Callable[[], Awaitable[object]]) -> None:
    """Call `publish` `count` times, `in_flight` at once."""
    numbers = iter(range(count))

    async def lane() -> None:
        for _ in numbers:
            await publish()

    await asyncio.gather(*[lane() for _ in range(in_flight)])


def say_ready() -> None:
    """Everything is set up: the measurement begins."""
    sys.stdout.buffer.write(b"ready\n")
    sys.stdout.buffer.flush()


def run(legs: dict[str, Callable[[Task], Awaitable[Found]]]) -> None:
    """The whole of a leg's process: ``NAME TASK`` on the command line, the finding on stdout."""
    name, task = sys.argv[1:]

    async def work() -> Found:
        return await legs[name](msgspec.json.decode(task, type=Task))

    found = uvloop.run(work())
    sys.stdout.buffer.write(msgspec.json.encode(found) + b"\n")
