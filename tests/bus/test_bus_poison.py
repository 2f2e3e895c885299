"""Messages that nobody should have sent: too much at once, and subjects that are no text."""

from __future__ import annotations

import asyncio

from nats.aio.msg import Msg

from bus.connection import Connection
from bus.follower import Follower
from bus.publisher import Publisher
from bus.server import EmbeddedServer
from bus.store import Store


async def test_store_reads_all_of_what_one_batch_cannot_hold(store: Store, publisher: Publisher) -> None:
    """The server ends a batched read at 64 MB: what lies behind is read all the same."""
    for number in range(240):
        await publisher.publish(f"dlq.shop.coder.{number}", b"x" * 300_000)
    found = [record.seq async for record in store.read("DEAD_LETTERS", "dlq.>")]
    assert found == list(range(1, 241))


async def test_connection_reads_on_after_a_subject_that_is_no_text(
    server: EmbeddedServer, connection: Connection, publisher: Publisher, store: Store
) -> None:
    """A message whose subject is not UTF-8 reaches a follower marked as such, and ends nobody's reading."""
    heard: asyncio.Queue[str] = asyncio.Queue()

    async def hear(message: Msg) -> None:
        heard.put_nowait(message.subject)

    await connection.nc.subscribe("inv.>", cb=hear)
    await connection.nc.flush()
    _, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))
    writer.write(b'CONNECT {"verbose":false}\r\nPUB inv.\xff.b.c.requested 2\r\nhi\r\n')
    await writer.drain()
    followed: list[str] = []
    async with asyncio.timeout(30):
        follower = Follower(connection, "INVOCATIONS", ["inv.>"])
        async for batch in follower.batches():
            if not followed:
                await publisher.publish("inv.a.b.c.requested", b"{}")
            followed += [delivery.subject for delivery in batch]
            if len(followed) == 2:
                break
    assert followed == ["inv.\N{REPLACEMENT CHARACTER}.b.c.requested", "inv.a.b.c.requested"]
    assert await asyncio.wait_for(heard.get(), 30) == "inv.a.b.c.requested"
    writer.close()
