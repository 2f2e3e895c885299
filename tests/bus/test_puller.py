"""The puller on a real server: never too much in hand, never idle, and never stuck after a restart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from bus import plan, wire
from bus.connection import Connection
from bus.publisher import Publisher
from bus.puller import EXPIRES_S, Puller
from bus.server import EmbeddedServer
from bus.topology import Topology, service_consumer
from tests.bus.conftest import LIMIT_S

Until = Callable[..., Coroutine[Any, Any, None]]


class Reader:
    """A puller whose messages a test works off when it likes."""

    def __init__(self, connection: Connection, capacity: int) -> None:
        self.got: list[wire.Delivery] = []
        self.lost: list[str] = []
        self.most = 0
        self._connection = connection
        self.puller = Puller(
            connection, "CONTROL", "reader", capacity=capacity, on_message=self.take, on_lost=self.lost.append
        )

    def take(self, delivery: wire.Delivery) -> None:
        """Note a message."""
        self.got.append(delivery)
        self.most = max(self.most, self.puller.working)

    def finish(self, count: int) -> None:
        """Acknowledge and work off the oldest of what is in hand."""
        done = len(self.got) - self.puller.working
        for delivery in self.got[done : done + count]:
            self._connection.nc.send(delivery.reply, wire.ACK)
            self.puller.done()


@pytest.fixture
async def consumer(connection: Connection, topology: Topology) -> None:
    """A durable consumer of everything on CONTROL."""
    declared = Topology(streams=(), consumers=(service_consumer("CONTROL", "reader", "ctl.>", ack_wait_s=30),))
    await plan.apply(connection, declared, await plan.plan(connection, declared))


@pytest.fixture
async def opened(connection: Connection, consumer: None) -> AsyncIterator[Callable[[int], Coroutine[Any, Any, Reader]]]:
    """Opens readers, and closes them afterwards."""
    readers: list[Reader] = []

    async def make(capacity: int) -> Reader:
        """A reader with this much room."""
        readers.append(Reader(connection, capacity))
        await readers[-1].puller.open()
        return readers[-1]

    yield make
    for reader in readers:
        await reader.puller.close()


async def put(publisher: Publisher, count: int) -> None:
    """Messages to read."""
    await asyncio.gather(*[publisher.publish(f"ctl.a.b.{n}", b"%d" % n) for n in range(count)])


@pytest.mark.parametrize("capacity", [1, 3, 50])
async def test_puller_never_has_more_than_its_capacity(
    opened: Any, publisher: Publisher, until: Until, capacity: int
) -> None:
    """All messages come once and in order, and at no time are more in hand than there is room for."""
    reader = await opened(capacity)
    await put(publisher, 200)
    while len(reader.got) < 200:
        await until(lambda: reader.puller.working == min(capacity, 200 - len(reader.got) + reader.puller.working))
        assert reader.puller.working <= capacity
        reader.finish(max(1, capacity // 2))
    assert reader.most <= capacity
    assert [delivery.seq for delivery in reader.got] == list(range(1, 201))
    assert all(delivery.delivery == 1 for delivery in reader.got)


async def test_puller_paused_asks_for_nothing_more(opened: Any, publisher: Publisher, until: Until) -> None:
    """After a pause at most what was asked for still comes."""
    reader = await opened(2)
    await put(publisher, 10)
    await until(lambda: reader.puller.working == 2)
    reader.puller.pause()
    reader.finish(2)
    await publisher.publish("ctl.a.b.c", b"")
    assert len(reader.got) == 2


@pytest.mark.soak
async def test_puller_hears_that_nothing_waits(opened: Any, until: Until) -> None:
    """An idle puller knows when the server last answered, which is evidence of the path to it."""
    reader = await opened(5)
    assert reader.puller.last_empty_at is None
    await until(lambda: reader.puller.last_empty_at is not None)
    first = reader.puller.last_empty_at
    await until(lambda: reader.puller.last_empty_at != first)
    second = reader.puller.last_empty_at
    assert first is not None
    assert second is not None
    assert second - first > EXPIRES_S - 1
    assert reader.puller.last_message_at is None


async def test_puller_goes_on_after_the_server_was_killed(
    opened: Any, server: EmbeddedServer, connection: Connection, publisher: Publisher, until: Until
) -> None:
    """Killed and started again on its port and store, the server's messages flow again without anybody's help."""
    reader = await opened(4)
    await put(publisher, 4)
    await until(lambda: reader.puller.working == 4)
    server.kill()
    await server.wait()
    await until(lambda: not connection.is_up)
    await server.start()
    async with asyncio.timeout(LIMIT_S):
        await connection.ready()
    reader.finish(4)
    await put(publisher, 40)
    while {int(delivery.data) for delivery in reader.got[4:]} < set(range(40)):
        await until(lambda: reader.puller.working > 0)
        assert reader.puller.working <= 4
        reader.finish(4)
    assert reader.most <= 4


async def test_puller_tells_that_its_consumer_is_gone(
    opened: Any, connection: Connection, publisher: Publisher, until: Until, consumer: None
) -> None:
    """A deleted consumer is told, and being refused counts as no evidence of hearing; made again, it is read again."""
    reader = await opened(3)
    await put(publisher, 1)
    await until(lambda: reader.got)
    await connection.api("CONSUMER.DELETE.CONTROL.reader")
    await until(lambda: reader.lost)
    heard = reader.puller.last_empty_at
    await until(lambda: len(reader.lost) >= 3)
    assert reader.puller.last_empty_at == heard
    declared = Topology(streams=(), consumers=(service_consumer("CONTROL", "reader", "ctl.>"),))
    await plan.apply(connection, declared, await plan.plan(connection, declared))
    await until(lambda: len(reader.got) == 2)


async def test_puller_without_a_consumer_does_not_storm_the_server(
    connection: Connection, topology: Topology, until: Until
) -> None:
    """While the consumer is missing it asks a few times a second and not thousands of times."""
    reader = Reader(connection, 3)
    await reader.puller.open()
    started = asyncio.get_running_loop().time()
    await until(lambda: len(reader.lost) >= 3)
    assert asyncio.get_running_loop().time() - started > 0.5
    await reader.puller.close()


async def test_puller_close_leaves_nothing_behind(opened: Any, connection: Connection, topology: Topology) -> None:
    """After closing nothing listens and no task runs."""
    before = set(connection.nc._subs)
    reader = Reader(connection, 3)
    await reader.puller.open()
    await reader.puller.close()
    assert set(connection.nc._subs) == before
    assert not connection.nc._sinks
