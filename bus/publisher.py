"""Acknowledged publishing, many at a time.

``nc.request`` costs a future, a timer and a lookup more than an acknowledgement needs; here all answers come to one inbox
and find their future by number, and one task watches the deadlines. A publish whose answer does not come is
``Unanswered``: it may have been stored. Only :mod:`bus.store` may decide what that means.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from nats import errors as driver
from nats.aio.subscription import Subscription

from bus import errors, wire
from bus.connection import Connection
from bus.driver import header_block

#: Seconds to wait for an acknowledgement. A healthy server answers in under a millisecond; after a leader change or a
#: restart it takes up to this long.
ANSWER_S = 5.0
#: Seconds between two looks at the deadlines.
_CHECK_S = 0.5
#: The answer when no stream takes a subject, in the shape of the server's own.
_NO_STREAM = wire.PubAck(
    error=wire.ApiError(
        err_code=wire.Code.STREAM_NOT_FOUND, description="no stream takes this subject; run `systems apply`"
    )
)
_NOBODY = (None, 0.0, "")


class Passage(Protocol):
    """What a write passes: :class:`bus.gate.Gate`."""

    def check(self, subject: str) -> None:
        """Raise GuardRefused if a message may not be written to the subject."""
        ...


class Publisher:
    """Publishes and waits for the acknowledgement. Open it before use, close it after."""

    def __init__(self, connection: Connection, *, answer_s: float = ANSWER_S) -> None:
        self._connection = connection
        self._nc = connection.nc
        self._answer_s = answer_s
        self._prefix = self._nc.new_inbox() + "."
        self._count = 0
        # Future, deadline and subject by inbox. Their order is that of the deadlines, because every wait is equally long.
        self._waiting: dict[str, tuple[asyncio.Future[wire.PubAck], float, str]] = {}
        #: Set when something begins to wait while nothing did.
        self._awaited = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._inbox: Subscription | None = None
        self._loop = asyncio.get_running_loop()
        #: What every write passes; None only for tools that measure the bare bus, and for heartbeats, which no freeze stops.
        self.gate: Passage | None = None

    async def open(self) -> None:
        """Start listening for answers."""
        self._inbox = await self._nc.sink(self._prefix + "*", self._answered)
        self._connection.on_denied.append(self._denied)
        self._task = asyncio.create_task(self._expire(), name="publisher_deadlines")

    async def close(self) -> None:
        """Stop listening; what still waits is unanswered."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._connection.on_denied.remove(self._denied)
        if self._inbox is not None:
            await self._nc.unsink(self._inbox)
        self._give_up(float("inf"))

    async def publish(self, subject: str, payload: bytes, headers: dict[str, str] | bytes = b"") -> wire.PubAck:
        """Publish and wait until the server has stored it.

        Args:
            subject: where to.
            payload: the message.
            headers: by name, or a block made by :func:`bus.driver.header_block` or :func:`bus.wire.fence`.

        Raises:
            SequenceConflict, StreamFrozen, ServerError: the server refused it: it is not stored.
            PayloadTooLarge: it was never sent.
            Unanswered: it may be stored, or not.
        """
        return await self.publish_nowait(subject, payload, headers)

    def publish_nowait(
        self, subject: str, payload: bytes, headers: dict[str, str] | bytes = b""
    ) -> asyncio.Future[wire.PubAck]:
        """Publish, and get the answer later: a future with the result or error that :meth:`publish` has.

        Raises:
            GuardRefused, PayloadTooLarge, Unanswered: it was never sent.
        """
        self._count += 1
        inbox = f"{self._prefix}{self._count}"
        self.send(subject, payload, headers, inbox)
        if not self._waiting:
            self._awaited.set()
        future: asyncio.Future[wire.PubAck] = self._loop.create_future()
        self._waiting[inbox] = (future, self._loop.time() + self._answer_s, subject)
        return future

    def send(self, subject: str, payload: bytes, headers: dict[str, str] | bytes = b"", reply: str = "") -> None:
        """Publish without waiting for an answer: members of an atomic batch, of which only the commit is answered.

        Raises:
            GuardRefused: the kill switch is thrown, or cannot be read.
            PayloadTooLarge: it was not sent.
            Unanswered: the connection is closed, or too much waits in its buffer.
        """
        if self.gate is not None:
            self.gate.check(subject)
        block = headers if isinstance(headers, bytes) else header_block(headers)
        try:
            self._nc.send(subject, payload, reply=reply, headers=block)
        except driver.MaxPayloadError as exc:
            size = len(payload) + len(block)
            raise errors.PayloadTooLarge(f"a message on {subject}", size, self._nc.max_payload) from exc
        except (driver.OutboundBufferLimitError, driver.ConnectionClosedError) as exc:
            raise errors.Unanswered(f"a publish to {subject}", 0) from exc

    def _answered(self, inbox: str, _reply: str, payload: bytes, block: bytes | None) -> None:
        # 503: nobody listens on the subject, so there is no such stream (yet).
        answer = _NO_STREAM if block is not None and not payload else wire.decode_ack(payload)
        future, _, subject = self._waiting.pop(inbox, _NOBODY)
        if future is None or future.done():
            return
        if answer.error is None:
            future.set_result(answer)
        else:
            future.set_exception(wire.refusal(f"a publish to {subject}", answer.error))

    def _denied(self, subject: str) -> None:
        """The server will not answer these: it has said that this login may not."""
        for inbox, (future, _, wanted) in list(self._waiting.items()):
            if wanted.lower() == subject.lower():  # the driver tells errors in lower case
                del self._waiting[inbox]
                if not future.done():
                    future.set_exception(errors.PermissionDenied(wanted))

    async def _expire(self) -> None:
        while True:
            if not self._waiting:
                self._awaited.clear()
                await self._awaited.wait()
            await asyncio.sleep(_CHECK_S)
            self._give_up(self._loop.time())

    def _give_up(self, now: float) -> None:
        for inbox, (future, deadline, subject) in list(self._waiting.items()):
            if deadline > now:
                return
            del self._waiting[inbox]
            if not future.done():
                future.set_exception(errors.Unanswered(f"a publish to {subject}", self._answer_s))
