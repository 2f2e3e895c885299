"""The driver's flush: its answer vouches for everything that was sent before."""

from __future__ import annotations

import re

from bus.connection import connect
from bus.context import Context
from bus.server import EmbeddedServer
from tests.bus.proxy import Proxy


async def test_flush_asks_behind_what_was_sent(server: EmbeddedServer) -> None:
    """The question whose answer a flush waits for goes out behind the subscription and the message that were sent before it."""
    async with Proxy(server.port) as proxy:
        connection = await connect(Context(url=proxy.url), "flush")
        try:
            await connection.nc.subscribe("news")
            connection.nc.send("news", b"1")
            await connection.nc.flush()
        finally:
            await connection.close()
    # The first question belongs to the connecting.
    assert re.findall(rb"SUB news|PUB news|PING", bytes(proxy.sent))[:4] == [b"PING", b"SUB news", b"PUB news", b"PING"]
