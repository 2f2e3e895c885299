"""The quota breaker's rule: when a cap is stepped, tripped and cleared, and by what a counter may be corrected."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.refusal import Reason
from bus.spend import BASE
from services.quota import breaker
from services.quota.breaker import Clear, Line, Standing, Step, Trip, Why
from services.quota.drift import Drift, Look

END = datetime(2026, 11, 25, tzinfo=UTC)
LINE = Line(
    key="shop_coder.tokens.day_2026-11-24", scope="shop/coder", unit="tokens", window="day", cap=1000, until=END
)
NONE: frozenset[int] = frozenset()


def used(amount: int, *, held: int = 0, cap: int = 1000) -> Line:
    """The cap with so much used."""
    return msgspec.structs.replace(LINE, used=amount, held=held, cap=cap)


@pytest.mark.parametrize(
    ("amount", "told", "steps"),
    [(499, NONE, []), (500, NONE, [50]), (760, NONE, [50, 75]), (760, frozenset({50, 75}), []), (0, NONE, [])],
)
def test_steps_are_told_once(amount: int, told: frozenset[int], steps: list[int]) -> None:
    """Each step is written when what is settled reaches it, and not again."""
    found = breaker.decide(used(amount), None, told)
    assert [action.percent for action in found if isinstance(action, Step)] == steps


@pytest.mark.parametrize(
    ("line", "needed", "why"),
    [
        (used(1000), 0, Why.FULL),
        (used(1001), 5, Why.FULL),
        (used(0, cap=0), 0, Why.FULL),
        (used(990), 11, Why.NO_ROOM),
        (used(990), 10, None),
        (used(0), 1001, Why.NO_ROOM),
        (used(0, held=1000), 500, None),
        (used(999, held=1), 0, None),
    ],
)
def test_cap_trips_by_what_is_settled(line: Line, needed: int, why: Why | None) -> None:
    """A full cap trips, and one that leaves no room for a claim; held budget comes back, and never trips one."""
    trips = [a for a in breaker.decide(line, None, frozenset({50, 75, 90}), needed=needed) if isinstance(a, Trip)]
    assert [trip.why for trip in trips] == ([] if why is None else [why])


def test_trip_stands_until_there_is_room() -> None:
    """A standing trip is not repeated; a raised cap clears it when what did not fit fits now."""
    told = frozenset({50, 75, 90})
    standing = Standing(key=LINE.key, needed=100, until=END)
    assert breaker.decide(used(990), standing, told, needed=500) == []
    assert breaker.decide(used(990, cap=1050), standing, told) == []
    assert breaker.decide(used(990, cap=1090), standing, told) == [Clear(key=LINE.key, why=Why.CAP_RAISED, cap=1090)]


def test_trip_ends_with_its_window_or_its_cap() -> None:
    """A trip is over when its window is, also when nobody looked for days, and when there is no cap any more."""
    standing = Standing(key=LINE.key, until=END)
    assert breaker.over(standing, END - timedelta(seconds=1), capped=True) is None
    for capped in (True, False):
        assert breaker.over(standing, END, capped=capped) == Clear(key=LINE.key, why=Why.WINDOW_ENDED)
    assert breaker.over(standing, END - timedelta(1), capped=False) == Clear(key=LINE.key, why=Why.CAP_REMOVED)
    assert breaker.over(Standing(key="tree_x.tokens.all"), END, capped=True) is None


@given(st.integers(0, 2000), st.integers(0, 2000), st.integers(0, 2000), st.integers(0, 2000))
def test_trip_and_clear_never_flap(spent: int, held: int, cap: int, needed: int) -> None:
    """What has just tripped is not cleared by the same facts, and what is cleared does not trip at once."""
    line = used(spent, held=held, cap=cap)
    told = frozenset({50, 75, 90})
    standing = Standing(key=line.key, needed=needed)
    trips = any(isinstance(a, Trip) for a in breaker.decide(line, None, told, needed=needed))
    clears = any(isinstance(a, Clear) for a in breaker.decide(line, standing, told, needed=needed))
    assert trips is not clears


def test_refusal_says_all() -> None:
    """The standing refusal names the numbers, the end of the window and the command."""
    trip = Trip(line=used(990), why=Why.NO_ROOM, needed=11, role="shop/coder")
    refusal = breaker.refusal(trip, END - timedelta(hours=5))
    assert refusal.reason is Reason.CAPPED
    assert refusal.sentence == (
        "shop/coder is refused (capped): 990 tokens of 1,000 tokens are used in this day, and shop/coder needs 11 tokens, "
        "since 2026-11-24 19:00:00 UTC, until 2026-11-25 00:00:00 UTC; a person can clear it: systems quota raise shop/coder "
        "--to N --unit tokens --window day --reason TEXT; still allowed: what runs already finishes; other roles work on"
    )
    money = msgspec.structs.replace(LINE, unit="usd", used=2_500_000, cap=2_500_000, window="5h")
    because = breaker.refusal(Trip(line=money, why=Why.FULL), END).because
    assert because == "2.50 USD of 2.50 USD are used in this 5 h window"


def look(excess: int, at: float, *, quiet: bool = True) -> Look:
    """A look that sees so much too much."""
    return Look(at=at, counter=BASE + 500 + excess, log=500, quiet=quiet)


def test_counter_below_the_log_is_raised_at_once() -> None:
    """What a counter lacks could be spent twice: a quiet look is enough."""
    assert Drift().correction(look(-7, 0)) == 7


def test_counter_above_the_log_is_lowered_after_a_minute() -> None:
    """An excess may be claims on their way: the smallest of a minute is taken off, at a quiet look."""
    drift = Drift()
    assert [drift.correction(look(excess, at)) for excess, at in ((9, 0), (5, 20), (8, 40))] == [0, 0, 0]
    assert drift.correction(look(6, 61, quiet=False)) == 0
    assert drift.correction(look(6, 62)) == -5
    assert drift.correction(look(1, 63)) == 0


def test_counter_that_was_right_once_is_not_lowered() -> None:
    """One look without an excess says that all of it was on its way."""
    drift = Drift()
    for excess, at in ((9, 0), (5, 20), (0, 40), (9, 61), (9, 100)):
        assert drift.correction(look(excess, at)) == 0
    assert drift.correction(look(9, 121)) == -9


def test_counter_that_never_rests_is_raised_by_what_it_always_lacks() -> None:
    """Without a quiet look the smallest of three is believed."""
    drift = Drift()
    assert [drift.correction(look(-excess, at, quiet=False)) for excess, at in ((9, 0), (5, 1), (8, 2))] == [0, 0, 5]


@pytest.mark.parametrize(("counter", "correction"), [(None, BASE + 500), (-20, BASE + 520), (2 * BASE + 500, -BASE)])
def test_counter_that_is_none_is_seeded(counter: int | None, correction: int) -> None:
    """A missing or deleted counter is brought to its base and the log at once; one that was seeded twice is brought back."""
    assert Drift().correction(Look(at=0, counter=counter, log=500, quiet=True)) == correction


def test_counter_that_is_missing_and_never_rests_is_seeded_high() -> None:
    """Claims that are tried on a missing counter are taken back, so they are not taken off: too high is safe, too low is not."""
    drift = Drift()
    looks = [Look(at=at, counter=counter, log=500, quiet=False) for at, counter in enumerate((30, -20, 30))]
    assert [drift.correction(item) for item in looks] == [0, 0, BASE + 500]
    assert drift.correction(Look(at=4, counter=None, log=0, quiet=False)) == BASE
