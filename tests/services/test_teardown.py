"""The end of a daemon: every step has its turn, and none more than its time."""

from __future__ import annotations

import asyncio

from services.daemon import Teardown


async def test_teardown_runs_every_step_last_in_first_out() -> None:
    """A step that fails is told, and those below it run."""
    done: list[str] = []

    async def step() -> None:
        done.append("bus")

    async def broken() -> None:
        done.append("runner")
        raise ValueError("no")

    teardown = Teardown()
    teardown.push("bus", step)
    teardown.push("runner", broken)
    await asyncio.wait_for(teardown.run(), 5)
    assert done == ["runner", "bus"]
    assert teardown.failed


async def test_teardown_goes_on_without_a_step_that_never_ends() -> None:
    """A step that outlives its limit and swallows its cancellation does not hold up the steps below it."""
    done: list[str] = []
    enough = asyncio.Event()

    async def step() -> None:
        done.append("bus")

    async def stubborn() -> None:
        while not enough.is_set():
            try:
                await enough.wait()
            except asyncio.CancelledError:
                done.append("told")

    teardown = Teardown()
    teardown.push("bus", step)
    teardown.push("stubborn", stubborn, 0.1)
    try:
        await asyncio.wait_for(asyncio.shield(teardown.run()), 10)
    finally:
        enough.set()
    assert done == ["told", "bus"]
    assert teardown.failed
