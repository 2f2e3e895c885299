"""A reader that was not handed every message of INVOCATIONS is stopped before anything behind the gap is folded."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.store import CONTROL, INVOCATIONS
from bus.wire import Delivery
from projections.partition import Partition
from projections.trimmed import ranges
from projections.unbroken import Skipped, unbroken


def message(seq: int, project: str = "shop") -> Delivery:
    """A message, of which nothing but its place matters."""
    return Delivery(f"inv.{project}.coder.x.requested", b"", "", seq, 1, seq, 0, 0)


def pieces(seqs: list[int], cuts: list[int]) -> list[list[Delivery]]:
    """Messages in batches, none of them empty."""
    ends = sorted({min(cut, len(seqs)) for cut in cuts} | {len(seqs)})
    batches, at = [], 0
    for end in ends:
        batches.append([message(seq) for seq in seqs[at:end]])
        at = end
    return [batch for batch in batches if batch]


@given(
    there=st.sets(st.integers(1, 40)),
    cuts=st.lists(st.integers(0, 40), max_size=6),
)
def test_reader_takes_what_comes_before_the_first_missing_message(there: set[int], cuts: list[int]) -> None:
    """However the messages are cut into batches, nothing behind the first missing one is taken, and that one is named."""
    part = unbroken(Partition(0, 1))
    missing = next(seq for seq in range(1, 42) if seq not in there)
    taken: list[int] = []
    stopped: tuple[int, int] | None = None
    for batch in pieces(sorted(there), cuts):
        try:
            taken += [delivery.seq for delivery in part.own(INVOCATIONS, batch)]
        except Skipped as exc:
            stopped = exc.first, exc.last
            break
    behind = [seq for seq in there if seq > missing]
    assert stopped == ((missing, min(behind) - 1) if behind else None)
    assert taken == list(range(1, len(taken) + 1))
    assert len(taken) < missing
    assert part.reached.seq == len(taken)


def test_messages_that_a_person_deleted_are_passed_once_that_is_known() -> None:
    """A gap that the stream spans is passed when it is noted, and no other one."""
    part = unbroken(Partition(0, 1))
    part.reached.absent.add((3, 4))
    assert len(part.own(INVOCATIONS, [message(1), message(2), message(5)])) == 3
    with pytest.raises(Skipped, match="expected message 6 of INVOCATIONS, got: 8"):
        part.own(INVOCATIONS, [message(8)])


def test_reader_that_is_sent_back_is_stopped() -> None:
    """Messages that were handed out before, and may be trimmed in between, are not taken for the ones that follow."""
    part = unbroken(Partition(0, 1))
    part.own(INVOCATIONS, [message(seq) for seq in range(1, 11)])
    with pytest.raises(Skipped, match="expected message 11 of INVOCATIONS, got: 6"):
        part.own(INVOCATIONS, [message(6), message(7)])


def test_messages_of_others_are_followed_and_not_taken() -> None:
    """A message of another partition moves on how far was read; streams that nobody trims are not followed."""
    part = unbroken(Partition(1, 2))
    mine = next(name for name in ("a", "b", "c", "d", "e") if part.of_project(name) == 1)
    other = next(name for name in ("a", "b", "c", "d", "e") if part.of_project(name) == 0)
    assert [d.seq for d in part.own(INVOCATIONS, [message(1, other), message(2, mine), message(3, other)])] == [2]
    assert part.reached.seq == 3
    assert part.own(CONTROL, [message(7)]) == []
    assert part.reached.seq == 3


@given(st.sets(st.integers(1, 30)))
def test_ranges_are_the_longest_runs_of_sequences(seqs: set[int]) -> None:
    """Ranges hold exactly the sequences, in order, and no two of them touch."""
    found = list(ranges(seqs))
    assert [seq for first, last in found for seq in range(first, last + 1)] == sorted(seqs)
    assert all(before[1] + 1 < after[0] for before, after in pairwise(found))
