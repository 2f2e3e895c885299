"""The valve on each role's consumer."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from bus.refusal import Reason, Refusal
from services.warden.valve import differs, wanted
from tests.services.rig import Rig

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def trip(scope: str, until: datetime | None = None) -> Refusal:
    """A standing refusal."""
    return Refusal(reason=Reason.CAPPED, scope=scope, until=until)


def test_role_is_paused_by_what_covers_it_for_as_long_as_that_lasts() -> None:
    """Trips of its own, its project and the system pause a role until the last of them ends; others and trees do not."""
    assert wanted("shop/coder", withheld=False, trips={}, now=NOW) is None
    assert wanted("shop/coder", withheld=False, trips={"a": trip("shop", NOW + HOUR)}, now=NOW) == NOW + HOUR
    both = {"a": trip("shop/coder", NOW + HOUR), "b": trip("system", NOW + 2 * HOUR)}
    assert wanted("shop/coder", withheld=False, trips=both, now=NOW) == NOW + 2 * HOUR
    others = {"a": trip("ledger"), "b": trip("shop/reviewer"), "c": trip("tree x")}
    assert wanted("shop/coder", withheld=False, trips=others, now=NOW) is None
    assert wanted("shop/coder", withheld=False, trips={"a": trip("shop", NOW - HOUR)}, now=NOW) is None


def test_freeze_pauses_without_an_end() -> None:
    """What a freeze withholds is paused for a year, which is set again long before."""
    end = wanted("shop/coder", withheld=True, trips={}, now=NOW)
    assert end is not None
    assert end - NOW > timedelta(days=300)
    assert not differs(end - timedelta(days=30), end, NOW)
    assert differs(NOW + HOUR, end, NOW)


def test_only_a_real_difference_turns_the_valve() -> None:
    """The server cuts fractions: a second more or less is the same pause."""
    assert not differs(None, None, NOW)
    assert differs(None, NOW + HOUR, NOW)
    assert differs(NOW + HOUR, None, NOW)
    assert not differs(NOW + HOUR, NOW + HOUR + timedelta(milliseconds=400), NOW)
    assert differs(NOW + HOUR, NOW + 2 * HOUR, NOW)


async def test_valve_follows_a_pause_and_undoes_what_was_turned_by_hand(rig: Rig) -> None:
    """A paused role's consumer is paused on the server, again after somebody resumed it by hand, and open after the resume."""

    async def echo(input: Any) -> Any:
        return input

    async def paused(wanted: bool) -> None:
        async with asyncio.timeout(30):
            while bool((await rig.connection.api("CONSUMER.INFO.INVOCATIONS.shop_coder")).get("paused")) is not wanted:
                await asyncio.sleep(0.02)

    await rig.role("shop/coder", echo)
    await rig.warden()
    await rig.bus.trips.put("pause.shop.coder", trip("shop/coder"))
    await paused(True)
    await rig.connection.api("CONSUMER.PAUSE.INVOCATIONS.shop_coder", {})
    await paused(True)
    await rig.bus.trips.clear("pause.shop.coder")
    await paused(False)
    await rig.runner()
    await rig.story.event((await rig.ask("shop/coder", 1)).id, "completed")


async def test_resume_hands_out_to_whoever_waits_and_to_nobody_else(rig: Rig) -> None:
    """A pull that was open before the resume gets what waits, long before it would end; without one nothing is handed out."""

    async def echo(input: Any) -> Any:
        return input

    async def info() -> dict[str, Any]:
        return await rig.connection.api("CONSUMER.INFO.INVOCATIONS.shop_coder")

    async def paused(wanted: bool) -> None:
        async with asyncio.timeout(30):
            while bool((await info()).get("paused")) is not wanted:
                await asyncio.sleep(0.02)

    await rig.role("shop/coder", echo)
    await rig.warden()
    nc, got = rig.connection.nc, asyncio.Queue[bytes]()
    for waits in (False, True):
        await rig.bus.trips.put("pause.shop.coder", trip("shop/coder"))
        await paused(True)
        await rig.ask("shop/coder", 1)
        if waits:
            inbox = nc.new_inbox()
            await nc.sink(inbox, lambda _subject, reply, payload, _block: got.put_nowait(payload if reply else b""))
            nc.send(
                "$JS.API.CONSUMER.MSG.NEXT.INVOCATIONS.shop_coder", b'{"batch":9,"expires":90000000000}', reply=inbox
            )
        await rig.bus.trips.clear("pause.shop.coder")
        await paused(False)
        if not waits:
            assert ((await info())["num_pending"], (await info())["delivered"]["consumer_seq"]) == (1, 0)
    async with asyncio.timeout(30):
        assert [b"requested" in await got.get() for _ in range(2)] == [True, True]
