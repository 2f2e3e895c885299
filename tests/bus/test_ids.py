"""Identifiers: legal UUIDs, sortable where they promise it, derived where they promise it."""

from __future__ import annotations

import time
import uuid
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus import ids, subjects

moments = st.datetimes(datetime(1980, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 (hypothesis adds the zone)
texts = st.text(max_size=40)


def milliseconds(id_: str) -> int:
    """The time in a UUIDv7."""
    return uuid.UUID(id_).int >> 80


def test_ids_new_is_a_uuid_of_version_7() -> None:
    """A new id is a UUIDv7 of the RFC's variant, in the usual text form, and a legal subject token."""
    for _ in range(200):
        made = ids.new_id()
        parsed = uuid.UUID(made)
        assert (parsed.version, parsed.variant, str(parsed)) == (7, uuid.RFC_4122, made)
        assert subjects.check_token("an id", made) == made


def test_ids_new_carries_the_present_millisecond() -> None:
    """A new id begins with the time of its making, so ids sort by it."""
    before = time.time_ns() // 1_000_000
    made = ids.new_id()
    assert before <= milliseconds(made) <= time.time_ns() // 1_000_000


def test_ids_new_sorts_by_its_millisecond(monkeypatch: pytest.MonkeyPatch) -> None:
    """As text, an id of a later millisecond is always behind one of an earlier."""
    made: list[str] = []
    for ns in range(1_700_000_000_000_000_000, 1_700_000_000_300_000_000, 1_000_000):
        monkeypatch.setattr(time, "time_ns", lambda ns=ns: ns)
        made.append(ids.new_id())
    assert made == sorted(made)


def test_ids_new_never_repeats() -> None:
    """Ten thousand ids of the same few milliseconds are ten thousand."""
    assert len({ids.new_id() for _ in range(10_000)}) == 10_000


@given(texts, moments)
def test_ids_due_is_determined_by_name_and_time(name: str, due: datetime) -> None:
    """The same name and due time give the same UUIDv7, which carries the due time's millisecond."""
    made = ids.due_id(name, due)
    parsed = uuid.UUID(made)
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert made == ids.due_id(name, due)
    assert milliseconds(made) == int(due.timestamp() * 1000)
    assert made != ids.due_id(name + "x", due)
    assert made != ids.due_id(name, due + timedelta(seconds=1))


@given(texts, moments, st.integers(-12, 14))
def test_ids_due_does_not_depend_on_the_zone(name: str, due: datetime, hours: int) -> None:
    """One instant has one id, whatever zone it is written in."""
    elsewhere = due.astimezone(timezone(timedelta(hours=hours)))
    assert ids.due_id(name, elsewhere) == ids.due_id(name, due)


@given(texts, texts, texts)
def test_ids_key_is_determined_by_scope_and_key(scope: str, key: str, other: str) -> None:
    """The same key in the same scope is the same UUIDv8; another scope or key is another."""
    made = ids.key_id(scope, key)
    parsed = uuid.UUID(made)
    assert (parsed.version, parsed.variant) == (8, uuid.RFC_4122)
    assert made == ids.key_id(scope, key)
    if other != key:
        assert made != ids.key_id(scope, other)
    if other != scope:
        assert made != ids.key_id(other, key)
