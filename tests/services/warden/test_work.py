"""The fold of all unfinished work agrees with the fold of each invocation."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from bus import envelope, wire
from bus.author import Author
from bus.events import invocation as ev
from bus.invocation import Invocation, evolve
from bus.subjects import Ref
from services.warden.work import OpenWork

AT = datetime(2026, 1, 1, tzinfo=UTC)
ERROR = ev.Error(kind="k", message="m", fingerprint="f")

_events: st.SearchStrategy[ev.InvocationEvent] = st.one_of(
    st.just(ev.Requested()),
    st.just(ev.Scheduled(due=AT + timedelta(seconds=60), request=ev.Requested())),
    st.builds(
        lambda h, d: ev.Claimed(holder=h, runner="r", delivery=d, attempt=1, reply="x"),
        st.sampled_from("ab"),
        st.integers(1, 3),
    ),
    st.just(ev.Completed(holder="a", delivery=1)),
    st.just(ev.Failed(holder="a", delivery=1, attempt=1, error=ERROR, retry_at=AT + timedelta(seconds=30))),
    st.just(ev.Swept(holder="a", delivery=1, age_s=1, reason=ev.SweepReason.ACK_WAIT)),
    st.just(ev.Released(reason=ev.ReleaseReason.DRAIN)),
    st.just(ev.Cancelled()),
    st.just(ev.DeadLettered(reason=ev.DeathReason.CRASHES_SPENT)),
    st.just(ev.Redriven()),
    st.just(ev.Discarded()),
)


def delivery(seq: int, subject: str, payload: bytes) -> wire.Delivery:
    """A message of the log."""
    return wire.Delivery(subject, payload, "", seq, 1, seq, int(AT.timestamp() * 1e9), 0)


@given(st.lists(st.tuples(st.sampled_from("xyz"), _events), max_size=30))
def test_work_agrees_with_each_history(told: list[tuple[str, ev.InvocationEvent]]) -> None:
    """Whatever follows what, open is exactly what has not ended, with its status, holder and work item."""
    work, author = OpenWork(), Author("/t")
    states: dict[str, Invocation] = {}
    for seq, (id_, event) in enumerate(told, 1):
        ref = Ref("p", "r", id_)
        stamped = author.invocation(ref, event)
        assert work.take(delivery(seq, stamped.subject, envelope.encode(stamped)), 100.0, AT) is None
        states[id_] = evolve(states.get(id_), event, seq, AT)
    alive = {id_: state for id_, state in states.items() if not state.status.ended}
    assert {id_: item.status for id_, item in work.open.items()} == {id_: s.status for id_, s in alive.items()}
    held = {id_: s.claim.holder for id_, s in alive.items() if s.claim is not None and s.status.value == "running"}
    assert {id_: item.holder for id_, item in work.open.items() if item.holder} == held
    by_holder = {holder: {i for i, h in held.items() if h == holder} for holder in held.values()}
    assert work.by_holder == by_holder
    assert +work.unfinished == Counter(("p", "r", item.status) for item in work.open.values())
    assert work.position == len(told)


def test_work_counts_time_from_the_clock_on_the_wall() -> None:
    """A due time is as far away as it is from now, however long ago its event was stored."""
    work, author, ref = OpenWork(), Author("/t"), Ref("p", "r", "i")
    scheduled = ev.Scheduled(due=AT + timedelta(hours=1), request=ev.Requested())
    stamped = author.invocation(ref, scheduled)
    work.take(delivery(1, stamped.subject, envelope.encode(stamped)), 100.0, AT + timedelta(minutes=59))
    assert work.open["i"].due_at == 160.0


def test_work_reports_rubbish_with_its_head() -> None:
    """A message that is no event comes back as a report whose head can be printed, and nothing is open by it."""
    work = OpenWork()
    report = work.take(delivery(5, "inv.p.r.i.requested", b"\x1b[31mred\x00" + b"x" * 500), 1.0, AT)
    assert report is not None
    assert (report.seq, report.subject, report.head[:7], len(report.head)) == (5, "inv.p.r.i.requested", ".[31mre", 200)
    assert work.open == {}
    assert msgspec.json.encode(report)
