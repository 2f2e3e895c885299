"""How far a trim may go: the pure decision."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from projections.archive import trim
from projections.archive.trim import Facts, Hold

AT = datetime(2026, 11, 25, tzinfo=UTC)
holds = st.lists(
    st.builds(
        Hold,
        kind=st.sampled_from(["hot", "archived", "copied", "unfinished"]),
        lets_go=st.integers(0, 100),
        what=st.just("x"),
    ),
    max_size=5,
)


def facts(first: int, last: int, found: list[Hold], refused: str = "") -> Facts:
    """Some."""
    return Facts(created="c", first=first, last=last, before=AT, holds=tuple(found), refused=refused)


@given(st.integers(1, 100), st.integers(0, 100), holds)
def test_nothing_that_is_held_is_trimmed(first: int, more: int, found: list[Hold]) -> None:
    """No decision passes any hold, nor takes the last message; what it counts is what leaves."""
    decision = trim.decide(facts(first, first + more, found))
    assert all(decision.up_to <= hold.lets_go for hold in found)
    assert decision.up_to < first + more
    assert decision.count == max(0, decision.up_to - first + 1)
    assert decision.held_by is not None


@given(holds, st.integers(0, 4), st.integers(0, 100))
def test_one_more_hold_never_lets_more_go(found: list[Hold], place: int, lets_go: int) -> None:
    """The decision is monotonic: a further hold can only hold back."""
    more = [*found]
    more.insert(min(place, len(more)), Hold(kind="window", lets_go=lets_go, what="y"))
    assert trim.decide(facts(1, 100, more)).up_to <= trim.decide(facts(1, 100, found)).up_to


def test_refusal_trims_nothing() -> None:
    """In a freeze, or while a store is away, the count is zero whatever the holds say, and the reason is kept."""
    decision = trim.decide(facts(1, 100, [], refused="a freeze stands"))
    assert (decision.count, decision.refused) == (0, "a freeze stands")
