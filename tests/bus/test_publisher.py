"""The publisher: every publish gets its own answer, or is told that none came."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from bus import errors, wire
from bus.connection import Connection
from bus.publisher import Publisher
from bus.server import EmbeddedServer
from bus.topology import Topology
from tests.bus.conftest import LIMIT_S

pytestmark = pytest.mark.usefixtures("topology")


async def test_publisher_gives_each_publish_its_own_answer(publisher: Publisher) -> None:
    """Of a thousand at once each gets its own sequence."""
    answers = await asyncio.gather(*[publisher.publish(f"ctl.a.b.{n}", b"x") for n in range(1000)])
    assert sorted(answer.seq for answer in answers) == list(range(1, 1001))
    assert {answer.stream for answer in answers} == {"CONTROL"}


async def test_publisher_counts_a_message_id_once(publisher: Publisher) -> None:
    """The same message id again is answered with the first sequence, as a duplicate."""
    first = await publisher.publish("ctl.a.b.c", b"1", {wire.MSG_ID: "m"})
    second = await publisher.publish("ctl.a.b.c", b"2", {wire.MSG_ID: "m"})
    assert (first.duplicate, second.duplicate) == (False, True)
    assert first.seq == second.seq


async def test_publisher_without_an_answer_is_unanswered(
    server: EmbeddedServer, connection: Connection, until: Callable[..., Coroutine[Any, Any, None]]
) -> None:
    """While the server is away a publish ends as unanswered within its time, and later ones work again."""
    publisher = Publisher(connection, answer_s=0.2)
    await publisher.open()
    server.kill()
    await server.wait()
    await until(lambda: not connection.is_up)
    with pytest.raises(errors.Unanswered, match="its outcome is unknown"):
        await publisher.publish("ctl.a.b.c", b"x")
    await server.start()
    async with asyncio.timeout(LIMIT_S):
        await connection.ready()
    assert (await publisher.publish("ctl.a.b.c", b"x")).seq >= 1
    await publisher.close()


async def test_publisher_close_ends_what_waits(server: EmbeddedServer, connection: Connection) -> None:
    """Whoever waits when it is closed learns that the outcome is unknown."""
    publisher = Publisher(connection)
    await publisher.open()
    server.kill()
    await server.wait()
    task = asyncio.create_task(publisher.publish("ctl.a.b.c", b"x"))
    await asyncio.sleep(0)
    await publisher.close()
    with pytest.raises(errors.Unanswered):
        await task


async def test_publisher_on_a_closed_connection_is_unanswered(connection: Connection) -> None:
    """A closed connection is not waited for."""
    publisher = Publisher(connection)
    await publisher.open()
    await connection.close()
    with pytest.raises(errors.Unanswered):
        await publisher.publish("ctl.a.b.c", b"x")
    await publisher.close()


async def test_publisher_close_leaves_no_subscription(connection: Connection, topology: Topology) -> None:
    """Opened and closed again, nothing listens any more."""
    before = dict(connection.nc._subs)
    publisher = Publisher(connection)
    await publisher.open()
    await publisher.publish("ctl.a.b.c", b"x")
    await publisher.close()
    assert connection.nc._subs == before
    assert len(connection.nc._sinks) == 0
