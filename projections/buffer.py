"""Messages on their way from the readers into the primary: bounded, so that readers wait when DuckDB is slower than the bus.

They become rows of the log as soon as there are enough of them, in pieces of one size: small ones cost Arrow and DuckDB more for
each row than decoding itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pyarrow as pa

from bus.wire import Delivery
from projections.decode import decode
from projections.log import LOG
from projections.partition import Partition
from projections.positions import Position

#: Rows that a transaction waits for. It has a fixed price of some 50 ms; much larger ones make everything behind them wait.
BATCH = 32_000
#: Messages that are decoded in one piece: the event loop waits as long.
CHUNK = 4_000
#: Messages and bytes that may wait.
MOST = 40_000
MOST_BYTES = 64 * 1024 * 1024


class Buffer:
    """What was read of all streams, each in order."""

    def __init__(self, eras: Mapping[str, str], partition: Partition = Partition()) -> None:  # noqa: B008 (frozen)
        """Nothing yet.

        Args:
            eras: when each stream was made.
            partition: whose messages become rows; those of others move the position all the same.
        """
        self._eras = eras
        self._partition = partition
        self._changed = asyncio.Condition()
        #: By stream: messages that are no rows yet, fewer than a chunk.
        self._raw: dict[str, list[Delivery]] = {}
        self._rows: list[pa.Table] = []
        self._positions: dict[str, Position] = {}
        self._bytes = 0
        #: Messages that wait, decoded or not.
        self.count = 0

    async def put(self, stream: str, deliveries: list[Delivery]) -> None:
        """Add messages of a stream, when there is room."""
        own = self._partition.own(stream, deliveries)
        size = sum([len(delivery.data) for delivery in own])
        async with self._changed:
            while self.count >= MOST or self._bytes >= MOST_BYTES:
                await self._changed.wait()
            waiting = self._raw.setdefault(stream, [])
            waiting += own
            last = deliveries[-1]
            self._positions[stream] = Position(last.seq, last.stored_ns // 1000, self._eras[stream])
            self.count += len(deliveries)
            self._bytes += size
            if len(waiting) >= CHUNK:
                self._decode(stream)
            self._changed.notify_all()

    async def wait(self, count: int = 1, timeout: float | None = None) -> None:
        """Wait until so many messages are there, or as much as may be, or the time is over."""
        try:
            async with asyncio.timeout(timeout), self._changed:
                while self.count < count and self._bytes < MOST_BYTES:
                    await self._changed.wait()
        except TimeoutError:
            return

    async def take(self) -> tuple[pa.Table, dict[str, Position]]:
        """All that waits as rows of the log, and where they lead. There must be something."""
        async with self._changed:
            for stream in list(self._raw):
                self._decode(stream)
            taken = pa.concat_tables(self._rows or [LOG.empty_table()]), self._positions
            self._rows, self._positions = [], {}
            self.count = self._bytes = 0
            self._changed.notify_all()
            return taken

    def _decode(self, stream: str) -> None:
        deliveries = self._raw.pop(stream)
        self._rows += [decode(stream, deliveries[at : at + CHUNK]) for at in range(0, len(deliveries), CHUNK)]
