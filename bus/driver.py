"""nats-py's client, with a short way in and a short way out for the hot path.

What nats-py does for each message (a header dictionary, a ``Msg``, a queue, a task to wake) costs more than the message
itself when all that is wanted is "number 4711 was acknowledged". A *sink* gets the bytes of a subscription straight from
the protocol parser; :meth:`Driver.send` puts a publish straight into the outgoing buffer. Everything else (connecting,
reconnecting, other subscriptions, requests) is nats-py's own.

This touches the driver's private side, so the driver's version is pinned and the tests of this module fail first when it
moves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import structlog
from nats import errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.protocol.parser import PERMISSIONS_ERR, Parser

log = structlog.get_logger()

_T = TypeVar("_T")

#: Receives (subject, reply, payload, header block or None) on the event loop, and must not wait.
Sink = Callable[[str, str, bytes, bytes | None], None]

_HEAD = b"NATS/1.0\r\n"
#: Seconds until a reconnection that did not heed its cancellation is cancelled again.
_CANCEL_S = 0.1


class Driver(Client):
    """A NATS client with sinks and immediate sends."""

    def __init__(self) -> None:
        super().__init__()
        self._sinks: dict[int, Sink] = {}
        self._ps = _Parser(self, self._sinks)  # type: ignore[assignment]  # the two methods that the client calls

    async def request(self, *args: Any, **named: Any) -> Msg:
        """Ask and wait for the answer, as the driver does; a cancellation is heeded also when it comes with the answer."""
        return await _heeding(super().request(*args, **named))

    async def flush(self, timeout: int = 10) -> None:
        """Wait until the server has taken all that was sent; a cancellation is heeded also when it comes with the answer."""
        # The driver writes its question past what still waits to be written: the answer would vouch for what has not left yet.
        try:
            async with asyncio.timeout(timeout):
                await self._written()
        except TimeoutError as exc:
            raise errors.FlushTimeoutError from exc
        await _heeding(super().flush(timeout))

    async def _written(self) -> None:
        """Wait until what was sent so far is written to the connection, if there is one."""
        flusher, queue = self._flusher_task, self._flush_queue
        if not self.is_connected or queue is None or flusher is None or flusher.done():
            return
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        await queue.put(written)
        await written

    async def close(self) -> None:
        """Close for good, also while a connection is being made.

        The driver cancels a reconnection that is under way and does not wait for its end. A cancellation that comes with the
        new connection is lost, and what was closed would be open after all, with nobody who knows of it.
        """
        await super().close()
        task = self._reconnection_task
        while task is not None and not task.done() and task is not asyncio.current_task():
            task.cancel()
            await asyncio.wait([task], timeout=_CANCEL_S)
        if not self.is_closed:
            await super().close()
        elif self._transport is not None:
            self._transport.close()  # type: ignore[no-untyped-call]

    async def _process_err(self, err_msg: str) -> None:
        # The driver would close for good on most of these (a login that expired, too many connections, a protocol error),
        # and leave behind a process that waits for ever for a connection that nobody makes.
        error = errors.Error(f"nats: {err_msg.strip(chr(39))}")
        if PERMISSIONS_ERR in str(error) or not self.is_connected:
            await super()._process_err(err_msg)
            return
        await self._error_cb(error)
        await self._process_op_err(error)

    async def sink(self, subject: str, receive: Sink) -> Subscription:
        """Subscribe, and hand every message to `receive` as it is parsed; until :meth:`unsink`."""
        subscription = await self.subscribe(subject, cb=_unexpected)
        self._sinks[subscription._id] = receive  # noqa: SLF001 (the driver's number of the subscription)
        return subscription

    async def hush(self, subscription: Subscription) -> None:
        """Have the server send no more; what it had sent by then still reaches the sink, before this returns."""
        await subscription.unsubscribe()
        await self.flush(2)

    async def unsink(self, subscription: Subscription) -> None:
        """Listen no more. What was under way is dropped."""
        self._sinks.pop(subscription._id, None)  # noqa: SLF001 (the driver's number of the subscription)
        if not self.is_closed and not subscription._closed:  # noqa: SLF001 (it was hushed before)
            await subscription.unsubscribe()

    @staticmethod
    def hand_over(receive: Sink, subject: str, reply: str, data: bytes, block: bytes | None) -> None:
        """Call a sink. One that fails has lost this message; left alone, its error would end the reading of all others."""
        try:
            receive(subject, reply, data, block)
        except Exception as exc:
            log.error("message_lost", subject=subject, error=repr(exc), exc_info=exc)

    def forget(self) -> None:
        """Drop what waits to be sent: closing would try to write it to a connection that is gone."""
        self._pending.clear()
        self._pending_data_size = 0

    def send(self, subject: str, payload: bytes, *, reply: str = "", headers: bytes = b"") -> None:
        """Publish without waiting: into the outgoing buffer, which the driver flushes in the background.

        While the server is away it waits there and goes out after the reconnection.

        Args:
            subject: where to; must be a valid subject (nothing is checked here).
            payload: the message.
            reply: where answers go.
            headers: a block made by :func:`header_block`.

        Raises:
            nats.errors.ConnectionClosedError: the connection was closed for good.
            nats.errors.MaxPayloadError: the server would refuse it for its size.
            nats.errors.OutboundBufferLimitError: too much waits already.
        """
        if self._status == Client.CLOSED:
            raise errors.ConnectionClosedError
        size = len(headers) + len(payload)
        if size > self._max_payload:
            raise errors.MaxPayloadError
        if self._pending_data_size > self._max_pending_size:
            raise errors.OutboundBufferLimitError
        if headers:
            command = b"HPUB %b %b %d %d\r\n%b%b\r\n" % (
                subject.encode(),
                reply.encode(),
                len(headers),
                size,
                headers,
                payload,
            )
        else:
            command = b"PUB %b %b %d\r\n%b\r\n" % (subject.encode(), reply.encode(), size, payload)
        self.stats["out_msgs"] += 1
        self.stats["out_bytes"] += len(payload)
        self._pending.append(command)
        self._pending_data_size += len(command)
        # One wake-up in the queue flushes all that waits; without a connection there is nobody to wake.
        if self._flush_queue is not None and self._flush_queue.empty() and self.is_connected:
            self._flush_queue.put_nowait(asyncio.get_running_loop().create_future())


class _Parser:
    """Cuts what the server sends into messages; whatever is not for a sink goes to the driver's own parser, piece by piece.

    The regular expressions, copies and coroutines of that one cost three microseconds for each message.
    """

    def __init__(self, nc: Driver, sinks: dict[int, Sink]) -> None:
        self._nc = nc
        self._sinks = sinks
        self._others = Parser(nc)
        self._rest = b""

    def reset(self) -> None:
        """Forget a message that was half received: a new connection begins."""
        self._rest = b""
        self._others.reset()

    async def parse(self, data: bytes = b"") -> None:
        """Take what came from the network, cut anywhere.

        Raises:
            nats.errors.ProtocolError: it is not what a NATS server sends.
        """
        data = self._rest + data
        start = count = size = 0
        while (end := data.find(b"\r\n", start)) >= 0:
            # Anybody may publish on a subject that is no text: one such message must not end the reading of all others.
            words = data[start:end].decode("utf-8", "replace").split()
            head = body = stop = end + 2
            receive = None
            if words and words[0] in ("MSG", "HMSG"):
                # MSG <subject> <sid> [reply] <size>, HMSG <subject> <sid> [reply] <size of headers> <size>
                try:
                    if words[0] == "HMSG":
                        body += int(words.pop(-2))
                    stop += int(words[-1]) + 2
                    receive = self._sinks.get(int(words[2]))
                except (ValueError, IndexError) as exc:
                    raise errors.ProtocolError(f"nats: malformed message: {words}") from exc
                if len(data) < stop:
                    break
            if receive is None:
                try:
                    await self._others.parse(data[start:stop])
                except UnicodeDecodeError as exc:
                    log.error("message_lost", subject=words[1:2], error=repr(exc))
                    self._others.reset()
            else:
                reply = words[3] if len(words) == 5 else ""
                self._nc.hand_over(receive, words[1], reply, data[body : stop - 2], data[head:body] or None)
                count += 1
                size += stop - 2 - body
            start = stop
        self._rest = data[start:]
        self._nc.stats["in_msgs"] += count
        self._nc.stats["in_bytes"] += size


def header_block(headers: dict[str, str]) -> bytes:
    """Headers as they go on the wire.

    Raises:
        ValueError: a value has a line break, which would start a header of its own.
    """
    if not headers:
        return b""
    text = "".join([f"{key}: {value}\r\n" for key, value in headers.items()])
    if text.count("\n") != len(headers):
        raise ValueError(f"expected header values without line breaks, got: {headers!r}")
    return _HEAD + text.encode() + b"\r\n"


def parse_headers(block: bytes | None) -> dict[str, str]:
    """A header block as a dictionary; an inline status comes as ``Status`` and ``Description``."""
    if not block:
        return {}
    first, *lines = block.decode(errors="replace").split("\r\n")
    headers: dict[str, str] = {}
    status = first[len("NATS/1.0") :].strip()
    if status:
        headers["Status"], _, headers["Description"] = status.partition(" ")
    for line in lines:
        key, colon, value = line.partition(":")
        # Only the server's first line is a status: a stored message may carry a header of that name.
        if colon and key not in ("Status", "Description"):
            headers[key.strip()] = value.strip()
    return headers


async def _heeding(call: Coroutine[Any, Any, _T]) -> _T:
    """Await a call that may swallow a cancellation.

    The driver waits with ``asyncio.wait_for``, which on Python 3.11 drops a cancellation that comes together with the
    result: who was told to end would go on for ever, and whoever waits for that end as well.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task is not None else 0
    try:
        return await call
    finally:
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError


async def _unexpected(message: Msg) -> None:
    raise AssertionError(f"a message on {message.subject} missed its sink")
