"""What several daemons are wired with, each for as long as the daemon lives."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Coroutine
from typing import Any

from services.daemon import Bus, Daemon
from services.fleet.registry import Registry
from services.monitor.ring import Ring
from services.receipts import Receipts
from services.requests.requests import Requests

#: Seconds for which a thread of a projector may keep the interpreter while another one waits for it.
_SWITCH_S = 0.0005


def requests_of(bus: Bus, registry: Registry) -> Requests:
    """The door through which every request comes."""
    return Requests(registry, bus.store, bus.author, bus.artifacts, bus.schedules, bus.gate)


def watch_ring(running: Daemon) -> Ring:
    """Let a daemon watch its neighbour in the watch ring until it ends."""
    ring = Ring(running.bus, running.kind, running.instance, running.started_at, running.home)
    running.accompany("ring", ring.run())
    return ring


def answer_freezes(running: Daemon, receipts: Receipts) -> None:
    """Let a daemon give its receipts until it ends."""
    running.accompany("receipts", receipts.run())


def report_config(running: Daemon, registry: Registry) -> None:
    """Let a daemon's heartbeat say which revision of the registry it runs with, at once when that changes."""
    running.config_revision = lambda: registry.seen
    registry.listeners.append(running.hurry)


async def together(*work: Coroutine[Any, Any, None]) -> None:
    """Run all; the first that fails ends the others."""
    async with asyncio.TaskGroup() as group:
        for each in work:
            group.create_task(each)


async def until_stopped(running: Daemon, task: asyncio.Task[None]) -> None:
    """Wait for the stop; a task that fails first ends the daemon with its error."""
    stopped = asyncio.create_task(running.stopped())
    await asyncio.wait([stopped, task], return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if task.done():
        task.result()


def calm_collector() -> None:
    """Let the collector of reference cycles come less often, and never look at what was there from the start.

    By default it looks at every 700 objects that are alive for a moment; a busy daemon has some thousands.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


def share_interpreter() -> None:
    """Let threads take turns more often.

    The thread that runs DuckDB asks for the interpreter between any two statements; by default the event loop may keep it for
    5 ms each time, which is a third of the throughput.
    """
    sys.setswitchinterval(_SWITCH_S)
