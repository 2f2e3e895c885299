"""Deliveries in a runner's hand that may not be claimed now: kept alive, and nothing is spent on them.

A NAK would cost a delivery, and silence would let the server deliver again; so each is renewed with in-progress
acknowledgements until the gate, the caps and the thaw let it through.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

from bus import wire

#: Seconds between two looks at which deliveries are due for a renewal.
ROUND_S = 0.2


class Parking:
    """Holds deliveries by their reply subject."""

    def __init__(self, answer: Callable[[str, bytes], None]) -> None:
        self._answer = answer
        #: Reply subject -> (seconds between renewals, loop time of the last one).
        self._parked: dict[str, tuple[float, float]] = {}
        #: Stream sequence -> reply subject of what is parked.
        self._by_seq: dict[int, str] = {}
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._parked)

    @asynccontextmanager
    async def parked(self, delivery: wire.Delivery, ack_wait: float) -> AsyncIterator[None]:
        """Keep a delivery alive for as long as the block takes."""
        await self.park(delivery, ack_wait)
        try:
            yield
        finally:
            self.release(delivery)

    async def park(self, delivery: wire.Delivery, ack_wait: float) -> None:
        """Keep a delivery alive until it is released."""
        if delivery.reply in self._parked:
            return
        self._parked[delivery.reply] = (ack_wait / 3, asyncio.get_running_loop().time())
        self._by_seq[delivery.seq] = delivery.reply
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._rounds(), name="parking")

    def release(self, delivery: wire.Delivery) -> None:
        """Keep it alive no more. Nothing happens to one that is not parked."""
        self._parked.pop(delivery.reply, None)
        if self._by_seq.get(delivery.seq) == delivery.reply:
            del self._by_seq[delivery.seq]

    def holds(self, seqs: Iterable[int]) -> list[int]:
        """Which of these stream sequences are parked here."""
        return [seq for seq in seqs if seq in self._by_seq]

    async def close(self) -> None:
        """Let all of them go: they come again when their time at the server is over."""
        self._parked.clear()
        self._by_seq.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _rounds(self) -> None:
        while self._parked:
            await asyncio.sleep(ROUND_S)
            now = asyncio.get_running_loop().time()
            for reply, (every, last) in list(self._parked.items()):
                if now - last >= every:
                    self._parked[reply] = (every, now)
                    self._answer(reply, wire.IN_PROGRESS)
