"""Published incidents, scripted as fleets of the same shape, and where the default limits stop them.

Prices per call are the incidents' sums divided by a number of calls that fits their story; each is named beside its case and
stands in the registry, so the dollars are those that the trip and the log name. Time is compressed: a call takes no time.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import structlog

from bus.events.invocation import Usage
from bus.events.loop import Cleared, LoopReason, Tripped
from bus.invocation import Limits, Redrive
from bus.subjects import Ref
from services.fleet.entries import LOOP_KEY, QUOTA_KEY
from services.fleet.spec import LoopLimits, Price, Quota
from services.quota import prices
from services.runner.handler import FollowUp, Result
from tests.services.rig import Rig, until

log = structlog.get_logger()

#: Requests that may be accepted between the event that passed a limit and the refusal's arrival at a runner.
LATE = 60
#: Tokens of each call.
TOKENS = 1_000
MODEL = "incident"


async def priced(rig: Rig, per_call: float) -> None:
    """Let each call cost so many US dollars."""
    price = Price(input=per_call / TOKENS * 1_000_000, output=0)
    await rig.bucket("registry").put(QUOTA_KEY, msgspec.json.encode(Quota(prices={MODEL: price})))
    await rig.registry.load()


async def stopped(rig: Rig, root: str, per_call: float) -> tuple[Tripped, float]:
    """The trip, and the dollars in the log once nothing of the tree is open any more."""
    tripped = (await rig.control.subject(lambda r: r.subject == f"ctl.loop.{root}.tripped")).data
    await until(
        lambda: all(names[-1] in {"completed", "dead_lettered", "failed"} for names in rig.story.events.values())
    )
    done = [r for r in rig.story.records if r.subject.endswith(".completed")]
    quota = rig.registry.quota
    dollars = sum(prices.cost(r.data.usage, quota.prices) or 0 for r in done) / 1e6
    assert dollars == pytest.approx(len(done) * per_call, rel=0.01)
    assert 0 < tripped.usd_micros / 1e6 <= dollars
    return tripped, dollars


async def ping_pong(rig: Rig) -> tuple[str, list[int]]:
    """Two roles that answer one another for ever: the root's id, and a list that grows with each call."""
    calls: list[int] = []

    def act(other: str) -> Any:
        async def answer(input: Any) -> Result:
            calls.append(1)
            more = FollowUp(role=other, input=msgspec.Raw(f'{{"turn":{len(calls)}}}'.encode()))
            return Result(usage=Usage(input_tokens=TOKENS, model=MODEL), follow_ups=(more,))

        return answer

    await rig.role("shop/analyst", act("shop/verifier"))
    await rig.role("shop/verifier", act("shop/analyst"))
    await rig.warden()
    await rig.runner()
    return (await rig.ask("shop/analyst", {"turn": 0})).id, calls


@pytest.mark.parametrize(("sum_usd", "calls_made"), [(127, 900), (891, 6_000), (6_240, 42_000), (18_400, 120_000)])
async def test_ping_pong_is_stopped_within_some_turns(rig: Rig, sum_usd: int, calls_made: int) -> None:
    """Two agents that cost $127, $891, $6,240 and $18,400 in four weeks are stopped after a dozen turns, at a few dollars."""
    per_call = sum_usd / calls_made
    await priced(rig, per_call)
    root, calls = await ping_pong(rig)
    tripped, dollars = await stopped(rig, root, per_call)
    log.info("incident_stopped", usd=round(dollars, 2), of_usd=sum_usd, calls=len(calls))
    assert (tripped.reason, tripped.limit) == (LoopReason.PING_PONG, LoopLimits().ping_pong)
    assert len(calls) <= LoopLimits().ping_pong + LATE
    assert dollars < 0.1 * sum_usd


async def test_planner_that_asks_for_the_same_again_is_stopped(rig: Rig) -> None:
    """A planner that plans the same step again all night ($4,217) is stopped at the sixth time."""
    calls: list[int] = []

    async def plan(input: Any) -> Result:
        calls.append(1)
        return Result(
            usage=Usage(input_tokens=TOKENS, model=MODEL),
            follow_ups=(FollowUp(role="shop/planner", input=msgspec.Raw(b'{"step":"think again"}')),),
        )

    per_call = 4_217 / 3_000  # one call in some ten seconds of a night
    await priced(rig, per_call)
    await rig.role("shop/planner", plan)
    await rig.warden()
    await rig.runner()
    root = (await rig.ask("shop/planner", {"goal": "ship it"})).id
    tripped, dollars = await stopped(rig, root, per_call)
    log.info("incident_stopped", usd=round(dollars, 2), of_usd=4_217, calls=len(calls))
    assert tripped.reason is LoopReason.REPEATED_INPUT
    assert tripped.count == LoopLimits().same_input + 1
    assert len(calls) <= LoopLimits().same_input + LATE
    assert dollars < 0.1 * 4_217


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
    """After a person has cleared the trip, requests of the tree are taken again, and it trips anew only after a whole limit."""
    await priced(rig, 0.1)
    await rig.bucket("registry").put(LOOP_KEY, msgspec.json.encode(LoopLimits(depth=100)))
    root, calls = await ping_pong(rig)
    first, _ = await stopped(rig, root, 0.1)
    dead = next(id_ for id_, names in rig.story.events.items() if names[-1] == "dead_lettered")
    before = len(calls)
    await rig.bus.store.append(rig.bus.author.control(root, Cleared(reason="meant so"), root=root))
    await rig.bus.trips.clear(f"tree.{root}")
    await until(lambda: f"tree.{root}" not in rig.bus.gate.trips)
    role = rig.story.of(dead, "requested")[0].subject.split(".")[2]
    await rig.bus.invocations.carry_out(Ref("shop", role, dead), Redrive(reason="go on"), Limits())
    second = await rig.control.subject(
        lambda r: r.subject == f"ctl.loop.{root}.tripped" and r.data.invocation != first.invocation
    )
    assert second.data.reason is LoopReason.PING_PONG
    assert len(calls) - before >= LoopLimits().ping_pong
