"""A replay counts from the log: its own invocations and no others, at the recorded pace."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bus import errors
from bus.events.invocation import Usage
from services.replay import Replay
from services.replay_file import TraceRow
from services.runner.handler import Context
from tests.services.rig import Rig


async def spend(input: Any, ctx: Context) -> None:
    """A handler that uses what it is asked for."""
    ctx.meter(Usage(input_tokens=input["input_tokens"], output_tokens=input["output_tokens"]))


def rows(count: int, step_s: float) -> list[TraceRow]:
    """A trace with so many rows, `step_s` apart."""
    return [TraceRow(offset_s=n * step_s, input_tokens=100 + n, output_tokens=n) for n in range(count)]


async def test_replay_counts_its_own_invocations(rig: Rig) -> None:
    """Requested, completed and token sums are those of the trace, though others ask the same role meanwhile."""
    await rig.role("shop/coder", spend, concurrency=16)
    await rig.runner()
    replay = Replay(rig.bus, rig.requests, "shop/coder", rows(200, 1.0), speed=None)
    async with asyncio.TaskGroup() as group:
        replaying = group.create_task(replay.run())
        for _ in range(50):
            group.create_task(rig.ask("shop/coder", {"input_tokens": 1_000_000, "output_tokens": 1}))
    tally = replaying.result()
    assert (tally.requested, tally.completed, tally.dead_lettered, tally.cancelled) == (200, 200, 0, 0)
    assert tally.input_tokens == tally.asked_input_tokens == sum(r.input_tokens for r in rows(200, 1.0))
    assert tally.output_tokens == tally.asked_output_tokens
    assert tally.done


async def test_replay_keeps_the_recorded_pace(rig: Rig) -> None:
    """At a speed, rows are asked at their recorded times divided by it."""
    await rig.role("shop/coder", spend)
    await rig.runner()
    begun = asyncio.get_running_loop().time()
    tally = await Replay(rig.bus, rig.requests, "shop/coder", rows(11, 1.0), speed=10).run()
    assert asyncio.get_running_loop().time() - begun >= 1.0
    assert tally.completed == 11


async def test_replay_counts_what_does_not_complete(rig: Rig) -> None:
    """Dead letters end a replay as well, and are told apart."""

    async def picky(input: Any) -> None:
        if input["output_tokens"] % 2:
            raise ValueError("odd")

    await rig.role("shop/coder", picky, max_attempts=1)
    await rig.runner()
    tally = await Replay(rig.bus, rig.requests, "shop/coder", rows(10, 0.0), speed=None).run()
    assert (tally.completed, tally.dead_lettered, tally.failed) == (5, 5, 5)


async def test_replay_of_an_unknown_role_is_refused(rig: Rig) -> None:
    """A role that does not exist ends the replay with the closest name, and nothing is asked."""
    await rig.role("shop/coder", spend)
    with pytest.raises((errors.UnknownName, BaseExceptionGroup)) as caught:
        await Replay(rig.bus, rig.requests, "shop/codr", rows(3, 0.0), speed=None).run()
    assert caught.group_contains(errors.UnknownName) or isinstance(caught.value, errors.UnknownName)
    assert rig.story.events == {}
