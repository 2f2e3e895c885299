"""The log: append under a fence, read back.

Every event of an invocation is appended with the sequence of the one before it as its fence: of two writers one wins.
An unanswered append is tried again with the same id and the same fence until there is an answer; after it the fence
itself may look stale, because the first try was stored. So a conflict is believed only after the history was read and
holds no event with our id.

Nothing here gives up by itself: a caller that must not wait for an absent server puts a time limit around the call.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec
import structlog
from nats import errors as driver

from bus import envelope as ce
from bus import errors, invocation, upcasters, wire
from bus.connection import Connection
from bus.driver import parse_headers
from bus.publisher import Publisher
from bus.subjects import Ref, parse_event, type_of

log = structlog.get_logger()

INVOCATIONS = "INVOCATIONS"
CONTROL = "CONTROL"
DEAD_LETTERS = "DEAD_LETTERS"

#: Messages asked for in one batched direct get; the server's own limit is 1,000 (ADR-31).
_PAGE = 500


class Append(msgspec.Struct, frozen=True):
    """One event to append."""

    event: ce.Envelope
    #: Last sequence that the writer has seen in `scope`; 0 means that there is none; None is no fence.
    expect: int | None = None
    #: Subject filter that the fence is compared over.
    scope: str = ""


class Recorded(msgspec.Struct, frozen=True):
    """One message as it lies in a stream."""

    seq: int
    subject: str
    stored_at: datetime
    #: None when the message is rubbish; `problem` says why.
    event: ce.Envelope | None
    #: The event's Struct, or None.
    data: Any
    problem: str = ""
    raw: bytes = b""


class Message(msgspec.Struct, frozen=True):
    """One message as it lies in a stream, whatever it is."""

    seq: int
    subject: str
    stored_at: datetime
    data: bytes
    #: Its own, and those that the server adds when it is read.
    headers: dict[str, str]


def read(seq: int, subject: str, stored_at: datetime, payload: bytes) -> Recorded:
    """A stored message as an event; rubbish becomes a record with a `problem` instead of an exception."""
    where = f"{subject} (sequence {seq})"
    try:
        event = ce.decode(payload, where)
        data = upcasters.read(event.type, event.dataversion, event.data, where)
    except errors.BadEvent as exc:
        return Recorded(seq, subject, stored_at, None, None, exc.why, payload)
    if event.type != type_of(subject):
        # An event of another noun would surprise whoever folds what lies on these subjects.
        why = f"expected type {type_of(subject)!r}, got: {event.type!r}"
        return Recorded(seq, subject, stored_at, None, None, why, payload)
    if event.subject != subject:
        # A copy of an event that was written elsewhere, for something else.
        why = f"expected an event of {subject!r}, got one of {event.subject!r}"
        return Recorded(seq, subject, stored_at, None, None, why, payload)
    return Recorded(seq, subject, stored_at, event, data, "", payload)


def fold(records: Sequence[Recorded]) -> invocation.Invocation | None:
    """The present state of an invocation. Rubbish among its events moves the fence and nothing else."""
    state: invocation.Invocation | None = None
    for record in records:
        if record.data is not None:
            state = invocation.evolve(state, record.data, record.seq, record.stored_at)
        elif state is not None:
            state = msgspec.structs.replace(state, last_seq=record.seq)
    return state


class Store:
    """Appends to and reads from the streams of the bus."""

    def __init__(self, connection: Connection, publisher: Publisher) -> None:
        self._connection = connection
        self._publisher = publisher
        #: Highest sequence of INVOCATIONS that an append of ours got; 0 for none yet.
        self.last_written = 0

    async def append(self, event: ce.Envelope, *, expect: int | None = None, scope: str = "") -> int:
        """Append one event and wait until it is stored: its stream sequence.

        Raises:
            SequenceConflict: `scope` has moved on, and not by this event.
            StreamFrozen, ServerError, PayloadTooLarge: the server will not take it.
        """
        headers = wire.fence(event.id, expect, scope)
        payload = ce.encode(event)
        while True:
            try:
                return self._noted(await self._publisher.publish_nowait(event.subject, payload, headers))
            except errors.SequenceConflict:
                stored = await self._find(event, scope)
                if stored is None:
                    raise
                return stored
            except errors.Unanswered as exc:
                log.warning("append_unanswered", subject=event.subject, event_id=event.id, error=str(exc))
                await self._connection.ready()
                stored = await self._find(event, scope)
                if stored is not None:
                    return stored

    async def append_batch(self, batch: Sequence[Append]) -> int:
        """Append all events or none, one after the other in the stream: the last one's sequence.

        A fence compares with the state before the batch, so of several events of one invocation only the first needs it.

        Raises:
            SequenceConflict: one fence did not hold, and the batch was not stored by an earlier try.
            Conflict: no event, or more than :data:`bus.wire.BATCH_LIMIT`.
        """
        if len(batch) == 1:
            return await self.append(batch[0].event, expect=batch[0].expect, scope=batch[0].scope)
        if not batch:
            raise errors.Conflict("expected at least one event in a batch, got: none")
        if len(batch) > wire.BATCH_LIMIT:
            raise errors.Conflict(f"expected at most {wire.BATCH_LIMIT:,} events in one batch, got: {len(batch):,}")
        tries = 0
        while True:
            # A batch id names one try: the server keeps the members of an unfinished batch for a while.
            tries += 1
            try:
                return await self._publish_batch(batch, f"{batch[0].event.id}-{tries}")
            except errors.ServerError as exc:
                if exc.code == wire.Code.BATCH_INCOMPLETE:
                    # The connection broke between its members: the server dropped those that it had.
                    log.warning("batch_torn", subject=batch[0].event.subject)
                    continue
                if not isinstance(exc, errors.SequenceConflict) and exc.code != wire.Code.BATCH_DUPLICATE:
                    raise
                stored = await self._find(batch[-1].event, batch[-1].scope or batch[-1].event.subject)
                if stored is None:
                    raise
                return stored
            except errors.Unanswered as exc:
                log.warning("batch_unanswered", subject=batch[0].event.subject, error=str(exc))
                await self._connection.ready()
                stored = await self._find(batch[-1].event, batch[-1].scope or batch[-1].event.subject)
                if stored is not None:
                    return stored

    async def _publish_batch(self, batch: Sequence[Append], batch_id: str) -> int:
        for position, item in enumerate(batch, 1):
            headers = {
                wire.MSG_ID: item.event.id,
                wire.BATCH_ID: batch_id,
                wire.BATCH_SEQUENCE: str(position),
            }
            if item.expect is not None:
                headers[wire.EXPECTED] = str(item.expect)
                headers[wire.EXPECTED_SCOPE] = item.scope
            payload = ce.encode(item.event)
            if position == len(batch):
                headers[wire.BATCH_COMMIT] = "1"
                return self._noted(await self._publisher.publish(item.event.subject, payload, headers))
            self._publisher.send(item.event.subject, payload, headers)
        raise AssertionError("a batch has at least one event")

    def _noted(self, ack: wire.PubAck) -> int:
        if ack.stream == INVOCATIONS:
            self.last_written = ack.seq
        return ack.seq

    async def _find(self, event: ce.Envelope, scope: str) -> int | None:
        """The sequence under which the event was stored by an earlier try, if it was."""
        stream = stream_of(event.subject)
        async with aclosing(self.read(stream, scope or event.subject)) as records:
            async for record in records:
                if record.event is not None and record.event.id == event.id:
                    return record.seq
        return None

    async def history(self, ref: Ref) -> list[Recorded]:
        """All events of one invocation, in order. Empty when there is no such invocation."""
        return [record async for record in self.read(INVOCATIONS, ref.all)]

    async def state(self, ref: Ref) -> invocation.Invocation | None:
        """The present state of one invocation; None when there is no such invocation."""
        return fold(await self.history(ref))

    async def find(self, id_: str) -> Ref | None:
        """Which project and role an invocation id belongs to."""
        async with aclosing(self.read(INVOCATIONS, f"inv.*.*.{id_}.*", limit=1)) as records:
            async for record in records:
                return parse_event(record.subject)[0]
        return None

    async def last(self, stream: str, filter_: str) -> Recorded | None:
        """The last message in the stream that matches the filter."""
        found = [message async for message in self._get(stream, {"last_by_subj": filter_})]
        return _record(found[0]) if found else None

    async def since(self, stream: str, filter_: str, at: datetime) -> tuple[int, int]:
        """The first message from a time on that matches the filter, and how many there are: (sequence, count).

        Of no such message both are 0.
        """
        body = {
            "next_by_subj": filter_,
            "start_time": at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
            "batch": 1,
        }
        found = [message async for message in self._get(stream, body)]
        if not found:
            return 0, 0
        return found[0].seq, 1 + int(found[0].headers.get("Nats-Num-Pending", "0"))

    async def read(
        self, stream: str, filter_: str, *, start: int = 1, limit: int = 0
    ) -> AsyncGenerator[Recorded, None]:
        """Events of a stream that match the filter, from sequence `start` on; `limit` 0 is all of them."""
        async with aclosing(self.messages(stream, filter_, start=start, limit=limit)) as messages:
            async for message in messages:
                yield _record(message)

    async def messages(
        self, stream: str, filter_: str, *, start: int = 1, limit: int = 0
    ) -> AsyncGenerator[Message, None]:
        """The same, as plain messages that need not be events."""
        left = limit
        while True:
            page = min(_PAGE, left) if limit else _PAGE
            count, pending = 0, "0"
            body = {"seq": start, "next_by_subj": filter_, "batch": page}
            async with aclosing(self._get(stream, body)) as messages:
                async for message in messages:
                    count += 1
                    start = message.seq + 1
                    # The server ends a batch early at its max_pending, 64 MB: a short page need not be the last.
                    pending = message.headers.get("Nats-Num-Pending", "0")
                    yield message
            left -= count
            if pending == "0" or (limit and left <= 0):
                return

    async def _get(self, stream: str, body: dict[str, Any], *, timeout: float = 5.0) -> AsyncGenerator[Message, None]:
        """A direct get (ADR-31): one message, or with ``batch`` several and an end marker."""
        nc = self._connection.nc
        batched = "batch" in body
        seen = 0
        # The end marker may be what was lost: nothing is left to ask for then.
        while not batched or body["batch"] > 0:
            answers: asyncio.Queue[tuple[bytes, bytes | None]] = asyncio.Queue()
            inbox = nc.new_inbox()
            # The queue is this try's own: an answer to an earlier one that comes late finds nobody.
            subscription = await nc.sink(inbox, partial(_answered, answers))
            try:
                nc.send(f"$JS.API.DIRECT.GET.{stream}", msgspec.json.encode(body), reply=inbox)
                while True:
                    async with asyncio.timeout(timeout):
                        data, block = await answers.get()
                    headers = parse_headers(block)
                    status = headers.get("Status")
                    if status in ("204", "404"):
                        return
                    if status == "503":
                        raise errors.ServerError(
                            f"a read of {stream}", wire.Code.STREAM_NOT_FOUND, "there is no such stream"
                        )
                    if status is not None:
                        raise errors.ServerError(f"a read of {stream}", int(status), headers.get("Description", ""))
                    seen += 1
                    message = _stored(headers, data)
                    if batched:
                        body = body | {"seq": message.seq + 1, "batch": body["batch"] - 1}
                    yield message
                    if not batched:
                        return
            except (TimeoutError, driver.ConnectionClosedError, driver.OutboundBufferLimitError) as exc:
                if nc.is_closed:
                    raise errors.Unanswered(f"a read of {stream}", timeout) from exc
                log.warning("read_unanswered", stream=stream, got=seen)
                await self._connection.ready()
            finally:
                await nc.unsink(subscription)


def stream_of(subject: str) -> str:
    """The stream that holds a subject."""
    match subject.partition(".")[0]:
        case "inv":
            return INVOCATIONS
        case "dlq":
            return DEAD_LETTERS
        case "ctl":
            return CONTROL
        case other:
            raise errors.BadSubject("a subject", subject, f"one of inv.>, ctl.>, dlq.> (not {other}.>)")


def _answered(
    answers: asyncio.Queue[tuple[bytes, bytes | None]], _inbox: str, _reply: str, data: bytes, block: bytes | None
) -> None:
    answers.put_nowait((data, block))


def _stored(headers: dict[str, str], data: bytes) -> Message:
    # The server writes these behind the message's own headers, and the last of a name counts: they cannot be forged.
    stored_at = parse_time(headers["Nats-Time-Stamp"])
    return Message(int(headers["Nats-Sequence"]), headers["Nats-Subject"], stored_at, data, headers)


def _record(message: Message) -> Recorded:
    return read(message.seq, message.subject, message.stored_at, message.data)


def parse_time(text: str) -> datetime:
    """RFC 3339 with nanoseconds, as the server writes it, cut to microseconds."""
    return msgspec.convert(text, datetime).astimezone(UTC)
