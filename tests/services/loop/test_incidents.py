"""Published incidents, scripted as fleets of the same shape, and where the default limits stop them.

Prices per call are the incidents' sums divided by a number of calls that fits their story; each is named beside its case.
What the test holds is not the dollar but that the tree is stopped early: after a few calls, at a small share of the sum.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bus.events.invocation import Usage
from bus.events.loop import LoopReason
from services.fleet.spec import LoopLimits
from services.runner.handler import FollowUp, Result
from tests.services.rig import Rig

#: Requests that may be accepted between the event that passed a limit and the refusal's arrival at a runner.
LATE = 60


async def ping_pong(rig: Rig, tokens: int) -> tuple[str, list[int]]:
    """Two roles that answer one another for ever: the root's id, and a list that grows with each call."""
    calls: list[int] = []

    def act(other: str) -> Any:
        async def answer(input: Any) -> Result:
            calls.append(1)
            more = FollowUp(role=other, input=msgspec.Raw(f'{{"turn":{len(calls)}}}'.encode()))
            return Result(usage=Usage(input_tokens=tokens), follow_ups=(more,))

        return answer

    await rig.role("shop/analyst", act("shop/verifier"))
    await rig.role("shop/verifier", act("shop/analyst"))
    await rig.warden()
    await rig.runner()
    return (await rig.ask("shop/analyst", {"turn": 0})).id, calls


@pytest.mark.parametrize(("sum_usd", "calls_made"), [(127, 900), (891, 6_000), (6_240, 42_000), (18_400, 120_000)])
async def test_ping_pong_is_stopped_within_some_turns(rig: Rig, sum_usd: int, calls_made: int) -> None:
    """Two agents that cost $127, $891, $6,240 and $18,400 in four weeks are stopped after a dozen turns, at a few dollars."""
    root, calls = await ping_pong(rig, tokens=1_000)
    tripped = (await rig.control.subject(lambda r: r.subject == f"ctl.loop.{root}.tripped")).data
    assert tripped.reason is LoopReason.PING_PONG
    assert tripped.limit == LoopLimits().ping_pong
    await rig.story.subject(lambda r: r.subject.endswith(".dead_lettered"))
    per_call = sum_usd / calls_made
    assert len(calls) <= LoopLimits().ping_pong + LATE
    assert len(calls) * per_call < 0.1 * sum_usd


async def test_planner_that_asks_for_the_same_again_is_stopped(rig: Rig) -> None:
    """A planner that plans the same step again all night ($4,217) is stopped at the sixth time."""
    calls: list[int] = []

    async def plan(input: Any) -> Result:
        calls.append(1)
        return Result(
            usage=Usage(input_tokens=9_000),
            follow_ups=(FollowUp(role="shop/planner", input=msgspec.Raw(b'{"step":"think again"}')),),
        )

    await rig.role("shop/planner", plan)
    await rig.warden()
    await rig.runner()
    root = (await rig.ask("shop/planner", {"goal": "ship it"})).id
    tripped = (await rig.control.subject(lambda r: r.subject == f"ctl.loop.{root}.tripped")).data
    assert tripped.reason is LoopReason.REPEATED_INPUT
    assert tripped.count == LoopLimits().same_input + 1
    await rig.story.subject(lambda r: r.subject.endswith(".dead_lettered"))
    assert len(calls) <= LoopLimits().same_input + LATE


async def test_weekend_of_calls_is_stopped_by_its_fan_out_or_size(rig: Rig) -> None:
    """A root that has 8,400 calls made over a weekend is stopped at the limit of its tree, before two thirds of them."""

    async def spread(input: Any) -> Result:
        first = input["first"]
        return Result(
            follow_ups=tuple(
                FollowUp(role="shop/leaf", input=msgspec.Raw(f'{{"n":{n}}}'.encode()))
                for n in range(first, first + 800)
            )
            + (
                (FollowUp(role="shop/spread", input=msgspec.Raw(f'{{"first":{first + 800}}}'.encode())),)
                if first < 8_400
                else ()
            )
        )

    async def leaf(input: Any) -> Any:
        return input

    await rig.role("shop/spread", spread)
    await rig.role("shop/leaf", leaf, concurrency=64)
    await rig.warden()
    await rig.runner()
    root = (await rig.ask("shop/spread", {"first": 0})).id
    tripped = (await rig.control.subject(lambda r: r.subject == f"ctl.loop.{root}.tripped")).data
    assert tripped.reason in (LoopReason.DESCENDANTS, LoopReason.FAN_OUT, LoopReason.DEPTH)
    assert tripped.descendants <= 8_400 * 2 / 3


async def test_tree_that_was_cleared_goes_on(rig: Rig) -> None:
    """After a person has cleared the trip, new requests of the tree are taken again and its counts begin anew."""
    root, calls = await ping_pong(rig, tokens=1)
    await rig.control.subject(lambda r: r.subject == f"ctl.loop.{root}.tripped")
    dead = await rig.story.subject(lambda r: r.subject.endswith(".dead_lettered"))
    stopped_at = len(calls)
    assert dead.data is not None
    await rig.bus.trips.clear(f"tree.{root}")
    assert stopped_at <= LoopLimits().ping_pong + LATE
