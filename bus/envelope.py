"""The envelope: CloudEvents 1.0, structured JSON (https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md).

Any tool can read what is on the bus. ``data`` is encoded from a Struct and read back in two steps: the envelope first,
with ``data`` left raw, then the data by the envelope's ``type``. So a reader that only routes never pays for the body,
and a body that does not parse still has a readable envelope.
"""

from __future__ import annotations

from typing import Any

import msgspec

from bus import errors
from bus.events.moment import Moment


class Envelope(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event as it lies on the wire. Extension names follow CloudEvents: lower case, no separators."""

    specversion: str
    #: Made once, before the first try; also the ``Nats-Msg-Id``.
    id: str
    #: Who wrote it: ``/<daemon>/<boot id>``.
    source: str
    #: ``systems.<noun>.<event>``.
    type: str
    #: The NATS subject it was published on.
    subject: str
    #: When the writer decided it, UTC.
    time: Moment
    datacontenttype: str = ""
    #: Version of the shape of ``data``; absent means 1. See ``bus.upcasters``.
    dataversion: int = 1
    #: Root of the run tree: the invocation that everything in it goes back to.
    correlationid: str = ""
    #: Id of the event that caused this one.
    causationid: str = ""
    #: The person, role or daemon on whose behalf it was written.
    actor: str = ""
    #: W3C trace context.
    traceparent: str = ""
    #: A Struct when writing; ``msgspec.Raw`` when read by :func:`decode`.
    data: Any


class _RawEnvelope(Envelope, frozen=True, kw_only=True):
    data: msgspec.Raw


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_RawEnvelope)
JSON = "application/json"


def encode(envelope: Envelope) -> bytes:
    """The envelope as JSON bytes."""
    return _encoder.encode(envelope)


def decode(payload: bytes, where: str) -> Envelope:
    """Read an envelope; its ``data`` stays ``msgspec.Raw``.

    Raises:
        BadEvent: the bytes are not a CloudEvents 1.0 JSON object; `where` names the place in the message.
    """
    try:
        envelope = _decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise errors.BadEvent(where, str(exc)) from exc
    if envelope.specversion != "1.0":
        raise errors.BadEvent(where, f"expected specversion '1.0', got: {envelope.specversion!r}")
    return envelope
