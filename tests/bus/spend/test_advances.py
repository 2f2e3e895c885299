"""Advances: only on counters with room, only as long as the server's word is fresh, and never drawn twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bus.spend import Limit
from bus.spend.advances import FRESH_S, Advances

DAY = "shop.tokens.day_2026-11-24"
#: Exact in binary, so that a period is over when it is.
PERIOD_S = 1 / 64


def learnt(cap: int, granted: int, used: int) -> tuple[Advances, float]:
    """Advances after one period in which so much was granted, on a counter that says so much; and the time."""
    advances = Advances(PERIOD_S)
    limits = (Limit(DAY, cap),)
    now = 100.0
    advances.changes({}, now)
    advances.granted(granted, 0, limits)
    advances.counted({}, {DAY: used}, now)
    now += PERIOD_S
    changes = advances.changes({}, now)
    advances.counted(changes, {DAY: used + changes.get(DAY, 0)}, now)
    return advances, now


def test_advance_follows_what_was_granted_and_is_drawn_once() -> None:
    """Under a wide cap there is an advance of some periods' grants; what is drawn is gone, and no more than it is given."""
    advances, now = learnt(10_000, 100, 0)
    limits = (Limit(DAY, 10_000),)
    drawn = 0
    while advances.draw(30, 0, limits, now):
        drawn += 30
    assert 100 <= drawn <= 400
    assert not advances.draw(30, 0, limits, now)


def test_no_advance_where_less_than_half_is_free() -> None:
    """Near its cap a counter carries nothing that nobody uses."""
    advances, now = learnt(1_000, 100, 400)
    assert not advances
    assert not advances.draw(1, 0, (Limit(DAY, 1_000),), now)


def test_advance_is_not_drawn_on_old_knowledge() -> None:
    """When the server has not answered for a moment nothing is granted without asking it."""
    advances, now = learnt(10_000, 100, 0)
    assert not advances.draw(1, 0, (Limit(DAY, 10_000),), now + FRESH_S + 0.001)


def test_advance_is_not_drawn_under_a_cap_that_was_lowered() -> None:
    """A cap that lies below what the counter says grants nothing."""
    advances, now = learnt(10_000, 100, 300)
    assert not advances.draw(1, 0, (Limit(DAY, 299),), now)


def test_counter_that_is_gone_takes_its_advance_along() -> None:
    """Of a deleted counter nothing is drawn, and nothing is given back to it."""
    advances, now = learnt(10_000, 100, 0)
    advances.counted({}, {DAY: -(10**15)}, now)
    assert not advances.draw(1, 0, (Limit(DAY, 10_000),), now)
    assert advances.changes({}, now, closing=True) == {}


def test_advance_of_an_idle_process_goes_back() -> None:
    """A period without a grant gives all of it back."""
    advances, now = learnt(10_000, 100, 0)
    assert advances.changes({}, now + PERIOD_S) == {DAY: -400}
    assert not advances


STEPS = st.lists(
    st.tuples(st.sampled_from(["draw", "round", "close"]), st.integers(0, 300), st.integers(0, 30)), max_size=60
)


@given(STEPS, st.integers(1, 5_000))
def test_counter_always_holds_what_is_granted_and_at_hand(steps: list[tuple[str, int, int]], cap: int) -> None:
    """Whatever happens, what was put on the counter is what was drawn plus what is still at hand, and stays under half the cap."""
    advances = Advances(PERIOD_S)
    limits = (Limit(DAY, cap),)
    counter, drawn, now = 0, 0, 1.0
    for act, amount, wait in steps:
        now += wait / 1000
        if act == "draw":
            if advances.draw(amount, 0, limits, now):
                drawn += amount
            elif 2 * (counter + amount) <= cap:
                # Asked for in the ordinary way, and answered.
                counter, drawn = counter + amount, drawn + amount
                advances.counted({}, {DAY: counter}, now)
                advances.granted(amount, 0, limits)
            continue
        changes = advances.changes({}, now, closing=act == "close")
        counter += changes.get(DAY, 0)
        advances.counted(changes, {DAY: counter}, now)
        assert drawn <= counter <= max(drawn, cap // 2)
    changes = advances.changes({}, now, closing=True)
    assert counter + changes.get(DAY, 0) == drawn
