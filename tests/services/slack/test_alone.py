"""Of several mirrors on one bus the oldest goes first."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from bus.liveness import Heartbeat, before

_NOW = datetime(2026, 1, 1, tzinfo=UTC)


def beat(boot: str, host: str, age_s: int, daemon: str = "slack_mirror") -> Heartbeat:
    """A mirror that started so long ago."""
    at = _NOW - timedelta(seconds=age_s)
    return Heartbeat(daemon=daemon, instance=daemon, boot_id=boot, host=host, home="h", pid=1, started_at=at, at=_NOW)


def test_oldest_goes_first() -> None:
    """One that started later waits for one that started earlier elsewhere, and not the other way round."""
    old, young = beat("a", "one", 60), beat("b", "two", 30)
    assert before(young, [old, young]) == old
    assert before(old, [old, young]) is None


def test_earlier_life_is_no_other() -> None:
    """A killed mirror whose heartbeat has not expired holds up nobody in its seat; other daemons never do."""
    killed, own = beat("a", "one", 60), beat("b", "one", 1)
    assert before(own, [killed, own, beat("c", "two", 90, "warden")]) is None


def test_same_moment_has_one_winner() -> None:
    """Of two that start at the same moment exactly one goes first."""
    one, two = beat("a", "one", 5), beat("b", "two", 5)
    assert [before(one, [one, two]), before(two, [one, two])] == [None, one]
