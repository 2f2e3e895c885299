"""Many runners under one cap: what the log says at each of its sequences, and not only in the end."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from bus.events.invocation import Usage
from bus.spend import Calendar
from bus.store import INVOCATIONS
from services.fleet.spec import Cap, Window
from services.quota.spend import Spend
from services.runner.handler import Result
from tests.services.rig import Rig, until

CAP = 1_000_000
RUNNERS = 64
#: The most that an attempt may use.
MOST = 6_000
#: Altogether they use about twice the cap.
ASKED = 700
KEY = "shop_coder.tokens."


@pytest.mark.soak
@pytest.mark.slow
async def test_64_runners_never_pass_a_cap_at_any_sequence(rig: Rig) -> None:
    """Of 64 runners that claim at once, settled plus held is at most the cap after every event of the log, and it gets used."""
    chance = random.Random(4)

    full = asyncio.Event()

    async def spender(input: Any) -> Result:
        await full.wait()
        return Result(usage=Usage(input_tokens=input))

    caps = (Cap(cap=CAP, window=Window.MONTH),)
    await rig.role("shop/coder", spender, concurrency=4, max_in_flight=4 * RUNNERS, max_tokens=MOST, caps=caps)
    await rig.warden()
    await asyncio.gather(*(rig.runner(f"agent_runner-{n}") for n in range(1, RUNNERS + 1)))
    await asyncio.gather(*(rig.ask("shop/coder", chance.randint(0, MOST)) for _ in range(ASKED)))
    # The first ones end when no more can be held beside them.
    try:
        await until(lambda: sum("claimed" in names for names in rig.story.events.values()) == CAP // MOST)
    finally:
        full.set()
    tripped = (await rig.control.subject(lambda r: r.subject == "ctl.quota.shop_coder.tripped", limit_s=60)).data
    assert tripped.used <= CAP < tripped.used + tripped.needed

    spend = Spend(Calendar().ids, forget=False)
    most = most_held = events = 0
    holders: set[str] = set()
    async for record in rig.bus.store.read(INVOCATIONS, "inv.>"):
        spend.take(record)
        events += 1
        holders |= {getattr(record.data, "holder", "")} - {""}
        for key, total in spend.totals.items():
            if key.startswith(KEY):
                assert total.total <= CAP, f"at sequence {record.seq}"
                most, most_held = max(most, total.total), max(most_held, total.held)
    assert events > ASKED
    assert len(holders) > RUNNERS / 2
    assert (most > CAP - MOST, most_held) == (True, CAP // MOST * MOST)
