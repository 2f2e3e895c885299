"""Continuous pull from one consumer, never more asked for than there is room.

One request asks the server for a batch; before it runs dry another is sent. So a reader is never flooded (the server
drops a client at 64 MB pending), never idle while work waits, and an idle one still hears from the server every few
seconds: a pull that expires empty is an answer, and the freshest evidence that the path to the server works.

A request that gets neither messages nor an answer in time was lost (server restarted, consumer gone): it is forgotten
and asked again, so a server that went away and came back is followed again without anybody's help.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import msgspec
import structlog
from nats import errors as driver
from nats.aio.subscription import Subscription

from bus import wire
from bus.connection import Connection
from bus.driver import parse_headers

log = structlog.get_logger()

#: Seconds that an unfilled pull stays open at the server.
EXPIRES_S = 5.0
#: Seconds after which an unanswered pull counts as lost.
_LATE_S = 2.0
#: Seconds to wait after a refused pull.
_REFUSED_S = 0.25
#: How the server ends a pull that has brought as many messages or bytes as it may: no refusal.
_FULL = ("Batch Completed", "Message Size Exceeds MaxBytes")


class Puller:
    """Keeps pulls open so that at most `capacity` messages are asked for or being worked on.

    `on_message` is called on the event loop for each delivery and must not wait; whoever has worked one off calls
    :meth:`done`. `on_lost` is called when the consumer is gone. `max_bytes` bounds what one pull may bring; 0 does not.
    """

    def __init__(
        self,
        connection: Connection,
        stream: str,
        consumer: str,
        *,
        capacity: int,
        on_message: Callable[[wire.Delivery], None],
        on_lost: Callable[[str], None] | None = None,
        max_bytes: int = 0,
    ) -> None:
        self._connection = connection
        self._nc = connection.nc
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self.name = f"{stream}/{consumer}"
        self._capacity = capacity
        self._on_message = on_message
        self._on_lost = on_lost
        self._limits = {"expires": int(EXPIRES_S * 1e9)} | ({"max_bytes": max_bytes} if max_bytes else {})
        self._prefix = self._nc.new_inbox() + "."
        #: The connection's `up_since` under which the present pulls were asked.
        self._since = connection.up_since
        #: Messages delivered and not yet worked off.
        self.working = 0
        self._asked = 0
        #: Open pulls: inbox -> (messages asked for, deadline).
        self._open: dict[str, tuple[int, float]] = {}
        self._count = 0
        self._paused = True
        self._hushed = False
        self._not_before = 0.0
        self._task: asyncio.Task[None] | None = None
        self._inbox: Subscription | None = None
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        #: Loop time of the last message, and of the last pull that the server answered as empty.
        self.last_message_at: float | None = None
        self.last_empty_at: float | None = None

    @property
    def capacity(self) -> int:
        """Messages that may be asked for or worked on."""
        return self._capacity

    @capacity.setter
    def capacity(self, capacity: int) -> None:
        self._capacity = capacity
        self._wake.set()

    @property
    def last_answer_at(self) -> float | None:
        """Loop time of the server's last word on the consumer, a message or an empty pull."""
        return max((at for at in (self.last_message_at, self.last_empty_at) if at is not None), default=None)

    async def open(self) -> None:
        """Start pulling."""
        self._since = self._connection.up_since
        self._inbox = await self._nc.sink(self._prefix + "*", self._received)
        self._connection.on_back.add(self._wake.set)
        self._paused = False
        self._wake.set()
        self._task = asyncio.create_task(self._run(), name=f"puller {self.name}")

    def pause(self) -> None:
        """Ask for nothing more. What was asked for may still come."""
        self._paused = True

    async def drain(self) -> None:
        """Ask for nothing more, and take back what was asked for: after this nothing comes any more."""
        self._paused = True
        if self._inbox is not None and not self._hushed and self._connection.is_up:
            self._hushed = True
            try:
                await self._nc.hush(self._inbox)
            except (driver.Error, TimeoutError, OSError) as exc:
                # Without a connection nothing comes either.
                log.info("puller_not_hushed", consumer=self.name, error=repr(exc))

    async def close(self) -> None:
        """Stop asking and stop listening; what the server sends afterwards comes again after its ``ack_wait``."""
        self._paused = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._connection.on_back.discard(self._wake.set)
        if self._inbox is not None:
            await self._nc.unsink(self._inbox)

    def done(self, count: int = 1) -> None:
        """Messages are worked off: there is room for as many others."""
        self.working -= count
        if self._want() >= self._enough():
            self._wake.set()

    def _want(self) -> int:
        return self._capacity - self.working - self._asked

    def _enough(self) -> int:
        # Many small requests cost the server more than they gain; none open is urgent.
        return 1 if self._asked == 0 else max(1, self._capacity // 4)

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                # Not wait_for: on Python 3.11 it swallows a cancellation that comes together with the wake-up.
                async with asyncio.timeout_at(self._next_look()):
                    await self._wake.wait()
            self._wake.clear()
            # Also while messages flow: a pull that was lost must not take up room for as long as the others are busy.
            self._forget_late()
            await self._connection.ready()
            if self._since != self._connection.up_since and not self._hushed:
                await self._begin_again()
            if self._loop.time() < self._not_before:
                continue
            if not self._paused and self._want() >= self._enough():
                self._ask(self._want())

    def _next_look(self) -> float | None:
        """Loop time at which there is something to do without news; None: never. An idle puller costs nothing."""
        now = self._loop.time()
        # The oldest pull is the first: all are open equally long.
        deadlines = [next(iter(self._open.values()))[1]] if self._open else []
        return min(deadlines + ([self._not_before] if self._not_before > now else []), default=None)

    async def _begin_again(self) -> None:
        """After a reconnection: the old pulls may be gone or not. Nobody listens for them any more, so they count no more.

        Without this a server that was restarted is asked again only when the lost pulls expire.
        """
        self._since = self._connection.up_since
        self._open.clear()
        self._asked = 0
        old, self._prefix = self._inbox, self._nc.new_inbox() + "."
        self._inbox = await self._nc.sink(self._prefix + "*", self._received)
        if old is not None:
            await self._nc.unsink(old)

    def _ask(self, batch: int) -> None:
        self._count += 1
        token = f"{self._prefix}{self._count}"
        self._asked += batch
        self._open[token] = (batch, self._loop.time() + EXPIRES_S + _LATE_S)
        body = msgspec.json.encode({"batch": batch} | self._limits)
        try:
            self._nc.send(self._subject, body, reply=token)
        except (driver.ConnectionClosedError, driver.OutboundBufferLimitError):
            self._settle(token, batch)
            self._not_before = self._loop.time() + _REFUSED_S

    def _settle(self, token: str, unfilled: int) -> None:
        """A pull has ended with this many of its messages undelivered."""
        if self._open.pop(token, None) is not None:
            self._asked = max(0, self._asked - unfilled)

    def _forget_late(self) -> None:
        # A delivery does not say which pull it answers, so only their sum is known. But a pull that is past its
        # deadline can bring nothing more: what is still to come is at most what the younger ones asked for.
        now = self._loop.time()
        late = [token for token, (_, deadline) in self._open.items() if deadline < now]
        for token in late:
            del self._open[token]
        possible = sum(batch for batch, _ in self._open.values())
        if late and self._asked > possible:
            log.warning("pull_unanswered", consumer=self.name, messages=self._asked - possible)
            self._asked = possible

    def _received(self, subject: str, reply: str, payload: bytes, block: bytes | None) -> None:
        now = self._loop.time()
        if not reply:
            # Status messages come on the pull's own inbox and carry no acknowledgement subject.
            self._status(subject, parse_headers(block), now)
            return
        self._asked = max(0, self._asked - 1)
        self.working += 1
        self.last_message_at = now
        self._on_message(wire.delivery(subject, payload, reply, block))

    def _status(self, token: str, headers: dict[str, str], now: float) -> None:
        status, description = headers.get("Status", ""), headers.get("Description", "")
        if status == "100":
            return
        gone = status == "503" or (status == "409" and "Deleted" in description)
        if not gone:
            # Being told that there is nothing to hear is no evidence of hearing.
            self.last_empty_at = now
        self._settle(token, int(headers.get("Nats-Pending-Messages", self._open.get(token, (0, 0))[0])))
        full = description in _FULL
        if status == "503" or (status == "409" and not full):
            # It would be refused again at once: a missing consumer is asked for a few times a second, and not without end.
            self._not_before = now + _REFUSED_S
        if gone and self._on_lost is not None:
            self._on_lost(description or "there is no such consumer")
        self._wake.set()
