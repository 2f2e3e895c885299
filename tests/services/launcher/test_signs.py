"""When a daemon counts as hung: the freshest sign of work decides, and nothing that is our own fault."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from bus.liveness import Heartbeat
from services.fleet.daemons import Watchdog
from services.health.daemons import DEAF_S, LATE_S
from services.launcher.signs import Deaf, Hung, Sign, Signs, after_beat, freshest, judge, told

LIMITS = Watchdog(silent=30, busy=300)
NOW = 10_000.0
WALL = datetime(2026, 1, 1, tzinfo=UTC)
#: What the sum and the difference of two floats may lose.
MARGIN_S = 0.01
ages = st.one_of(st.none(), st.floats(0, 2000))


def signs(**ages_s: float | None) -> Signs:
    """Signs of those ages."""
    times = {f"{name}_at": NOW - age for name, age in ages_s.items() if age is not None}
    return msgspec.structs.replace(Signs(started_at=NOW - 5000), **times)


def at_work(**ages_s: float | None) -> Signs:
    """The same with something in hand."""
    return msgspec.structs.replace(signs(**ages_s), in_flight=1)


@given(
    beat=ages, loop=ages, work=ages, progress=ages, answered=ages, flight=st.integers(0, 2), silent=st.floats(10, 500)
)
def test_nobody_is_killed_who_gave_a_fresh_sign(
    beat: float | None,
    loop: float | None,
    work: float | None,
    progress: float | None,
    answered: float | None,
    flight: int,
    silent: float,
) -> None:
    """Whatever else is old: one sign of work within the limit, and nobody is killed; all of them older, and somebody is."""
    limits = Watchdog(silent=silent, busy=max(silent, 300))
    seen = msgspec.structs.replace(
        signs(beat=beat, loop=loop, work=work, progress=progress, answered=answered), in_flight=flight
    )
    youngest = min(age for age in (loop, work, progress, answered, 5000.0) if age is not None)
    verdict = judge(seen, NOW, 0.0, limits)
    if youngest <= silent - MARGIN_S:
        assert not isinstance(verdict, Hung)
    if youngest > limits.busy + MARGIN_S:
        assert isinstance(verdict, Hung)
        assert (verdict.sign, round(verdict.silent_s - youngest, 2)) == (freshest(seen)[0], 0)


@given(st.floats(0, 29))
def test_silence_before_we_listened_is_ours(listened: float) -> None:
    """A launcher that stood still, or a bus that did, makes nobody look hung."""
    assert judge(signs(beat=4000, loop=4000, work=4000), NOW, NOW - listened, LIMITS) is None
    assert isinstance(judge(signs(beat=4000, loop=4000, work=4000), NOW, 0.0, LIMITS), Hung)


def test_stopped_daemon_is_hung_after_the_silence() -> None:
    """Nothing came for longer than allowed: it is hung, and its last turn is what was seen last."""
    assert judge(signs(beat=29, loop=29, work=29), NOW, 0, LIMITS) is None
    assert judge(signs(beat=31, loop=31, work=33), NOW, 0, LIMITS) == Hung(Sign.LOOP, 31, 30)


def test_call_in_flight_that_blocks_gets_longer_while_it_beats() -> None:
    """A stuck loop with work in hand has until `busy`, because its claims stand; without work, or without beats, until `silent`."""
    assert judge(at_work(beat=1, loop=100, work=101, progress=102), NOW, 0, LIMITS) is None
    assert judge(at_work(beat=1, loop=301, work=301, progress=302), NOW, 0, LIMITS) == Hung(Sign.LOOP, 301, 300)
    assert judge(signs(beat=1, loop=31, work=31), NOW, 0, LIMITS) == Hung(Sign.LOOP, 31, 30)
    assert judge(at_work(beat=LATE_S + 21, loop=31, work=31), NOW, 0, LIMITS) == Hung(Sign.LOOP, 31, 30)


def test_daemon_that_never_beat_gets_time_to_start() -> None:
    """A process that has not begun to beat yet may take as long as a busy one."""
    assert judge(signs(started=200), NOW, 0, LIMITS) is None
    assert judge(signs(started=301), NOW, 0, LIMITS) == Hung(Sign.START, 301, 300)


def test_deaf_daemon_is_left_to_a_person() -> None:
    """It beats and its loop turns: nobody kills it, however long nothing has reached it."""
    seen = signs(beat=1, loop=1, work=DEAF_S + 31)
    assert judge(seen, NOW, 0, LIMITS) == Deaf(DEAF_S + 31)
    assert judge(signs(beat=1, loop=1, work=DEAF_S + 29), NOW, 0, LIMITS) is None


@given(st.floats(-4000, 4000), st.floats(0, 600))
def test_ages_come_from_the_daemons_own_clock(step_s: float, idle_s: float) -> None:
    """A wall clock that is stepped makes nobody look older than a heartbeat lives; what a beat says of the past is its own difference."""
    beat = Heartbeat(
        daemon="warden",
        instance="warden",
        boot_id="b",
        host="h",
        home="h",
        pid=7,
        started_at=WALL,
        at=WALL,
        last_empty_at=WALL - timedelta(seconds=idle_s),
        stuck_s=2.5,
    )
    seen = after_beat(Signs(started_at=NOW - 9), beat, NOW, step_s)
    assert seen.beat_at is not None
    assert seen.loop_at is not None
    assert seen.work_at is not None
    assert NOW - 15 <= seen.beat_at <= NOW
    assert abs(seen.beat_at - seen.work_at - idle_s) < 1e-3
    assert seen.beat_at - seen.loop_at == 2.5
    assert seen.progress_at is None


def test_what_was_seen_is_told_for_people() -> None:
    """The sentence names each sign with its age, the work in hand, and where it stands."""
    seen = msgspec.structs.replace(at_work(beat=1, loop=31, work=40), stuck_in="shop/coder 01: handlers.py:3 in work")
    assert told(seen, NOW) == (
        "last beat 1 s ago, last turn of its loop 31 s ago, last work 40 s ago, 1 in hand, last progress never, "
        "it stands in shop/coder 01: handlers.py:3 in work"
    )
