"""Micro services of a daemon: known to the server before anybody is told that they answer."""

from __future__ import annotations

from nats.micro.request import Request

from bus.author import Author
from bus.context import Context
from services.daemon import open_bus
from services.micro import Micro
from tests.bus.proxy import Proxy
from tests.services.rig import Rig


async def test_endpoints_are_heard_when_they_are_served(rig: Rig) -> None:
    """Whoever asks after `serve` is answered, however long the way of our subscriptions to the server was."""

    async def greet(_: Request) -> bytes:
        return b"here"

    async with Proxy(int(rig.url.rpartition(":")[2])) as proxy:
        bus = await open_bus(Context(url=proxy.url), "far", Author("/test/far", actor="tester"))
        micro = Micro(bus, at_once=1)
        try:
            proxy.slow_s = 0.3
            await micro.serve("far", "Far away", {"greet": ("far.greet", greet)})
            assert (await rig.connection.nc.request("far.greet", timeout=30)).data == b"here"
        finally:
            proxy.slow_s = 0.0
            await micro.close()
            await bus.close()
