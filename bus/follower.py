"""Follow a stream from a sequence on, in order, in bounded batches, for ever.

An ephemeral consumer without acknowledgements feeds it; when that is lost, or a delivery is missing, another one is made
from the last sequence that was handed out. So a reader sees every message exactly once and in order as long as it lives;
where it starts after a restart is the reader's own business (a checkpoint).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

import structlog

from bus import errors, wire
from bus.connection import Connection
from bus.puller import Puller

log = structlog.get_logger()

#: Messages in memory that were delivered and not yet handed out: about 1 MB of events.
CAPACITY = 2_000
#: Seconds without a reader after which the server drops the consumer.
_INACTIVE_S = 30.0


class Follower:
    """``async for batch in follower.batches()``: lists of deliveries, never empty."""

    def __init__(
        self,
        connection: Connection,
        stream: str,
        filters: Sequence[str],
        *,
        start: int = 1,
        capacity: int = CAPACITY,
        max_bytes: int = 0,
        on_begin: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Follow from a sequence on.

        Args:
            connection: to the server.
            stream: its name.
            filters: subjects; none for all of them.
            start: the first sequence that is wanted.
            capacity: messages that may wait here or be worked on.
            max_bytes: bytes that one pull may bring; 0 for any number.
            on_begin: awaited each time a consumer has been made and before anything of it is handed out: it may find
                that the stream is not the one that was followed before, and raise.
        """
        self._connection = connection
        self.stream = stream
        self._filters = list(filters)
        self._capacity = capacity
        self._max_bytes = max_bytes
        self._on_begin = on_begin
        #: Sequence of the last message handed out.
        self.position = start - 1
        #: Messages that wait in the stream behind the last one delivered.
        self.pending = 0
        self._queue: asyncio.Queue[wire.Delivery | None] = asyncio.Queue()
        self._puller: Puller | None = None
        self._next = 1

    @property
    def last_answer_at(self) -> float | None:
        """Loop time of the server's last word on this stream, a message or an empty pull."""
        return self._puller.last_answer_at if self._puller is not None else None

    async def batches(self, limit: int = 500) -> AsyncGenerator[list[wire.Delivery], None]:
        """Messages as they come, at most `limit` at a time."""
        try:
            while True:
                if self._puller is None:
                    await self._begin()
                batch = self._take(await self._queue.get(), limit)
                if batch is None:
                    await self._end()
                elif batch:
                    yield batch
                    if self._puller is not None:
                        self._puller.done(len(batch))
        finally:
            await self._end()

    def _take(self, first: wire.Delivery | None, limit: int) -> list[wire.Delivery] | None:
        """What lies ready, in order; None when the consumer was lost or skipped something."""
        batch: list[wire.Delivery] = []
        item = first
        while item is not None:
            if item.consumer_seq != self._next:
                log.warning("follower_gap", stream=self.stream, expected=self._next, got=item.consumer_seq)
                break
            self._next += 1
            self.position = item.seq
            self.pending = item.pending
            batch.append(item)
            if len(batch) >= limit or self._queue.empty():
                return batch
            item = self._queue.get_nowait()
        if batch:
            # Hand out what is good first; the loss is met again at the next take.
            self._queue.put_nowait(None)
        return batch or None

    async def _begin(self) -> None:
        name = await self._create(
            {
                "deliver_policy": "by_start_sequence",
                "opt_start_seq": self.position + 1,
                "ack_policy": "none",
                "filter_subjects": self._filters,
                "mem_storage": True,
                "num_replicas": 1,
                "inactive_threshold": int(_INACTIVE_S * 1e9),
            }
        )
        self._queue = asyncio.Queue()
        self._next = 1
        queue = self._queue
        self._puller = Puller(
            self._connection,
            self.stream,
            name,
            capacity=self._capacity,
            on_message=queue.put_nowait,
            on_lost=lambda _why: queue.put_nowait(None),
            max_bytes=self._max_bytes,
        )
        self._connection.on_back.add(self._broken)
        # After the consumer is there: a stream that is made anew from now on takes it along, and that is noticed.
        if self._on_begin is not None:
            await self._on_begin()
        await self._puller.open()

    async def _create(self, config: dict[str, object]) -> str:
        """Make the consumer, waiting for a server that is away: its name."""
        while True:
            await self._connection.ready()
            name = f"follow-{self._connection.nc._nuid.next().decode()}"  # noqa: SLF001 (the driver's id maker has no public name)
            body = {"stream_name": self.stream, "config": config | {"name": name}, "action": "create"}
            try:
                await self._connection.api(f"CONSUMER.CREATE.{self.stream}.{name}", body)
            except errors.Unanswered as exc:
                log.warning("follower_waits", stream=self.stream, error=str(exc))
            else:
                return name

    def _broken(self) -> None:
        """The connection broke: what was on its way then is lost, and maybe the last there was."""
        self._queue.put_nowait(None)

    async def _end(self) -> None:
        if self._puller is not None:
            self._connection.on_back.discard(self._broken)
            await self._puller.close()
            self._puller = None
