"""A runner under caps and its provider's limits."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import msgspec
import pytest

from bus import plan
from bus.events import invocation as ev
from bus.events.invocation import Usage
from bus.refusal import Reason
from services.fleet.entries import QUOTA_KEY
from services.fleet.spec import Cap, ExecHandler, Price, Quota, Role, TraceHandler, Unit, Window
from services.runner.failure import HandlerError
from services.runner.handler import Result
from services.warden import journal
from tests.services.rig import Rig, until

CAP = Cap(cap=10_000, window=Window.DAY)
MONEY = Cap(cap=10, unit=Unit.USD, window=Window.DAY)


async def priced(rig: Rig, **models: float) -> None:
    """Name prices in US dollars per million tokens."""
    quota = Quota(prices={model: Price(input=price, output=price) for model, price in models.items()})
    await rig.bucket("registry").put(QUOTA_KEY, msgspec.json.encode(quota))
    await rig.registry.load()


async def test_provider_that_names_its_reset_time_pauses_the_role(rig: Rig) -> None:
    """A 429 with a time puts the work back at nobody's fault, pauses its role until then, and lets it go on by itself."""
    calls = 0

    async def limited(input: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise HandlerError("http_429", "slow down", retry_after=1.5)
        return input

    await rig.role("shop/limited", limited, max_attempts=1)
    await rig.warden()
    await rig.runner()
    accepted = await rig.ask("shop/limited", 1)
    released = (await rig.story.event(accepted.id, "released")).data
    assert released.reason is ev.ReleaseReason.QUOTA
    await until(lambda: "pause.shop.limited" in rig.bus.gate.trips)
    refusal = rig.bus.gate.trips["pause.shop.limited"]
    assert refusal.reason is Reason.PAUSED
    assert refusal.until is not None
    assert "slow down" in refusal.because
    await rig.story.event(accepted.id, "completed")
    assert [r.data.attempt for r in rig.story.of(accepted.id, "claimed")] == [1, 1]
    assert not rig.story.of(accepted.id, "failed")


async def test_handler_that_spends_more_than_it_reserved_is_stopped(rig: Rig) -> None:
    """An attempt whose reported use passes its hold is stopped at that report, and what it used counts."""

    async def greedy(input: Any, ctx: Any) -> Any:
        ctx.meter(Usage(input_tokens=60))
        ctx.meter(Usage(input_tokens=60))
        await asyncio.sleep(3600)
        return input

    await rig.role("shop/greedy", greedy, max_tokens=100, caps=(Cap(cap=1_000, window=Window.DAY),))
    await rig.warden()
    await rig.runner()
    accepted = await rig.ask("shop/greedy", 1)
    failed = (await rig.story.event(accepted.id, "failed")).data
    assert failed.error.kind == "over_reservation"
    assert failed.settled is not None
    assert (failed.settled.hold.tokens, failed.settled.tokens) == (100, 120)


async def test_role_without_a_declared_maximum_waits_under_a_cap(rig: Rig) -> None:
    """What nobody can count is not claimed: it waits, and the record names what is missing."""

    async def vague(input: Any) -> Any:
        return input

    await rig.role("shop/vague", vague, caps=(Cap(cap=1_000, window=Window.DAY),))
    await rig.warden()
    await rig.runner()
    accepted = await rig.ask("shop/vague", 1)
    refused = (await rig.control.subject(lambda r: r.subject == "ctl.quota.shop_vague.refused")).data
    assert "max_tokens" in refused.sentence
    assert not rig.story.of(accepted.id, "claimed")


async def test_exec_agent_is_stopped_at_the_report_that_passes_its_reservation(rig: Rig) -> None:
    """A program that reports as it goes is ended at the first report beyond what it reserved: it overshoots by one interval."""
    source = """
import time
for n in range(1000):
    print('{"usage": {"input_tokens": 40}}', flush=True)
    time.sleep(0.3 if n > 1 else 0)
"""
    handler = ExecHandler(command=(sys.executable, "-I", "-S", "-c", source))
    await rig.put("shop/agent", Role(handler=handler, max_tokens=100, grace=0.2, caps=(CAP,)))
    declared = journal.declared(rig.registry)
    await plan.apply(rig.connection, declared, await plan.plan(rig.connection, declared))
    await rig.warden()
    await rig.runner()
    failed = (await rig.story.event((await rig.ask("shop/agent")).id, "failed")).data
    assert failed.error.kind == "over_reservation"
    assert "expected at most 100 tokens, as reserved, got: 120" in failed.error.message
    assert (failed.settled.hold.tokens, failed.settled.tokens) == (100, 120)


async def test_money_cap_counts_money_and_not_tokens(rig: Rig) -> None:
    """Under a cap in US dollars alone an attempt may use any tokens that cost no more than it reserved, and is stopped above."""

    async def call(input: Any, ctx: Any) -> Any:
        ctx.meter(Usage(input_tokens=input, model="large"))
        await asyncio.sleep(0 if input <= 1_000_000 else 3600)
        return input

    await priced(rig, large=1.0)
    await rig.role("shop/caller", call, max_usd=1.0, caps=(MONEY,), concurrency=2)
    await rig.warden()
    await rig.runner()
    enough = (await rig.story.event((await rig.ask("shop/caller", 1_000_000)).id, "completed")).data
    assert enough.settled.usd_micros == 1_000_000
    failed = (await rig.story.event((await rig.ask("shop/caller", 1_000_001)).id, "failed")).data
    assert failed.error.kind == "over_reservation"
    assert "expected at most 1.000000 USD, as reserved, got: 1.000001" in failed.error.message


@pytest.mark.parametrize("tokens", [-1, 10**13, 10**30, True, "12", 1.5])
@pytest.mark.parametrize("way", ["meter", "result"])
async def test_use_that_cannot_be_counted_costs_all_that_was_reserved(rig: Rig, tokens: Any, way: str) -> None:
    """A report below zero, absurd, or of no number fails the attempt for good, and counts as the whole reservation."""

    async def odd(input: Any, ctx: Any) -> Any:
        if way == "meter":
            ctx.meter(Usage(input_tokens=60))
            ctx.meter(Usage(input_tokens=tokens))
        return Result(usage=Usage(input_tokens=tokens))

    await rig.role("shop/odd", odd, max_tokens=100, caps=(CAP,))
    await rig.warden()
    await rig.runner()
    failed = (await rig.story.event((await rig.ask("shop/odd", 1)).id, "failed")).data
    assert failed.error.kind == "bad_usage"
    assert "expected the usage" in failed.error.message
    assert failed.error.permanent
    assert (failed.settled.tokens, failed.settled.assumed) == (100, True)


async def test_model_without_a_price_is_refused_with_what_is_missing(rig: Rig) -> None:
    """A role whose model has no price waits under a money cap, the record names the price, and naming it lets the work go on."""
    trace = {"input_tokens": 5, "output_tokens": 5}
    await rig.put("shop/coder", Role(handler=TraceHandler(speed=1e6), caps=(MONEY,)))
    declared = journal.declared(rig.registry)
    await plan.apply(rig.connection, declared, await plan.plan(rig.connection, declared))
    await rig.warden()
    await rig.runner()
    accepted = await rig.ask("shop/coder", trace)
    refused = (await rig.control.subject(lambda r: r.subject == "ctl.quota.shop_coder.refused")).data
    assert "its model 'trace' has no price" in refused.sentence
    assert not rig.story.of(accepted.id, "claimed")
    await priced(rig, trace=1.0)
    done = (await rig.story.event(accepted.id, "completed")).data
    assert done.settled.usd_micros == 10
    assert done.settled.prices > 0


async def test_nothing_is_claimed_under_a_cap_that_nobody_counts(rig: Rig) -> None:
    """Without a warden nobody knows what was spent: work under a cap waits, other work goes on, and a warden ends the wait."""

    async def echo(input: Any) -> Any:
        return input

    await rig.role("shop/capped", echo, max_tokens=1, caps=(CAP,))
    await rig.role("shop/free", echo)
    await rig.runner()
    waiting = await rig.ask("shop/capped", 1)
    for _ in range(3):
        await rig.story.event((await rig.ask("shop/free", 1)).id, "completed")
    assert not rig.story.of(waiting.id, "claimed")
    await rig.warden()
    await rig.story.event(waiting.id, "completed")
