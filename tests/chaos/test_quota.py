"""The recorded trace of the example fleet against a cap of 60 % of its tokens, on real processes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bus.events import invocation as ev
from bus.events import quota
from bus.store import CONTROL, INVOCATIONS
from services.replay_file import read_trace
from tests.chaos.fleet import Desk, Fleet

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

TRACE = Path(__file__).parents[2] / "infra" / "example" / "azure-llm-2023-code.csv"
FLEET = """
[projects.shop.roles.coder]
handler = { kind = "trace", speed = 100000 }
concurrency = 64
"""
#: Seconds for the whole trace, on a busy machine.
LIMIT_S = 150.0


async def used(desk: Desk) -> tuple[int, int]:
    """How many were completed, and the tokens in their events."""
    count = tokens = 0
    async for record in desk.bus.store.read(INVOCATIONS, "inv.shop.coder.*.completed"):
        assert isinstance(record.data, ev.Completed)
        count += 1
        tokens += record.data.usage.input_tokens + record.data.usage.output_tokens
    return count, tokens


async def claimed(desk: Desk) -> int:
    """How many were claimed: without a failure, each is claimed once."""
    return len([None async for _ in desk.bus.store.read(INVOCATIONS, "inv.shop.coder.*.claimed")])


async def in_hand(desk: Desk) -> int:
    """What the runners hold right now."""
    return sum(beat.in_flight for beat in await desk.bus.liveness.all() if beat.daemon == "agent_runner")


@pytest.mark.soak
async def test_trace_stops_at_its_cap_to_the_token_and_finishes_after_a_raise(fleet: Fleet) -> None:
    """With a cap of 60 % the completed tokens never pass it; one trip is told, no attempt is spent, and after a raise all is done."""
    rows = list(read_trace(TRACE))
    total = sum(row.input_tokens + row.output_tokens for row in rows)
    cap = total * 60 // 100
    fleet.write(FLEET)
    await fleet.up()
    done = await fleet.systems("quota", "set", "shop/coder", "--cap", str(cap), "--window", "month", "--reason", "60 %")
    assert done.status == 0, done.err
    replayed = await fleet.systems("replay", str(TRACE), "--role", "shop/coder", "--speed", "max", limit_s=LIMIT_S)
    assert replayed.status == 0, replayed.err
    async with fleet.bus() as desk:
        tripped: quota.Tripped | None = None
        async with asyncio.timeout(LIMIT_S):
            while tripped is None:
                found = await desk.bus.store.last(CONTROL, "ctl.quota.shop_coder.tripped")
                tripped = found.data if found is not None else None
                await asyncio.sleep(0.1)
        count, tokens = await used(desk)
        async with asyncio.timeout(LIMIT_S):
            # What ran at the trip finishes on what it held, and what had got its reservation before it is still claimed.
            before = -1
            while count < await claimed(desk) or count != before or await in_hand(desk):
                await asyncio.sleep(1)
                before = count
                count, tokens = await used(desk)
        # Another runner may have been granted something smaller, that still fitted, while the trip was on its way to it.
        assert tripped.used <= tokens <= cap < tokens + tripped.needed
        raised = await fleet.systems("quota", "raise", "shop/coder", "--to", str(total + 1), "--reason", "go on")
        assert raised.status == 0, raised.err
        async with asyncio.timeout(LIMIT_S):
            while (await used(desk))[0] < len(rows):
                await asyncio.sleep(0.5)
        assert await used(desk) == (len(rows), total)
        for event in ("failed", "dead_lettered", "swept"):
            assert await desk.bus.store.last(INVOCATIONS, f"inv.shop.coder.*.{event}") is None
        trips = [record async for record in desk.bus.store.read(CONTROL, "ctl.quota.shop_coder.tripped")]
        assert len(trips) == 1
