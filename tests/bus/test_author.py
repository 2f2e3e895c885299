"""The author: what is stamped on an event."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from bus import events, ids
from bus.author import Author, traceparent
from bus.events.daemon import Started, Stopped
from bus.events.invocation import Completed, Requested
from bus.subjects import Ref

NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
ROOT = "0197c0de-0000-7000-8000-00000000000a"
REF = Ref("shop", "coder", "0197c0de-0000-7000-8000-00000000000b")


class Clock:
    """A clock that stands still."""

    def now(self) -> datetime:
        """Always the same."""
        return NOW

    def monotonic(self) -> float:
        """Always the same."""
        return 0.0


def pen() -> Author:
    """An author whose ids count."""
    numbers = iter(range(1, 99))
    return Author("/runner/boot", actor="ann", clock=Clock(), new_id=lambda: f"id-{next(numbers)}")


def test_author_stamps_an_invocation_event() -> None:
    """Subject and type follow from the Struct, time and id come from the edge, causes are kept."""
    event = pen().invocation(REF, Completed(holder="boot", delivery=1), root=ROOT, cause="c")
    assert (event.id, event.source, event.time, event.actor) == ("id-1", "/runner/boot", NOW, "ann")
    assert (event.type, event.subject) == ("systems.invocation.completed", f"{REF.prefix}.completed")
    assert (event.correlationid, event.causationid) == (ROOT, "c")


def test_author_makes_an_invocation_its_own_root() -> None:
    """Without a root, the invocation itself is the root of its tree and of its trace."""
    event = pen().invocation(REF, Requested())
    assert event.correlationid == REF.id
    assert event.traceparent.split("-")[1] == REF.id.replace("-", "")


def test_author_stamps_a_control_event() -> None:
    """An event about a thing lies on ctl, and a given id makes it the same event again."""
    event = pen().control("boot-1", Stopped(daemon="d", boot_id="b"), event_id="mine", actor="bob")
    assert (event.id, event.subject, event.type) == ("mine", "ctl.daemon.boot-1.stopped", "systems.daemon.stopped")
    assert event.actor == "bob"


def test_author_knows_every_event() -> None:
    """Each Struct of the catalogue has a subject to be written on."""
    for struct in events.TYPES:
        assert events.NAMES[struct][1] == events.TYPES[struct].rpartition(".")[2]
    assert events.TYPES[Started] == "systems.daemon.started"


@given(
    st.uuids(version=4).map(str) | st.builds(ids.new_id) | st.builds(ids.key_id, st.text(), st.text()),
    st.builds(ids.new_id) | st.uuids(version=4).map(str),
)
def test_author_traceparent_is_w3c_trace_context(root: str, id_: str) -> None:
    """Version 00, the root as 32 hexadecimal digits, a span of 16 that is not all zeros, and the sampled flag."""
    found = re.fullmatch(r"00-([0-9a-f]{32})-([0-9a-f]{16})-01", traceparent(root, id_))
    assert found
    assert uuid.UUID(found[1]) == uuid.UUID(root)
    assert found[2] != "0" * 16
    assert id_.replace("-", "").endswith(found[2])


def test_author_clock_is_the_machines_by_default() -> None:
    """Without a clock the time is the present, in UTC."""
    now = Author("/x").now()
    assert now.tzinfo is UTC
    assert abs(now - datetime.now(UTC)) < timedelta(minutes=1)
