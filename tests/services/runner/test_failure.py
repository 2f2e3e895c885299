"""Failures: what an exception becomes in the event, and which errors count as the same."""

from __future__ import annotations

import re
import uuid

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runner.failure import HandlerError, classify, fingerprint
from services.runner.handler import Permanent, RetryAfter

words = st.text(alphabet="ghijklmnopqrstuvwxyz ", max_size=40)


class Broken(Exception):
    def __str__(self) -> str:
        raise ValueError


@given(words, st.integers(), st.integers())
def test_fingerprint_ignores_numbers(text: str, one: int, other: int) -> None:
    """Two errors that differ only in a number are the same error."""
    assert fingerprint("K", f"{text} after {one} s") == fingerprint("K", f"{text} after {other} s")


@given(words, st.uuids(), st.uuids())
def test_fingerprint_ignores_ids(text: str, one: uuid.UUID, other: uuid.UUID) -> None:
    """Two errors that differ only in a UUID or a digest are the same error."""
    assert fingerprint("K", f"{text} {one}") == fingerprint("K", f"{text} {other}")
    assert fingerprint("K", f"{text} {one.hex}") == fingerprint("K", f"{text} {other.hex}")


@given(words, st.text(), st.text())
def test_fingerprint_ignores_quoted_text(text: str, one: str, other: str) -> None:
    """Two errors that differ only in a quoted value are the same error."""
    assert fingerprint("K", f"{text} got {one!r} here") == fingerprint("K", f"{text} got {other!r} here")


@given(st.ip_addresses(v=4), st.integers(1, 65535), st.integers(0, 2**64))
def test_fingerprint_ignores_addresses(host: object, port: int, memory: int) -> None:
    """Network and memory addresses do not make another error."""
    plain = fingerprint("K", "no answer from 127.0.0.1:4222 for <object at 0x7f00>")
    assert fingerprint("K", f"no answer from {host}:{port} for <object at {memory:#x}>") == plain


@given(st.text(), st.text())
def test_fingerprint_is_twelve_hexadecimal_digits(kind: str, message: str) -> None:
    """Any text has a fingerprint of 12 hexadecimal digits, and always the same one."""
    assert re.fullmatch("[0-9a-f]{12}", fingerprint(kind, message))
    assert fingerprint(kind, message) == fingerprint(kind, message)


def test_fingerprint_tells_kinds_and_words_apart() -> None:
    """Another kind or another sentence is another error, and so are words around apostrophes."""
    prints = [
        fingerprint("exit_1", "the disk is full"),
        fingerprint("exit_2", "the disk is full"),
        fingerprint("exit_1", "the queue is full"),
        fingerprint("exit_1", "can't read the server's file"),
        fingerprint("exit_1", "can't write the server's file"),
    ]
    assert len(set(prints)) == len(prints)


@given(st.text(alphabet=st.characters(), max_size=5000), st.sampled_from([ValueError, Permanent, OSError, SystemExit]))
def test_classify_always_fits_the_event(text: str, kind: type[BaseException]) -> None:
    """Whatever the text, the error can be encoded and stays within the limits of the event."""
    error, _ = classify(kind(text))
    assert msgspec.json.encode(error)
    assert error.message
    assert len(error.message) <= 2000
    assert len(error.detail) <= 4000
    assert error.kind == kind.__name__


@pytest.mark.parametrize(
    ("exc", "kind", "permanent", "delay"),
    [
        (ValueError("no"), "ValueError", False, None),
        (Permanent("no"), "Permanent", True, None),
        (RetryAfter(7.5, "no"), "RetryAfter", False, 7.5),
        (HandlerError("http_503", "no", retry_after=3.0), "http_503", False, 3.0),
        (HandlerError("exit_65", "no", permanent=True), "exit_65", True, None),
        (ExceptionGroup("one", [ExceptionGroup("inner", [Permanent("no")])]), "Permanent", True, None),
        (ExceptionGroup("two", [RetryAfter(1, "a"), RetryAfter(2, "b")]), "ExceptionGroup", False, 2),
    ],
)
def test_classify_tells_errors_apart(exc: Exception, kind: str, permanent: bool, delay: float | None) -> None:
    """Permanent errors, errors with a delay of their own, and all others are told apart, also inside groups."""
    error, seconds = classify(exc)
    assert (error.kind, error.permanent, seconds) == (kind, permanent, delay)


def test_classify_says_something_of_silent_and_broken_errors() -> None:
    """An error without text, or whose text raises, still has a message."""
    assert classify(TimeoutError())[0].message == "TimeoutError without a message"
    assert classify(Broken())[0].message == "Broken, whose text cannot be read: ValueError"


def test_classify_keeps_the_end_of_the_traceback_or_the_handlers_own_detail() -> None:
    """The detail is the end of the traceback, or what the handler knew better."""
    with pytest.raises(KeyError) as caught:
        raise KeyError("missing")
    assert classify(caught.value)[0].detail.rstrip().endswith("KeyError: 'missing'")
    assert classify(HandlerError("exit_1", "no", detail="x" * 5000 + "end"))[0].detail == "x" * 3997 + "end"
