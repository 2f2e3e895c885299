"""When drills by the clock are due."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from services.drill.schedule import due

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
DAY_S = 86_400.0
ALL = dict.fromkeys(("kill_switch", "quota", "orphan", "poison", "loop"), NOW)


def test_guard_that_was_never_drilled_is_due_now() -> None:
    """Without a record of one of the guards the round is due at once."""
    assert due({}, DAY_S, NOW) == NOW
    assert due({guard: at for guard, at in ALL.items() if guard != "loop"}, DAY_S, NOW) == NOW


def test_oldest_proof_says_when_the_next_round_is_due() -> None:
    """A restart changes nothing: the round is due so long after the oldest of the last drills."""
    old = NOW - timedelta(hours=23)
    assert due(ALL | {"quota": old}, DAY_S, NOW) == NOW + timedelta(hours=1)
    assert due(ALL | {"quota": NOW - timedelta(days=3)}, DAY_S, NOW) < NOW
