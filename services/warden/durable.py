"""A durable consumer of one of the warden's services: each message handled at least once, one after the other.

A message is acknowledged after its handling is in the log. A handler that fails leaves it to come again after a delay, so
handlers must stand being called twice; they do, because what they write has derived ids or fences.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from bus import errors, wire
from bus.puller import Puller
from bus.topology import Consumer
from services.daemon import Bus

log = structlog.get_logger()

#: Seconds until a message whose handling failed comes again.
_AGAIN_S = 2.0


async def handle(bus: Bus, consumer: Consumer, handler: Callable[[wire.Delivery], Awaitable[None]]) -> None:
    """Hand each message to `handler`, for ever."""
    queue: asyncio.Queue[wire.Delivery] = asyncio.Queue()
    puller = Puller(bus.connection, consumer.stream, consumer.name, capacity=64, on_message=queue.put_nowait)
    await puller.open()
    try:
        while True:
            delivery = await queue.get()
            try:
                await handler(delivery)
            except errors.BusError as exc:
                log.warning(
                    "handling_failed", consumer=puller.name, subject=delivery.subject, error=str(exc), again_s=_AGAIN_S
                )
                bus.publisher.send(delivery.reply, wire.nak(_AGAIN_S))
            else:
                bus.publisher.send(delivery.reply, wire.ACK)
            finally:
                puller.done()
    finally:
        await puller.close()
