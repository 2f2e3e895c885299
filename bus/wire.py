"""The one place that knows JetStream's wire: header names, error codes, acknowledgement subjects, JSON requests.

nats-py has no wrapper for atomic batches, batched direct gets, schedules, counters or consumer pauses; they are plain
headers and JSON requests on ``$JS.API``. The numbers below are the server's own (``server/errors.json``) and the rules
those of the NATS ADRs named beside them (https://github.com/nats-io/nats-architecture-and-design).
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import msgspec
from nats import errors as driver
from nats.aio.client import Client

from bus import errors
from bus.driver import parse_headers

#: ADR-4: headers. The fence compares the last sequence over a subject filter.
EXPECTED = "Nats-Expected-Last-Subject-Sequence"
EXPECTED_SCOPE = "Nats-Expected-Last-Subject-Sequence-Subject"
#: The same over the whole stream.
EXPECTED_LAST = "Nats-Expected-Last-Sequence"
MSG_ID = "Nats-Msg-Id"
#: ADR-50: atomic batch publishing.
BATCH_ID = "Nats-Batch-Id"
BATCH_SEQUENCE = "Nats-Batch-Sequence"
BATCH_COMMIT = "Nats-Batch-Commit"
#: ADR-43: time to live of one message.
TTL = "Nats-TTL"
#: ADR-49: counters.
INCREMENT = "Nats-Incr"
#: ADR-51: schedules.
SCHEDULE = "Nats-Schedule"
SCHEDULE_TARGET = "Nats-Schedule-Target"
SCHEDULE_TTL = "Nats-Schedule-TTL"
SCHEDULE_ZONE = "Nats-Schedule-Time-Zone"

#: Messages that one atomic batch may hold (ADR-50; the server refuses more with 10199).
BATCH_LIMIT = 1000

ACK = b"+ACK"
TERM = b"+TERM"
IN_PROGRESS = b"+WPI"


def fence(message_id: str, expect: int | None, scope: str) -> bytes:
    """The header block of a fenced append, made in one piece: it is on the path of every event.

    `message_id` and `scope` are made of ids and names that are subject tokens, so they hold no line breaks.
    """
    if expect is None:
        return f"NATS/1.0\r\n{MSG_ID}: {message_id}\r\n\r\n".encode()
    return (f"NATS/1.0\r\n{MSG_ID}: {message_id}\r\n{EXPECTED}: {expect}\r\n{EXPECTED_SCOPE}: {scope}\r\n\r\n").encode()


class Code(IntEnum):
    """Error codes that are told apart; all others are reported as they come."""

    STREAM_NOT_FOUND = 10059
    CONSUMER_NOT_FOUND = 10014
    MESSAGE_NOT_FOUND = 10037
    #: ``wrong last sequence``: the fence.
    WRONG_LAST_SEQUENCE = 10071
    #: ``wrong last sequence`` with constant text, from newer servers.
    WRONG_LAST_SEQUENCE_CONSTANT = 10164
    #: ``maximum bytes exceeded``: how a frozen stream refuses.
    STORE_FULL = 10077
    #: ``insufficient resources``: the server's storage limit, taken from its disk at its start.
    NO_RESOURCES = 10023
    #: ``insufficient storage resources available``.
    NO_STORAGE = 10047
    #: A repeated message id inside an atomic batch.
    BATCH_DUPLICATE = 10201
    #: The commit of an atomic batch arrived, and not all members before it.
    BATCH_INCOMPLETE = 10176


_CONFLICTS = frozenset({Code.WRONG_LAST_SEQUENCE, Code.WRONG_LAST_SEQUENCE_CONSTANT})


class ApiError(msgspec.Struct, frozen=True):
    """The error object of a JetStream answer."""

    code: int = 0
    err_code: int = 0
    description: str = ""


class PubAck(msgspec.Struct, frozen=True):
    """The server's answer to an acknowledged publish."""

    stream: str = ""
    seq: int = 0
    duplicate: bool = False
    #: New total of a counter, as text.
    val: str = ""
    error: ApiError | None = None


class Delivery(msgspec.Struct, frozen=True):
    """One message handed out by a consumer."""

    subject: str
    data: bytes
    #: Acknowledgement subject.
    reply: str
    seq: int
    #: Server's delivery count, from 1.
    delivery: int
    #: Consumer's own sequence: without a gap while nothing is lost.
    consumer_seq: int
    #: Stored at, nanoseconds since the Unix epoch.
    stored_ns: int
    #: Messages that still wait behind this one.
    pending: int
    header_block: bytes | None = None

    @property
    def headers(self) -> dict[str, str]:
        """Parsed at each look: most readers never look."""
        return parse_headers(self.header_block)


decode_ack = msgspec.json.Decoder(PubAck).decode


def refusal(what: str, error: ApiError) -> errors.ServerError:
    """The server's error as one of ours, told apart by code and never by text."""
    code = error.err_code or error.code
    if code in _CONFLICTS:
        return errors.SequenceConflict(what, code, error.description)
    if code == Code.STORE_FULL:
        return errors.StreamFrozen(what, code, error.description)
    if code in (Code.NO_RESOURCES, Code.NO_STORAGE):
        return errors.StoreFull(what, code, error.description)
    return errors.ServerError(what, code, error.description)


def delivery(subject: str, data: bytes, reply: str, header_block: bytes | None = None) -> Delivery:
    """A consumer's message, with the facts that its reply subject carries (ADR-15).

    Raises:
        ValueError: `reply` is no acknowledgement subject.
    """
    t = reply.split(".")
    if len(t) < 9 or t[1] != "ACK":
        raise ValueError(f"expected an acknowledgement subject $JS.ACK.<...>, got: {reply!r}")
    # $JS.ACK.<stream>.<consumer>.<delivery>.<seq>.<consumer seq>.<ns>.<pending>, since 2.9 optionally with
    # <domain>.<account hash> after ACK and a random token at the end.
    o = 2 if len(t) >= 11 else 0
    return Delivery(
        subject, data, reply, int(t[5 + o]), int(t[4 + o]), int(t[6 + o]), int(t[7 + o]), int(t[8 + o]), header_block
    )


def ack_subject(stream: str, consumer: str, seq: int) -> str:
    """Where the delivery of a stream sequence is acknowledged by whoever does not have it.

    The server looks at the stream sequence alone: with explicit acknowledgements one delivery of it is under way.
    """
    return f"$JS.ACK.{stream}.{consumer}.1.{seq}.{seq}.0.0"


def nak(delay_s: float) -> bytes:
    """A negative acknowledgement: deliver again after `delay_s`."""
    return b'-NAK {"delay": %d}' % max(0, int(delay_s * 1e9))


async def api(nc: Client, subject: str, body: Any = None, *, timeout: float = 5.0) -> dict[str, Any]:
    """One JSON request on ``$JS.API.<subject>``.

    Raises:
        ServerError: the server refused it, or has no JetStream.
        Unanswered: no answer within `timeout` seconds.
    """
    payload = b"" if body is None else msgspec.json.encode(body)
    what = f"$JS.API.{subject}"
    try:
        answer = await nc.request(what, payload, timeout=timeout)
    except driver.NoRespondersError as exc:
        raise errors.ServerError(what, 503, "JetStream is not enabled, or not for this account") from exc
    except (driver.TimeoutError, driver.ConnectionClosedError, driver.OutboundBufferLimitError) as exc:
        raise errors.Unanswered(what, timeout) from exc
    decoded: dict[str, Any] = msgspec.json.decode(answer.data)
    if "error" in decoded:
        raise refusal(what, msgspec.convert(decoded["error"], ApiError))
    return decoded
