"""What the server says against a connection, and what becomes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from bus.connection import Connection
from bus.publisher import Publisher
from bus.topology import Topology


async def test_driver_connects_again_after_an_error_of_the_server(
    connection: Connection, topology: Topology, publisher: Publisher, until: Callable[..., Any]
) -> None:
    """An error that ends the connection ends it once: it is made again, and what is published afterwards is stored."""
    assert topology.streams
    before = connection.up_since
    transport: Any = connection.nc._transport
    transport.write(b"NONSENSE\r\n")
    await until(lambda: connection.is_up and connection.up_since != before)
    async with asyncio.timeout(30):
        assert (await publisher.publish("inv.a.b.c.requested", b"{}")).seq == 1
