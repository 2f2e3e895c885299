"""A question that only a daemon's working loop can answer: is it alive? Asked before anybody acts on its silence.

The answer comes over the connection and the loop that do the daemon's work, and not by the ones that beat: who answers works,
however late its heartbeats are.
"""

from __future__ import annotations

from nats import errors as driver
from nats.aio.subscription import Subscription

from bus.connection import Connection


def subject(boot_id: str) -> str:
    """Where a daemon is asked, over plain NATS."""
    return f"alive.{boot_id}"


async def answer(connection: Connection, boot_id: str) -> Subscription:
    """Answer for one daemon, until the subscription is given up."""

    def hear(_subject: str, reply: str, _payload: bytes, _block: bytes | None) -> None:
        if reply:
            connection.nc.send(reply, boot_id.encode())

    return await connection.nc.sink(subject(boot_id), hear)


async def ask(connection: Connection, boot_id: str, *, timeout: float) -> bool:
    """Whether it answers within `timeout` seconds."""
    try:
        return (await connection.nc.request(subject(boot_id), b"", timeout=timeout)).data == boot_id.encode()
    except (driver.NoRespondersError, driver.TimeoutError):
        return False
