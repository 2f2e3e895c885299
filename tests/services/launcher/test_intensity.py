"""Restart intensity: the laws of giving up."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from services.fleet.daemons import Restart, RestartBy
from services.launcher.intensity import FIRST_DELAY_S, LONGEST_DELAY_S, Again, GiveUp, decide_restart, recent

specs = st.builds(Restart, exits=st.integers(1, 50), period=st.floats(0.1, 3600))
times = st.lists(st.floats(0, 10_000), max_size=80).map(lambda found: tuple(sorted(found)))


def test_intensity_is_three_in_five_minutes_by_default() -> None:
    """Three exits within five minutes are followed by a restart, the fourth is not."""
    assert decide_restart((0.0, 1.0, 2.0), 2.0, Restart()) == Again(4 * FIRST_DELAY_S)
    assert decide_restart((0.0, 1.0, 2.0, 299.0), 299.0, Restart()) == GiveUp(4, 300.0)
    assert decide_restart((0.0, 1.0, 2.0, 300.0), 300.0, Restart()) == Again(4 * FIRST_DELAY_S)


@given(times, specs)
def test_intensity_counts_only_the_period(exits: tuple[float, ...], spec: Restart) -> None:
    """It gives up exactly when more exits than allowed lie within the period, whatever was before."""
    now = exits[-1] if exits else 0.0
    counted = sum(now - at < spec.period for at in exits)
    decision = decide_restart(exits, now, spec)
    assert isinstance(decision, GiveUp) == (counted > spec.exits)
    assert decide_restart(recent(exits, now, spec), now, spec) == decision


@given(times, specs)
def test_intensity_delay_stays_in_bounds(exits: tuple[float, ...], spec: Restart) -> None:
    """A restart waits at least the first delay and never longer than the longest."""
    decision = decide_restart(exits, exits[-1] if exits else 0.0, spec)
    if isinstance(decision, Again):
        assert FIRST_DELAY_S <= decision.delay_s <= LONGEST_DELAY_S


@given(st.integers(1, 40))
def test_intensity_delay_never_shrinks_in_a_loop_of_crashes(exits: int) -> None:
    """While a process keeps dying, each restart waits at least as long as the one before."""
    spec = Restart(exits=exits)
    decisions = [decide_restart(tuple(map(float, range(n))), float(n), spec) for n in range(1, exits + 1)]
    delays = [decision.delay_s for decision in decisions if isinstance(decision, Again)]
    assert len(delays) == exits
    assert all(before <= after for before, after in itertools.pairwise(delays))


@given(specs, st.floats(0.01, 10))
def test_intensity_ends_a_loop_of_crashes(spec: Restart, life: float) -> None:
    """A process that dies faster than the intensity allows is given up on after one exit more than allowed."""
    step = min(life, spec.period / (spec.exits + 1) / 2)
    exits: tuple[float, ...] = ()
    for n in range(spec.exits + 1):
        exits = (*exits, n * step)
    assert decide_restart(exits, exits[-1], spec) == GiveUp(spec.exits + 1, spec.period)


@given(times.filter(len), specs)
def test_intensity_of_what_only_a_person_restarts_is_none(exits: tuple[float, ...], spec: Restart) -> None:
    """However rarely it dies, it is left to a person."""
    decision = decide_restart(exits, exits[-1], spec, RestartBy.HUMAN)
    assert isinstance(decision, GiveUp)
    assert decision.why == "only a person restarts it"
