"""The wire: reply subjects, refusals by code, and the shape of what is sent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus import driver, errors, wire

numbers = st.integers(0, 2**63 - 1)
names = st.from_regex(r"[A-Za-z0-9_-]{1,20}", fullmatch=True)


@given(names, names, numbers, numbers, numbers, numbers, numbers, st.sampled_from(["short", "long", "token"]))
def test_wire_delivery_reads_both_reply_formats(
    stream: str, consumer: str, delivery: int, seq: int, consumer_seq: int, ns: int, pending: int, form: str
) -> None:
    """The same facts come out of the old acknowledgement subject and of the one with domain, account and token."""
    facts = f"{stream}.{consumer}.{delivery}.{seq}.{consumer_seq}.{ns}.{pending}"
    reply = {
        "short": f"$JS.ACK.{facts}",
        "long": f"$JS.ACK._.ACCHASH.{facts}",
        "token": f"$JS.ACK.hub.ACCHASH.{facts}.tok",
    }
    read = wire.delivery("inv.x", b"data", reply[form], b"NATS/1.0\r\nA: b\r\n\r\n")
    assert (read.delivery, read.seq, read.consumer_seq) == (delivery, seq, consumer_seq)
    assert (read.stored_ns, read.pending) == (ns, pending)
    assert (read.subject, read.data, read.reply, read.headers) == ("inv.x", b"data", reply[form], {"A": "b"})


@pytest.mark.parametrize("reply", ["", "_INBOX.a.b", "$JS.ACK.a.b", "$JS.ACK.a.b.x.1.1.1.1", "a.b.c.d.1.1.1.1.1"])
def test_wire_delivery_refuses_other_reply_subjects(reply: str) -> None:
    """A reply that is no acknowledgement subject is a ValueError."""
    with pytest.raises(ValueError, match=r"\$JS\.ACK|invalid literal"):
        wire.delivery("s", b"", reply)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (10071, errors.SequenceConflict),
        (10164, errors.SequenceConflict),
        (10077, errors.StreamFrozen),
        (10059, errors.ServerError),
        (10201, errors.ServerError),
    ],
)
def test_wire_refusal_is_told_apart_by_code(code: int, kind: type[errors.ServerError]) -> None:
    """The class follows from the code alone, and the text is only quoted."""
    made = wire.refusal("a publish", wire.ApiError(code=400, err_code=code, description="wrong last sequence: 7"))
    assert type(made) is kind
    assert (made.code, made.description) == (code, "wrong last sequence: 7")


def test_wire_refusal_without_its_own_code_keeps_the_status() -> None:
    """An answer that has only an HTTP-like status is reported with that."""
    assert wire.refusal("a read", wire.ApiError(code=503, description="no")).code == 503


@pytest.mark.parametrize(
    ("seconds", "sent"),
    [(0, b'-NAK {"delay": 0}'), (1.5, b'-NAK {"delay": 1500000000}'), (-3, b'-NAK {"delay": 0}')],
)
def test_wire_nak_delays_in_nanoseconds(seconds: float, sent: bytes) -> None:
    """A delay is sent in nanoseconds, and never below zero."""
    assert wire.nak(seconds) == sent


@given(st.dictionaries(names, st.from_regex(r"[!-~]{1,20}", fullmatch=True), max_size=5))
def test_wire_headers_round_trip(headers: dict[str, str]) -> None:
    """A header block is read back as it was made."""
    assert driver.parse_headers(driver.header_block(headers)) == headers


@pytest.mark.parametrize("value", ["a\r\nNats-Rollup: all", "a\nb"])
def test_wire_headers_refuse_line_breaks(value: str) -> None:
    """A value cannot smuggle in a header of its own."""
    with pytest.raises(ValueError, match="without line breaks"):
        driver.header_block({"A": value})


@pytest.mark.parametrize(
    ("block", "headers"),
    [
        (None, {}),
        (b"NATS/1.0 503\r\n\r\n", {"Status": "503", "Description": ""}),
        (b"NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 3\r\n\r\n",
         {"Status": "408", "Description": "Request Timeout", "Nats-Pending-Messages": "3"}),
        (b"NATS/1.0\r\nA: \xff: b\r\nrubbish\r\n\r\n", {"A": "\ufffd: b"}),
    ],
)  # fmt: skip
def test_wire_headers_read_statuses_and_survive_rubbish(block: bytes | None, headers: dict[str, str]) -> None:
    """An inline status is found, and bytes that are no header are stepped over."""
    assert driver.parse_headers(block) == headers
