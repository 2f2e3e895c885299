"""Counters on a real server: additions add up, and a repeated one counts once."""

from __future__ import annotations

import asyncio

import pytest

from bus.connection import Connection
from bus.counters import Counters
from bus.publisher import Publisher
from bus.topology import Topology


@pytest.fixture
def counters(connection: Connection, publisher: Publisher, topology: Topology) -> Counters:
    """The counters."""
    return Counters(connection, publisher)


async def test_counters_add_up(counters: Counters) -> None:
    """Each addition answers with the new total, up and down, and an untouched counter is zero."""
    assert await counters.total("shop.day") == 0
    assert await counters.add("shop.day", 500) == 500
    assert await counters.add("shop.day", -120) == 380
    assert await counters.add("shop.day", 0) == 380
    assert await counters.add("shop.hour", 1) == 1
    assert await counters.total("shop.day") == 380


async def test_counters_of_many_writers_lose_nothing(counters: Counters) -> None:
    """A hundred additions at once all count, and each answer is another total."""
    totals = await asyncio.gather(*[counters.add("shop.day", 7) for _ in range(100)])
    assert sorted(totals) == [7 * n for n in range(1, 101)]
    assert await counters.total("shop.day") == 700


async def test_counters_count_a_message_id_once(counters: Counters) -> None:
    """A repeated addition changes nothing, and is answered with the present total."""
    assert await counters.add("shop.day", 10, message_id="hold-1/settle") == 10
    assert await counters.add("shop.day", 10, message_id="hold-1/settle") == 10
    assert await counters.add("shop.day", 10, message_id="hold-2/settle") == 20
    assert await counters.add("shop.day", 10, message_id="hold-1/settle") == 20


async def test_counters_are_seeded_to_a_total(counters: Counters) -> None:
    """A missing counter and one that lacks something are brought to the same total."""
    assert await counters.seed("shop.day", 10**15) == 10**15
    await counters.add("shop.day", -7)
    assert await counters.seed("shop.day", 10**15) == 10**15


async def test_counters_hold_more_than_64_bits(counters: Counters) -> None:
    """A total is a whole number of any size."""
    assert await counters.add("shop.day", 2**62) == 2**62
    assert await counters.add("shop.day", 2**62) == 2**63
    assert await counters.add("shop.day", 2**62) == 3 * 2**62
    assert await counters.total("shop.day") == 3 * 2**62
