"""The catalogue of events: whole, unambiguous, and every event can be written and read back."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bus import errors, events, upcasters

WHERE = "a test"


def test_events_types_and_structs_name_each_other() -> None:
    """Each Struct has one type and each type one Struct: nothing is listed twice."""
    assert len(events.TYPES) == len(events.NAMES) == len(events.CATALOGUE)
    for type_, struct in events.CATALOGUE.items():
        assert events.TYPES[struct] == type_
        assert type_ == "systems.{}.{}".format(*events.NAMES[struct])
        assert re.fullmatch(r"systems\.[a-z]+\.[a-z_]+", type_)


@pytest.mark.parametrize("type_", sorted(events.CATALOGUE))
def test_events_are_frozen_and_described(type_: str) -> None:
    """A fact cannot be changed, leaves out what is default, and says what it means."""
    struct = events.CATALOGUE[type_]
    assert struct.__struct_config__.frozen
    assert struct.__struct_config__.omit_defaults
    assert struct.__doc__


@pytest.mark.parametrize("type_", sorted(events.CATALOGUE))
def test_events_round_trip(type_: str) -> None:
    """Any event is read back as it was written, and writing it again gives the same bytes."""

    @settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.from_type(events.CATALOGUE[type_]))
    def holds(data: msgspec.Struct) -> None:
        """One event."""
        raw = msgspec.json.encode(data)
        again = upcasters.read(type_, 1, raw, WHERE)
        assert type(again) is type(data)
        assert msgspec.json.encode(again) == raw

    holds()


@given(*[st.from_type(events.invocation.Usage)] * 3)
def test_usage_adds_up(a: events.invocation.Usage, b: events.invocation.Usage, c: events.invocation.Usage) -> None:
    """Adding uses is associative, nothing is the neutral use, and the later model's name wins."""
    assert (a + b) + c == a + (b + c)
    assert a + events.invocation.Usage() == events.invocation.Usage() + a == a
    assert (a + b).input_tokens == a.input_tokens + b.input_tokens
    assert (a + b).model == (b.model or a.model)


@pytest.mark.parametrize("text", ["2026-01-01T00:00:00", "2026-01-01", "soon", ""])
def test_events_refuse_times_without_an_offset(text: str) -> None:
    """A time that names no instant is rubbish here, and not an exception at its first comparison."""
    raw = msgspec.json.encode({"due": text, "request": {}})
    with pytest.raises(errors.BadEvent, match="due"):
        upcasters.read("systems.invocation.scheduled", 1, raw, WHERE)


def test_events_keep_the_input_untouched() -> None:
    """Input is carried as the bytes that were given: no number loses a digit."""
    raw = b'{"input":{"n": 1.10, "big":123456789012345678901234567890}}'
    assert bytes(upcasters.read("systems.invocation.requested", 1, raw, WHERE).input) == raw[9:-1]


def test_events_take_times_of_any_offset() -> None:
    """An instant may be written in any zone."""
    raw = b'{"due":"2026-01-01T02:00:00+02:00","request":{}}'
    assert upcasters.read("systems.invocation.scheduled", 1, raw, WHERE).due == datetime(2026, 1, 1, tzinfo=UTC)
