"""Schedules on a real server: ticks come without any client's timer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import pytest

from bus import errors, wire
from bus.connection import Connection
from bus.follower import Follower
from bus.publisher import Publisher
from bus.schedules import Schedules
from bus.topology import SCHEDULES, Topology
from tests.bus.conftest import LIMIT_S


@pytest.fixture
def schedules(connection: Connection, publisher: Publisher, topology: Topology) -> Schedules:
    """The schedules."""
    return Schedules(connection, publisher)


@pytest.fixture
async def ticks(connection: Connection, schedules: Schedules) -> AsyncIterator[AsyncIterator[wire.Delivery]]:
    """Ticks as they come."""

    async def each() -> AsyncGenerator[wire.Delivery, None]:
        """One by one."""
        async with aclosing(Follower(connection, SCHEDULES, ["tick.>"]).batches()) as batches:
            async for batch in batches:
                for delivery in batch:
                    yield delivery

    async with aclosing(each()) as running:
        yield running


async def tick(ticks: AsyncIterator[wire.Delivery]) -> wire.Delivery:
    """The next tick."""
    async with asyncio.timeout(LIMIT_S):
        return await anext(ticks)


async def test_schedules_once_ticks_once_and_is_gone(schedules: Schedules, ticks: AsyncIterator[wire.Delivery]) -> None:
    """A one-time schedule ticks not before its time, carries its payload, and removes itself."""
    at = datetime.now(UTC) + timedelta(seconds=1)
    await schedules.once("delayed.a", at, b"payload")
    assert set(await schedules.names("delayed")) == {"delayed.a"}
    delivery = await tick(ticks)
    assert datetime.now(UTC) >= at
    assert (delivery.subject, delivery.data) == ("tick.delayed.a", b"payload")
    assert await schedules.names("delayed") == {}


async def test_schedules_once_in_the_past_ticks_at_once(
    schedules: Schedules, ticks: AsyncIterator[wire.Delivery]
) -> None:
    """A time that is past is due now."""
    await schedules.once("delayed.b", datetime.now(UTC) - timedelta(days=1), b"late")
    assert (await tick(ticks)).data == b"late"


async def test_schedules_once_set_again_is_moved(schedules: Schedules, ticks: AsyncIterator[wire.Delivery]) -> None:
    """Setting a schedule again replaces it: one tick comes, with the last payload."""
    await schedules.once("delayed.c", datetime.now(UTC) + timedelta(hours=1), b"first")
    await schedules.once("delayed.c", datetime.now(UTC), b"second")
    assert (await tick(ticks)).data == b"second"
    assert await schedules.names("delayed") == {}


@pytest.mark.slow
async def test_schedules_repeat_until_they_are_removed(
    schedules: Schedules, ticks: AsyncIterator[wire.Delivery]
) -> None:
    """A repeated schedule ticks again and again, and is silent after its removal, also if removed twice."""
    await schedules.repeat("cron.a", "@every 1s", b"again")
    assert [(await tick(ticks)).data for _ in range(2)] == [b"again"] * 2
    await schedules.remove("cron.a")
    await schedules.remove("cron.a")
    assert await schedules.names("cron") == {}
    await schedules.once("delayed.d", datetime.now(UTC) + timedelta(seconds=2), b"after")
    left = [await tick(ticks)]
    while left[-1].data != b"after":
        left.append(await tick(ticks))
    assert len(left) <= 2


async def test_schedules_cron_ticks_in_its_time_zone(schedules: Schedules, ticks: AsyncIterator[wire.Delivery]) -> None:
    """Six fields, seconds first, are understood with a time zone, and can be read back."""
    await schedules.repeat("cron.b", "* * * * * *", b"x", time_zone="Europe/Berlin")
    assert (await tick(ticks)).subject == "tick.cron.b"
    assert await schedules.pattern("cron.b") == ("* * * * * *", "Europe/Berlin")
    await schedules.repeat("cron.c", "@every 1h", b"x")
    assert await schedules.pattern("cron.c") == ("@every 1h", "")
    assert await schedules.pattern("cron.none") is None
    assert set(await schedules.names("cron")) == {"cron.b", "cron.c"}


@pytest.mark.parametrize("pattern", ["hello", "* * *", "61 * * * * *", "@every never"])
async def test_schedules_refuse_a_pattern_that_the_server_does_not_understand(
    schedules: Schedules, pattern: str
) -> None:
    """A bad pattern is refused with the server's code, and nothing is set."""
    with pytest.raises(errors.ServerError) as caught:
        await schedules.repeat("cron.bad", pattern, b"x")
    assert caught.value.code == 10189
    assert await schedules.names("cron") == {}
