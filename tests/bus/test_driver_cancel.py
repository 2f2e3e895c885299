"""The driver's waits against a cancellation that comes together with their answer."""

from __future__ import annotations

import asyncio

from nats.aio.msg import Msg

from bus.connection import Connection


async def test_driver_request_heeds_a_cancellation_that_comes_with_the_answer(connection: Connection) -> None:
    """Who is told to end just as the answer comes in ends, and does not go on with the answer."""

    async def answer(message: Msg) -> None:
        await message.respond(b"here")

    await connection.nc.subscribe("question", cb=answer)
    went_on: list[bytes] = []

    async def ask() -> None:
        went_on.append((await connection.nc.request("question", timeout=5)).data)

    assert (await connection.nc.request("question", timeout=5)).data == b"here"
    asking = asyncio.create_task(ask())
    async with asyncio.timeout(5):
        while not connection.nc._resp_map:
            await asyncio.sleep(0)
    (future,) = connection.nc._resp_map.values()
    # Called right behind the driver's own callback: the answer is there, and its reader has not run yet.
    future.add_done_callback(lambda _future: asking.cancel())
    await asyncio.wait({asking}, timeout=5)
    assert asking.cancelled()
    assert went_on == []
