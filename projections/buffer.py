"""Messages on their way from the readers into the primary: bounded, so that readers wait when DuckDB is slower than the bus."""

from __future__ import annotations

import asyncio
from collections import deque

from bus.wire import Delivery

#: Messages of one transaction: larger ones gain little and make everything behind them wait.
BATCH = 24_000
#: Messages and bytes that may wait.
MOST = 40_000
MOST_BYTES = 64 * 1024 * 1024


class Buffer:
    """Messages of all streams, oldest first, each stream's in order."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[str, list[Delivery], int]] = deque()
        self._changed = asyncio.Condition()
        self._bytes = 0
        #: Messages that wait.
        self.count = 0

    async def put(self, stream: str, deliveries: list[Delivery]) -> None:
        """Add messages of a stream, when there is room."""
        size = sum([len(delivery.data) for delivery in deliveries])
        async with self._changed:
            while self.count >= MOST or self._bytes >= MOST_BYTES:
                await self._changed.wait()
            self._waiting.append((stream, deliveries, size))
            self.count += len(deliveries)
            self._bytes += size
            self._changed.notify_all()

    async def wait(self, count: int = 1, timeout: float | None = None) -> None:
        """Wait until so many messages are there, or as much as may be, or the time is over."""
        try:
            async with asyncio.timeout(timeout), self._changed:
                while self.count < count and self._bytes < MOST_BYTES:
                    await self._changed.wait()
        except TimeoutError:
            return

    async def take(self) -> dict[str, list[Delivery]]:
        """What makes the next transaction, by stream; empty when nothing waits."""
        found: dict[str, list[Delivery]] = {}
        count = 0
        async with self._changed:
            while self._waiting and count < BATCH:
                stream, deliveries, size = self._waiting.popleft()
                found.setdefault(stream, []).extend(deliveries)
                count += len(deliveries)
                self._bytes -= size
            self.count -= count
            self._changed.notify_all()
        return found
