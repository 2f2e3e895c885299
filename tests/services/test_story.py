"""What a person is told of the log: timelines, causes, trees."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import inspect

from bus.author import Author
from bus.events import CATALOGUE, deadletter
from bus.events import invocation as ev
from bus.invocation import Status
from bus.store import Recorded, read
from bus.subjects import Ref
from services import story

_START = datetime(2030, 1, 1, 12, tzinfo=UTC)
_REF = Ref("shop", "coder", "01a20b9c-fe01-71b1-9235-2fd1250374eb")
_ERROR = ev.Error(kind="RuntimeError", message="the oven is cold\nvery cold", fingerprint="abc")


def _history(*events: ev.InvocationEvent, actor: str = "ann", cause: str = "") -> list[Recorded]:
    author = Author("/operator/ann", actor=actor)
    records = []
    for seq, event in enumerate(events, 1):
        envelope = author.invocation(_REF, event, cause=cause)
        records.append(Recorded(seq, envelope.subject, _START + timedelta(seconds=seq), envelope, event))
    return records


_LIFE: tuple[ev.InvocationEvent, ...] = (
    ev.Requested(input=msgspec.Raw(b'{"a":1}')),
    ev.Claimed(holder="h1", runner="runner-1@host", delivery=1, attempt=1, reply="r"),
    ev.Failed(
        holder="h1",
        delivery=1,
        attempt=1,
        error=_ERROR,
        retry_at=_START,
        usage=ev.Usage(input_tokens=5),
        duration_ms=20,
    ),
    ev.Claimed(holder="h1", runner="runner-1@host", delivery=2, attempt=2, reply="r"),
    ev.Swept(holder="h1", delivery=2, age_s=3, reason=ev.SweepReason.HOLDER_GONE),
    ev.Claimed(holder="h2", runner="runner-2@host", delivery=3, attempt=3, reply="r"),
    ev.Completed(holder="h2", delivery=3, output=msgspec.Raw(b"7"), usage=ev.Usage(output_tokens=2), duration_ms=1500),
)


def test_timeline_has_a_line_for_each_event() -> None:
    """Each event is one line: when, how long after the one before, its name, and what it says."""
    lines = story.timeline(_history(*_LIFE))
    assert [line.event for line in lines] == [
        "requested", "claimed", "failed", "claimed", "swept", "claimed", "completed",
    ]  # fmt: skip
    assert [line.after_s for line in lines] == [None, 1, 1, 1, 1, 1, 1]
    assert lines[0].what == 'by ann, input {"a":1}'
    assert lines[2].what == "attempt 1 after 20 ms: RuntimeError: the oven is cold; again at 12:00:00"
    assert lines[4].what == "holder gone: held for 3.0 s by h1"
    assert lines[6].what == "in 1.5 s, 0 input and 2 output tokens, output 7"


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (ev.Scheduled(due=_START, request=ev.Requested()), "for 2030-01-01 12:00:00, by ann, input null"),
        (ev.Requested(schedule="nightly", due=_START), "by schedule nightly, due 2030-01-01 12:00:00, input null"),
        (ev.Requested(generation=2, idempotency_key="k"), "again, generation 2, key k, input null"),
        (ev.Failed(holder="h", delivery=1, attempt=3, error=_ERROR), "attempt 3 after 0 ms: RuntimeError: the oven is cold; no attempt is left"),
        (ev.Released(reason=ev.ReleaseReason.DRAIN, holder="h"), "drain: given back by h"),
        (ev.DeadLettered(reason=ev.DeathReason.CRASHES_SPENT, attempts=1, crashes=2), "crashes spent after 1 error and 2 crashes"),
        (ev.Cancelled(reason="enough"), "by ann: enough"),
        (ev.Redriven(), "by ann"),
    ],
)  # fmt: skip
def test_sentence_says_what_happened(event: ev.InvocationEvent, words: str) -> None:
    """Each kind of event has its own words, with the person and the reason."""
    assert story.sentence(_history(event)[0]) == words


def test_sentence_knows_every_event() -> None:
    """There is no event type in the catalogue that breaks a timeline, however little it says."""
    author = Author("/warden/x")
    for kind, struct in CATALOGUE.items():
        data = _least(struct)
        subject = f"x.{kind}"
        record = Recorded(1, subject, _START, author.stamp(subject, data), data)
        assert "\n" not in story.sentence(record)


def _least(struct: Any) -> Any:
    """An event with nothing but what it must have."""
    return struct(**{f.name: _sample(inspect.type_info(f.type)) for f in msgspec.structs.fields(struct) if f.required})


def _sample(kind: inspect.Type) -> Any:
    match kind:
        case inspect.IntType() | inspect.FloatType():
            return 1
        case inspect.DateTimeType():
            return _START
        case inspect.EnumType(cls=cls):
            return next(iter(cls))
        case inspect.StructType(cls=cls):
            return _least(cls)
        case inspect.RawType():
            return msgspec.Raw(b"1")
        case inspect.UnionType(types=types):
            return _sample(types[0])
        case inspect.ListType() | inspect.VarTupleType():
            return ()
        case inspect.DictType():
            return {}
        case inspect.BoolType():
            return True
        case inspect.StrType():
            return "two\nlines"
        case _:
            raise AssertionError(f"no sample for {kind}")


def test_rubbish_is_told_as_rubbish() -> None:
    """A message that is no event has its place in the timeline, and the story of the others is told."""
    records = [*_history(*_LIFE[:2]), read(3, _REF.event("completed"), _START, b"rubbish")]
    assert story.timeline(records)[2].what.startswith("no event of ours: ")
    told = story.story(_REF, records)
    assert told is not None
    assert told.status == Status.RUNNING
    assert told.events[2]["raw"] == "rubbish"


def test_story_sums_up_a_life() -> None:
    """The story has the status, the counts, the use over all attempts, the output, and every envelope as it lies in the log."""
    records = _history(*_LIFE)
    told = story.story(_REF, records)
    assert told is not None
    assert (told.status, told.attempts, told.errors, told.crashes) == ("completed", 3, 1, 1)
    assert (told.usage.input_tokens, told.usage.output_tokens, bytes(told.output)) == (5, 2, b"7")
    assert told.ended_at == records[-1].stored_at
    assert told.error is None
    first = told.events[0]
    assert records[0].event is not None
    assert (first["seq"], first["id"], first["subject"]) == (1, records[0].event.id, records[0].subject)
    assert "causationid" not in first


def test_story_of_rubbish_alone_is_none() -> None:
    """Without one readable event there is no story to tell."""
    assert story.story(_REF, [read(1, _REF.event("completed"), _START, b"rubbish")]) is None


def test_cause_names_the_event_of_the_parent() -> None:
    """A child's cause is found among its parent's events."""
    parent = _history(*_LIFE)
    claimed = parent[1].event
    assert claimed is not None
    child = _history(ev.Requested(parent="p", root="p", depth=1), actor="shop/coder", cause=claimed.id)
    link = story.cause_of(_REF, child, parent)
    assert link is not None
    assert (link.actor, link.parent, link.by_event) == ("shop/coder", "p", "claimed")
    assert "not in the log any more" in story.chain_lines([link])[0]


def test_chain_ends_with_a_person_or_a_schedule() -> None:
    """The root of a chain says which person or which schedule asked."""
    person = story.cause_of(_REF, _history(ev.Requested()))
    clock = story.cause_of(_REF, _history(ev.Requested(schedule="nightly", due=_START)))
    assert person is not None
    assert clock is not None
    assert "asked for by ann through /operator/ann" in story.chain_lines([person])[0]
    assert "asked for by the schedule nightly" in story.chain_lines([clock])[0]


_IDS = st.integers(0, 12)


@given(st.dictionaries(_IDS, _IDS, max_size=12))
def test_tree_draws_what_hangs_together_once(parents: dict[int, int]) -> None:
    """Whatever the parents say, circles included, the tree ends, and draws each invocation that hangs on the top just once."""
    members = {Ref("shop", "coder", str(child)): str(parent) for child, parent in parents.items() if child != 0}
    grown = story.tree(Ref("shop", "coder", "0"), members, {})
    lines = list(story.tree_lines(grown, marked="0"))
    drawn = [line.split(" <- ")[0].split()[-2] for line in lines]
    reached = {"0"}
    while True:
        more = {ref.id for ref, parent in members.items() if parent in reached} | reached
        if more == reached:
            break
        reached = more
    assert sorted(drawn) == sorted(reached)
    assert story.size(grown) == len(reached)


def test_kept_letter_is_told_in_one_line() -> None:
    """A dead letter's copy says why and after how many attempts."""
    kept = deadletter.Kept(
        project="shop", role="coder", invocation=_REF.id, reason=ev.DeathReason.PERMANENT_ERROR, request=ev.Requested(),
        requested_at=_START, died_at=_START, died_seq=3, error=_ERROR,
    )  # fmt: skip
    envelope = Author("/warden/x").stamp(_REF.dead_letter, kept)
    record = Recorded(1, _REF.dead_letter, _START, envelope, kept)
    assert story.sentence(record) == "permanent error after 0 attempts: RuntimeError: the oven is cold"
