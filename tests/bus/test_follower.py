"""The follower: every message exactly once and in order, whatever happens to its consumer, connection or server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from typing import Any

import pytest

from bus import wire
from bus.connection import Connection, connect
from bus.follower import Follower
from bus.publisher import Publisher
from bus.server import EmbeddedServer
from tests.bus.conftest import LIMIT_S, Address
from tests.bus.proxy import Proxy

pytestmark = pytest.mark.usefixtures("topology")
Until = Callable[..., Coroutine[Any, Any, None]]


class Reading:
    """A follower that is read in the background."""

    def __init__(self, follower: Follower, limit: int = 500) -> None:
        self.follower = follower
        self.seen: list[int] = []
        self.sizes: list[int] = []
        self._limit = limit
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async with aclosing(self.follower.batches(self._limit)) as batches:
            async for batch in batches:
                self.seen += [item.seq for item in batch]
                self.sizes.append(len(batch))

    async def end(self) -> None:
        """Stop reading."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@pytest.fixture
async def reading(connection: Connection) -> AsyncIterator[Callable[..., Reading]]:
    """Starts readings of CONTROL, and ends them afterwards."""
    started: list[Reading] = []

    def begin(
        on: Connection = connection, *, limit: int = 500, filters: tuple[str, ...] = ("ctl.>",), **more: Any
    ) -> Reading:
        """Follow from the beginning, or from where `more` says."""
        started.append(Reading(Follower(on, "CONTROL", filters, **more), limit))
        return started[-1]

    yield begin
    for one in started:
        await one.end()


async def put(publisher: Publisher, count: int, noun: str = "a") -> None:
    """Messages to follow, in order."""
    await asyncio.gather(*[publisher.publish(f"ctl.{noun}.b.c", b"%d" % n) for n in range(count)])


async def consumers(connection: Connection) -> list[str]:
    """Names of the consumers on CONTROL."""
    answer = await connection.api("CONSUMER.NAMES.CONTROL")
    return list(answer.get("consumers") or [])


async def test_follower_sees_what_is_there_and_what_comes(reading: Any, publisher: Publisher, until: Until) -> None:
    """From the first message on, in order, in batches of at most the limit."""
    await put(publisher, 300)
    one = reading(limit=100)
    await until(lambda: len(one.seen) == 300)
    await put(publisher, 300)
    await until(lambda: len(one.seen) == 600)
    assert one.seen == list(range(1, 601))
    assert max(one.sizes) <= 100
    assert min(one.sizes) >= 1
    assert (one.follower.position, one.follower.pending) == (600, 0)


async def test_follower_passes_more_than_its_capacity(reading: Any, publisher: Publisher, until: Until) -> None:
    """A small room in memory slows it down and loses nothing."""
    await put(publisher, 500)
    one = reading(limit=3, capacity=10)
    await until(lambda: len(one.seen) == 500)
    assert one.seen == list(range(1, 501))


async def test_follower_begins_where_it_is_told(reading: Any, publisher: Publisher, until: Until) -> None:
    """A start sequence and several filters are honoured, and skipped messages are no gap."""
    for noun in "abc" * 10:
        await put(publisher, 1, noun)
    one = reading(start=10, filters=("ctl.a.>", "ctl.c.>"))
    wanted = [seq for seq in range(10, 31) if seq % 3 != 2]
    await until(lambda: len(one.seen) >= len(wanted))
    assert one.seen == wanted


async def test_follower_goes_on_after_the_server_was_killed(
    reading: Any, server: EmbeddedServer, connection: Connection, publisher: Publisher, until: Until
) -> None:
    """Over a SIGKILL and a restart nothing is seen twice and nothing is left out."""
    one = reading()
    await put(publisher, 50)
    await until(lambda: len(one.seen) == 50)
    server.kill()
    await server.wait()
    await until(lambda: not connection.is_up)
    await server.start()
    async with asyncio.timeout(LIMIT_S):
        await connection.ready()
    last = (await connection.api("STREAM.INFO.CONTROL"))["state"]["last_seq"]
    await put(publisher, 50)
    await until(lambda: one.seen and one.seen[-1] == last + 50)
    assert one.seen[50:] == list(range(51, last + 51))
    assert len(one.seen) == len(set(one.seen))


async def test_follower_goes_on_after_its_consumer_was_deleted(
    reading: Any, connection: Connection, publisher: Publisher, until: Until
) -> None:
    """Somebody deletes the consumer, twice: it makes another one and sees everything once."""
    one = reading(limit=10)
    for round_ in range(1, 4):
        await put(publisher, 100)
        await until(lambda count=round_ * 100: len(one.seen) == count)
        for name in await consumers(connection):
            await connection.api(f"CONSUMER.DELETE.CONTROL.{name}")
    await put(publisher, 1)
    await until(lambda: len(one.seen) == 301)
    assert one.seen == list(range(1, 302))


async def test_follower_finds_what_was_lost_with_the_connection(
    reading: Any, server: EmbeddedServer, publisher: Publisher, until: Until
) -> None:
    """Deliveries that die with the connection come again, even if nothing is ever published behind them."""
    async with Proxy(server.port) as proxy:
        shaky = await connect(Address(proxy.url), "shaky")
        one = reading(shaky)
        await put(publisher, 20)
        await until(lambda: len(one.seen) == 20)
        proxy.swallow = True
        await put(publisher, 20)
        await until(proxy.lost.is_set)
        proxy.cut()
        await until(lambda: len(one.seen) == 40)
        assert one.seen == list(range(1, 41))
        await one.end()
        await shaky.close()


async def test_follower_hands_out_the_good_before_a_gap(connection: Connection) -> None:
    """What came before a missing delivery is handed out, and the gap is met at the next take and not forgotten."""
    follower = Follower(connection, "CONTROL", ["ctl.>"])

    def delivery(consumer_seq: int) -> wire.Delivery:
        """A delivery with this number."""
        return wire.Delivery("s", b"", "", consumer_seq, 1, consumer_seq, 0, 0)

    follower._queue.put_nowait(delivery(2))
    follower._queue.put_nowait(delivery(4))
    batch = follower._take(delivery(1), 500)
    assert batch is not None
    assert [item.consumer_seq for item in batch] == [1, 2]
    assert follower.position == 2
    assert follower._take(follower._queue.get_nowait(), 500) is None


async def test_follower_that_ends_leaves_no_subscription(
    reading: Any, connection: Connection, publisher: Publisher, until: Until
) -> None:
    """After the end nothing listens any more."""
    before = set(connection.nc._subs)
    one = reading()
    await put(publisher, 5)
    await until(lambda: len(one.seen) == 5)
    await one.end()
    assert set(connection.nc._subs) == before


async def test_follower_knows_when_the_server_last_answered(reading: Any, publisher: Publisher, until: Until) -> None:
    """A message or an empty pull is the last answer; before both there is none."""
    one = reading()
    assert one.follower.last_answer_at is None
    await put(publisher, 1)
    await until(lambda: one.follower.last_answer_at is not None)
