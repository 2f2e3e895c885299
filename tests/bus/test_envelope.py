"""The envelope: CloudEvents in and out, and rubbish as one sentence."""

from __future__ import annotations

from datetime import UTC
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus import envelope, errors
from bus.envelope import Envelope
from bus.events.invocation import Requested

short = st.text(max_size=20)
envelopes = st.builds(
    Envelope,
    specversion=st.just("1.0"),
    id=short,
    source=short,
    type=short,
    subject=short,
    time=st.datetimes(timezones=st.just(UTC)),
    datacontenttype=st.sampled_from(["", envelope.JSON]),
    dataversion=st.integers(1, 9),
    correlationid=short,
    causationid=short,
    actor=short,
    traceparent=short,
    data=st.from_type(Requested),
)
MINIMAL = {
    "specversion": "1.0",
    "id": "1",
    "source": "/x",
    "type": "t",
    "subject": "s",
    "time": "2026-01-01T00:00:00Z",
    "data": {"a": 1},
}


def fields(event: Envelope) -> dict[str, Any]:
    """The envelope's attributes without its data."""
    return {name: getattr(event, name) for name in event.__struct_fields__ if name != "data"}


@given(envelopes)
def test_envelope_decodes_what_it_encoded(event: Envelope) -> None:
    """Every attribute comes back, and the data as the bytes that were written."""
    again = envelope.decode(envelope.encode(event), "a test")
    assert fields(again) == fields(event)
    assert bytes(again.data) == msgspec.json.encode(event.data)


@given(envelopes)
def test_envelope_encodes_what_it_decoded(event: Envelope) -> None:
    """Reading and writing again changes nothing, so an event can be copied without knowing its data."""
    payload = envelope.encode(event)
    assert envelope.encode(envelope.decode(payload, "a test")) == payload


def test_envelope_reads_what_other_tools_write() -> None:
    """Attributes and extensions that we do not know are no error, and their order does not matter."""
    event = envelope.decode(msgspec.json.encode({"zone": "eu", "dataschema": "x", **MINIMAL}), "a test")
    assert (event.id, event.dataversion, event.actor) == ("1", 1, "")


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"", "truncated"),
        (b"hello", "malformed"),
        (b"\xff\xfe\x00", "malformed"),
        (b"[]", "Expected `object`, got `array`"),
        (b"null", "Expected `object`, got `null`"),
        (b"{}", "missing required field"),
        (msgspec.json.encode(MINIMAL | {"specversion": "0.3"}), "expected specversion '1.0', got: '0.3'"),
        (msgspec.json.encode(MINIMAL | {"id": 7}), "Expected `str`, got `int` - at `$.id`"),
        (msgspec.json.encode(MINIMAL | {"time": "yesterday"}), "Invalid RFC3339"),
        (msgspec.json.encode(MINIMAL | {"time": "2026-01-01T00:00:00"}), "timezone"),
        (msgspec.json.encode(MINIMAL | {"dataversion": "2"}), "dataversion"),
        (b'{"data":' + b"[" * 100_000, "recursion depth"),
        (b'{"id":"\xc3\x28"}', "invalid"),
    ],
)
def test_envelope_refuses_rubbish_with_its_place(payload: bytes, why: str) -> None:
    """Whatever somebody publishes is a BadEvent that names the place and the reason, never another exception."""
    with pytest.raises(errors.BadEvent) as caught:
        envelope.decode(payload, "inv.a (sequence 7)")
    assert str(caught.value).startswith("expected an event at inv.a (sequence 7), got something else: ")
    assert why.lower() in caught.value.why.lower()


@given(st.binary(max_size=60))
def test_envelope_takes_any_bytes_without_another_exception(payload: bytes) -> None:
    """Random bytes are a BadEvent too."""
    with pytest.raises(errors.BadEvent):
        envelope.decode(payload, "a test")
