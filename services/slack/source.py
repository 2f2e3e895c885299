"""A durable consumer that is read in order, and acknowledged event by event when it has been shown.

Acknowledgements come in any order: an ultra is shown before what waits. So after a start, and after anything was lost on the
way, the consumer is set back to the oldest event that is not acknowledged, and everything from there on comes again in
order; what of it was shown already is known from our own record. Without that the server would bring the rest first and
what was under way last, after its ``ack_wait``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from nats import errors as driver

from bus import errors, wire
from bus import store as log_store
from bus.puller import Puller
from bus.store import Recorded
from services.daemon import Bus

log = structlog.get_logger()

#: Name of the consumers.
NAME = "slack_mirror"
#: Events that may be read and not yet shown: some 20 MB of them.
CAPACITY = 10_000
#: A mirror that starts for the first time shows what led to the present, and no more.
FIRST = timedelta(minutes=10)
#: Nanoseconds after which the server brings an event again by itself; only a safety net under the setting back.
_ACK_WAIT_NS = 6 * 3600 * 1_000_000_000
#: Seconds before a consumer that cannot be had is asked for again.
_AGAIN_S = 1.0
_UNKNOWN = frozenset({wire.Code.CONSUMER_NOT_FOUND, wire.Code.STREAM_NOT_FOUND})


class Source:
    """The events of one stream."""

    def __init__(self, bus: Bus, stream: str, filters: tuple[str, ...], name: str = NAME) -> None:
        self._bus = bus
        self.stream = stream
        self.filters = filters
        self._name = name
        #: Sequence up to which everything was shown when it was opened last.
        self.floor = 0
        #: Last sequence of the stream at the first opening: up to here an earlier life may have shown something.
        self.suspect_until = 0
        #: Last sequence that was handed out.
        self.position = 0
        #: Sequence -> how many messages of it are still to be shown.
        self.open: dict[int, int] = {}
        self.settled = 0
        self.pending = 0
        self._queue: asyncio.Queue[wire.Delivery | None] = asyncio.Queue()
        self._puller: Puller | None = None
        self._next = 1

    @property
    def last_answer_at(self) -> datetime | None:
        """When the server last said anything about the stream."""
        answered = self._puller.last_answer_at if self._puller is not None else None
        if answered is None:
            return None
        return self._bus.author.now() - timedelta(seconds=asyncio.get_running_loop().time() - answered)

    async def open_first(self) -> None:
        """Make the consumer if there is none, and find where to begin: :attr:`floor`, :attr:`suspect_until`."""
        info = await self._consumer()
        self.floor = self.position = int(info["ack_floor"]["stream_seq"])
        stream = await self._bus.connection.api(f"STREAM.INFO.{self.stream}")
        self.suspect_until = int(stream["state"]["last_seq"])

    async def begun_at(self) -> datetime | None:
        """When the oldest event that may not have been shown was stored; None when there is none yet."""
        async for message in self._bus.store.messages(self.stream, ">", start=self.floor + 1, limit=1):
            return message.stored_at
        return None

    async def records(self) -> AsyncGenerator[Recorded, None]:
        """Every event once, in order, for ever. Each must be settled."""
        try:
            while True:
                if self._puller is None:
                    await self._begin()
                item = await self._take()
                if item is None:
                    await self._end()
                    continue
                if item.seq <= self.position:
                    self._repeated(item)
                    continue
                self.position, self.pending = item.seq, item.pending
                stored = datetime.fromtimestamp(item.stored_ns / 1e9, UTC)
                yield log_store.read(item.seq, item.subject, stored, item.data)
        finally:
            await self._end()

    def ask_for(self, filters: tuple[str, ...]) -> None:
        """Read other subjects from now on."""
        if filters != self.filters:
            self.filters = filters
            self._queue.put_nowait(None)

    def expect(self, seq: int, messages: int) -> None:
        """An event is to be shown in so many messages; 0 is done at once."""
        if messages:
            self.open[seq] = messages
        else:
            self._done(seq)

    def shown(self, seq: int) -> None:
        """One of its messages is shown, and that is recorded."""
        left = self.open.get(seq, 0) - 1
        if left > 0:
            self.open[seq] = left
        elif left == 0:
            del self.open[seq]
            self._done(seq)

    def _done(self, seq: int) -> None:
        self.settled += 1
        self._acknowledge(seq)
        if self._puller is not None:
            self._puller.done()

    def _acknowledge(self, seq: int) -> None:
        try:
            self._bus.connection.nc.send(wire.ack_subject(self.stream, self._name, seq), wire.ACK)
        except driver.Error as exc:
            # It comes again, and is known by the record.
            log.info("slack_ack_unsent", stream=self.stream, seq=seq, error=str(exc))

    def _repeated(self, item: wire.Delivery) -> None:
        """It was handed out before the consumer was set back."""
        if item.seq not in self.open:
            self._acknowledge(item.seq)
            if self._puller is not None:
                self._puller.done()

    async def _take(self) -> wire.Delivery | None:
        """The next delivery; None when something was lost on the way."""
        item = await self._queue.get()
        if item is None or item.consumer_seq != self._next:
            log.warning("slack_source_gap", stream=self.stream, expected=self._next)
            return None
        self._next += 1
        return item

    async def _begin(self) -> None:
        while True:
            await self._bus.connection.ready()
            filters = self.filters
            try:
                await self._consumer()
                await self._bus.connection.api(f"CONSUMER.RESET.{self.stream}.{self._name}")
            except errors.Unanswered as exc:
                log.warning("slack_source_waits", stream=self.stream, error=str(exc))
                await asyncio.sleep(_AGAIN_S)
            else:
                break
        queue: asyncio.Queue[wire.Delivery | None] = asyncio.Queue()
        self._queue, self._next = queue, 1
        self._puller = Puller(
            self._bus.connection,
            self.stream,
            self._name,
            capacity=CAPACITY,
            on_message=queue.put_nowait,
            on_lost=lambda _: queue.put_nowait(None),
        )
        if self.filters != filters:
            queue.put_nowait(None)  # others were asked for while it was made
        self._bus.connection.on_back.add(self._broken)
        await self._puller.open()

    def _broken(self) -> None:
        """The connection broke: what was on its way then is lost, and maybe the last there was."""
        self._queue.put_nowait(None)

    async def _end(self) -> None:
        if self._puller is not None:
            self._bus.connection.on_back.discard(self._broken)
            await self._puller.close()
            self._puller = None

    async def _consumer(self) -> dict[str, Any]:
        """The consumer, made or brought to the present filters: what the server says of it."""
        api = self._bus.connection.api
        where = f"{self.stream}.{self._name}"
        config: dict[str, Any] = {
            "name": self._name,
            "durable_name": self._name,
            "deliver_policy": "by_start_time",
            "opt_start_time": (self._bus.author.now() - FIRST).isoformat().replace("+00:00", "Z"),
            "ack_policy": "explicit",
            "replay_policy": "instant",
            "ack_wait": _ACK_WAIT_NS,
            "max_deliver": -1,
            # Above what is read ahead: the server must never hold an ultra back.
            "max_ack_pending": 2 * CAPACITY,
        }
        try:
            live: dict[str, Any] = (await api(f"CONSUMER.INFO.{where}"))["config"]
        except errors.ServerError as exc:
            if exc.code not in _UNKNOWN:
                raise
            live, action = config, "create"
        else:
            action = "update"
        wanted = live | {"filter_subjects": list(self.filters)}
        return await api(
            f"CONSUMER.CREATE.{where}", {"stream_name": self.stream, "config": wanted, "action": action}, timeout=15
        )
