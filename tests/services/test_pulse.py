"""The pulse: beats go on beside a loop that blocks, and say for how long, in which task, and on which line."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime

import pytest

from bus.context import Context
from bus.liveness import Heartbeat, Sign
from services.pulse import STUCK_S, Pulse
from tests.chaos.story import LIMIT_S
from tests.services.rig import Rig, until

NOW = datetime.now(UTC)


def beat(handled: int = 0) -> Heartbeat:
    """What a daemon says of itself."""
    return Heartbeat(
        daemon="launcher",
        instance="x",
        boot_id="b1",
        host="h",
        home="h",
        pid=os.getpid(),
        started_at=NOW,
        at=NOW,
        handled=handled,
    )


@asynccontextmanager
async def beating(rig: Rig, **more: object) -> AsyncIterator[Pulse]:
    """A pulse that beats."""
    settings = {"make": beat, "task_name": lambda task: task.get_name(), "failed": lambda: None} | more
    pulse = Pulse(Context(url=rig.url), "x", **settings)  # type: ignore[arg-type]  # the test's own
    await pulse.open()
    try:
        yield pulse
    finally:
        await pulse.close()


@pytest.mark.soak
@pytest.mark.slow
async def test_beats_go_on_while_the_loop_blocks(rig: Rig) -> None:
    """A loop that blocks for some seconds is told of while it does, with task and line; when it turns again, that is over."""
    signs: list[Sign] = []

    async def watch() -> None:
        async with aclosing(rig.bus.liveness.watch()) as watched:
            async for sign in watched:
                signs.append(sign)  # noqa: PERF401 (each as it comes)

    def stuck() -> list[Heartbeat]:
        return [s.heartbeat for s in signs if s.heartbeat and s.heartbeat.stuck_s]

    async with beating(rig):
        task = asyncio.create_task(watch())
        await until(lambda: signs)

        async def block() -> None:
            time.sleep(STUCK_S + 2.5)  # noqa: ASYNC251 (that is the fault)

        await asyncio.create_task(block(), name="the one that blocks")
        await until(lambda: stuck() and (last := signs[-1].heartbeat) and not last.stuck_s)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    told = stuck()[-1]
    assert told.stuck_s > STUCK_S
    assert told.stuck_in.startswith("the one that blocks: test_pulse.py:")
    assert told.stuck_in.endswith(" in block")


async def test_evidence_comes_from_the_working_loop(rig: Rig) -> None:
    """What a daemon says of itself is made on its own loop, and news are told at once."""
    threads: set[int] = set()
    count = 0

    def made() -> Heartbeat:
        threads.add(threading.get_ident())
        return beat(count)

    async with beating(rig, make=made) as pulse:
        count = 7
        pulse.hurry()
        async with asyncio.timeout(LIMIT_S), aclosing(rig.bus.liveness.watch()) as signs:
            async for sign in signs:
                if sign.heartbeat is not None and sign.heartbeat.handled == 7:
                    break
    assert threads == {threading.get_ident()}


async def test_closed_pulse_leaves_nothing(rig: Rig) -> None:
    """After the close no thread is left, and no beat comes."""
    async with beating(rig):
        assert [t.name for t in threading.enumerate()].count("pulse") == 1
    assert "pulse" not in [t.name for t in threading.enumerate()]


async def test_pulse_that_fails_says_so(rig: Rig) -> None:
    """A daemon that cannot say how it is learns that its pulse has ended: it must not go on unwatched."""
    failed = asyncio.Event()
    broken = False

    def made() -> Heartbeat:
        if broken:
            raise ValueError("no evidence")
        return beat()

    async with beating(rig, make=made, failed=failed.set) as pulse:
        broken = True
        pulse.hurry()
        async with asyncio.timeout(LIMIT_S):
            await failed.wait()


async def test_first_beat_that_fails_fails_the_start(rig: Rig) -> None:
    """A start waits for its first beat, and ends with the error of one that cannot be made."""
    made = [beat()]
    with pytest.raises(IndexError):
        async with beating(rig, make=made.pop):
            pass
