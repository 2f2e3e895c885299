"""What is shown next: laws that hold for every queue."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from services.slack import seqs
from services.slack.lane import GROUP, Lane, Work
from services.slack.message import Message
from services.slack.notice import Notice, Place

_AT = datetime(2026, 1, 1, tzinfo=UTC)


def notice(
    seq: int, *, kind: str = "finding.opened", key: str = "", place: Place = Place.NEW, urgent: bool = False
) -> Notice:
    """A notice."""
    return Notice(
        channel="C1",
        kind=kind,
        stream="CONTROL",
        seq=seq,
        event=str(seq),
        at=_AT,
        message=Message(icon="x", title=f"{kind} {seq}"),
        place=place,
        key=key,
        urgent=urgent,
    )


def worked(lane: Lane, burst: int, more: list[Notice], refusals: list[bool]) -> list[Work]:
    """Everything that is shown, where some is refused at first, and more comes in between."""
    shown = []
    for refused in refusals:
        if more:
            lane.add(more.pop(0))
        work = lane.take(burst)
        if work is not None and refused:
            lane.put_back(work)
        elif work is not None:
            shown.append(work)
    for one in more:
        lane.add(one)
    return shown + drained(lane, burst)


def drained(lane: Lane, burst: int) -> list[Work]:
    """Everything that is taken."""
    found = []
    while (work := lane.take(burst)) is not None:
        found.append(work)
    return found


_notices = st.lists(
    st.tuples(
        st.sampled_from(["a.x", "b.y"]),
        st.sampled_from(["", "k1", "k2"]),
        st.sampled_from(list(Place)),
        st.booleans(),
    ),
    max_size=60,
)


@given(_notices, st.integers(0, 30))
def test_each_once_and_in_order_of_its_thread(drawn: list[tuple[str, str, Place, bool]], burst: int) -> None:
    """Everything that is added is taken once, and what is below one head in the order of the events."""
    lane = Lane("C1")
    for seq, (kind, key, place, urgent) in enumerate(drawn, 1):
        chosen = place if key else Place.NEW
        lane.add(notice(seq, kind=kind, key=key, place=chosen, urgent=urgent))
    works = drained(lane, burst)
    taken = [one for work in works for one in work.notices]
    assert sorted(one.seq for one in taken) == list(range(1, len(drawn) + 1))
    for key in ("k1", "k2"):
        replies = [one.seq for one in taken if one.key == key and one.place is not Place.NEW]
        assert replies == sorted(replies)
    assert len(lane) == 0


@given(_notices, st.integers(0, 30), st.lists(st.booleans(), max_size=80))
def test_order_outlives_refusals(drawn: list[tuple[str, str, Place, bool]], burst: int, refusals: list[bool]) -> None:
    """What Slack does not take at first is shown once too, and still in the order of its thread."""
    more = [
        notice(seq, kind=kind, key=key, place=place if key else Place.NEW, urgent=urgent)
        for seq, (kind, key, place, urgent) in enumerate(drawn, 1)
    ]
    taken = [one for work in worked(Lane("C1"), burst, more, refusals) for one in work.notices]
    assert sorted(one.seq for one in taken) == list(range(1, len(drawn) + 1))
    for key in ("k1", "k2"):
        replies = [one.seq for one in taken if one.key == key and one.place is not Place.NEW]
        assert replies == sorted(replies)


@given(st.integers(0, 400), st.integers(0, 30))
def test_urgent_is_next(waiting: int, burst: int) -> None:
    """However much waits, what is urgent is taken next, and alone."""
    lane = Lane("C1")
    for seq in range(1, waiting + 1):
        lane.add(notice(seq))
    lane.add(notice(9999, urgent=True, key="incident:1"))
    first = lane.take(burst)
    assert first is not None
    assert [one.seq for one in first.notices] == [9999]


def test_urgent_takes_its_thread_along() -> None:
    """What waits before it in the same thread goes first, so that a head is shown before what is below it."""
    lane = Lane("C1")
    lane.add(notice(1))
    lane.add(notice(2, key="finding:f"))
    lane.add(notice(3, key="finding:f", place=Place.UPDATE, urgent=True))
    assert [[one.seq for one in work.notices] for work in drained(lane, 20)] == [[2], [3], [1]]


def test_storm_is_told_in_few_messages() -> None:
    """A thousand alike are three messages that name each of them; what is different stays apart."""
    lane = Lane("C1")
    for seq in range(1, 1001):
        lane.add(notice(seq))
    lane.add(notice(1001, kind="quota.tripped"))
    works = drained(lane, 20)
    assert [len(work.notices) for work in works] == [GROUP, GROUP, 200, 1]
    assert works[0].message.title == f"{GROUP} like this: finding.opened 1"
    assert works[3].message.title == "quota.tripped 1001"


def test_what_was_over_before_it_was_shown() -> None:
    """A message whose change waits too says how it stands from the start, and of a storm that is over one message tells it all."""
    lane = Lane("C1")
    lane.add(notice(1, key="k"))
    lane.add(notice(2, key="k", place=Place.UPDATE, kind="finding.closed"))
    (work,) = drained(lane, 20)
    assert (work.first.place, work.message.title, len(work.notices)) == (Place.NEW, "finding.closed 2", 2)
    for number in range(100):
        lane.add(notice(10 + number, key=f"k{number}"))
    for number in range(100):
        lane.add(notice(500 + number, key=f"k{number}", place=Place.UPDATE, kind="finding.closed"))
    (work,) = drained(lane, 20)
    assert len(work.notices) == 200
    assert work.message.title == "100 like this: finding.opened 10"
    assert ("Since then", "100 closed") in work.message.lines


def test_updates_of_one_message_are_one() -> None:
    """Of several changes of a message the last one is sent, and stands for all."""
    lane = Lane("C1")
    for seq in (1, 2, 3):
        lane.add(notice(seq, kind="sweep.finished", key="sweep", place=Place.UPDATE))
    (work,) = drained(lane, 20)
    assert [one.seq for one in work.notices] == [1, 2, 3]
    assert work.message.title == "sweep.finished 3"


def test_what_was_not_sent_is_next_again() -> None:
    """A message that Slack did not take comes before what waits, and after what is urgent."""
    lane = Lane("C1")
    lane.add(notice(1))
    lane.add(notice(2))
    work = lane.take(20)
    assert work is not None
    lane.put_back(work)
    lane.add(notice(3, urgent=True))
    assert [one.first.seq for one in drained(lane, 20)] == [3, 1, 2]


def test_urgent_that_was_not_sent_is_before_what_follows_it() -> None:
    """Of two that Slack did not take the urgent one is next, and what comes after it in its thread waits for it."""
    lane = Lane("C1")
    reply = {"key": "incident:1", "place": Place.REPLY, "urgent": True}
    for one in (notice(1), notice(2, **reply), notice(3, **reply)):  # type: ignore[arg-type]
        lane.add(one)
        if one.seq < 3:
            work = lane.take(20)
            assert work is not None
            lane.put_back(work)
    assert [work.first.seq for work in drained(lane, 20)] == [2, 3, 1]


def test_what_went_along_and_was_not_sent_is_before_what_follows_it() -> None:
    """What an urgent one takes along is not urgent itself, and is still next when Slack did not take it."""
    lane = Lane("C1")
    reply = {"key": "incident:1", "place": Place.REPLY}
    lane.add(notice(1))
    for one in (notice(2, **reply), notice(3, **reply, urgent=True)):  # type: ignore[arg-type]
        work = lane.take(20)
        assert work is not None
        lane.put_back(work)
        lane.add(one)
    went_along = lane.take(20)
    assert went_along is not None
    assert went_along.first.seq == 2
    lane.put_back(went_along)
    assert [one.seq for one in lane.drop()] == [1]
    lane.add(notice(4, **reply))  # type: ignore[arg-type]
    assert [work.first.seq for work in drained(lane, 20)] == [2, 3, 4]


@given(st.sets(st.integers(1, 10_000)))
def test_sequences_survive_their_text(numbers: set[int]) -> None:
    """Sequences that are packed are the same when they are unpacked."""
    assert set(seqs.unpack(seqs.pack(numbers))) == numbers
