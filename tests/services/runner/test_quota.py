"""A runner under caps and its provider's limits."""

from __future__ import annotations

import asyncio
from typing import Any

from bus.events import invocation as ev
from bus.events.invocation import Usage
from bus.refusal import Reason
from services.fleet.spec import Cap, Window
from services.runner.failure import HandlerError
from tests.services.rig import Rig, until


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
