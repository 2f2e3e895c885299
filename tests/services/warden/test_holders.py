"""Who counts as dead: knowledge, not silence."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from bus.events.invocation import SweepReason
from bus.liveness import Heartbeat
from services.warden.holders import GRACE_S, Holders

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def beat(boot_id: str, *, seat: str = "agent_runner-1", started_s: float = 0) -> Heartbeat:
    """A heartbeat of a boot id in a seat."""
    return Heartbeat(
        daemon="agent_runner",
        instance=seat,
        boot_id=boot_id,
        host="h",
        home="x",
        pid=1,
        started_at=BEGAN + timedelta(seconds=started_s),
        at=BEGAN,
    )


@pytest.fixture
def holders() -> Holders:
    """Nobody is known."""
    return Holders()


def test_holders_alive_keep_their_claims(holders: Holders) -> None:
    """Whoever beats is not swept, however long the bus has been up."""
    holders.beat(beat("a"))
    assert holders.verdict("a", now=1e6, up_since=0) is None


def test_holders_that_said_farewell_are_gone_at_once(holders: Holders) -> None:
    """A heartbeat that was taken back needs no moment, also when the bus came back just now."""
    holders.beat(beat("a"))
    holders.gone("a", expired=False, now=10)
    assert holders.verdict("a", now=10, up_since=10) is SweepReason.HOLDER_GONE


def test_holders_that_expired_are_gone_after_a_moment(holders: Holders) -> None:
    """An expired heartbeat counts when it has stayed so for a moment, within two seconds; a beat in between saves it."""
    holders.beat(beat("a"))
    holders.gone("a", expired=True, now=100)
    assert holders.verdict("a", now=100.5, up_since=0) is None
    assert holders.verdict("a", now=102, up_since=0) is SweepReason.HOLDER_GONE
    holders.beat(beat("a"))
    assert holders.verdict("a", now=103, up_since=0) is None


def test_holders_are_not_judged_just_after_the_bus_came_back(holders: Holders) -> None:
    """Until everybody has had the time to beat again, a missing heartbeat proves nothing."""
    holders.gone("a", expired=True, now=100)
    assert holders.verdict("a", now=105, up_since=105 - GRACE_S + 0.1) is None
    assert holders.verdict("never-seen", now=105, up_since=105 - GRACE_S + 0.1) is None
    assert holders.verdict("never-seen", now=105, up_since=105 - GRACE_S) is SweepReason.HOLDER_GONE


def test_holders_are_replaced_by_a_later_boot_in_their_seat(holders: Holders) -> None:
    """The later boot of a seat replaces the earlier one, in whatever order they are heard; another seat does not."""
    for order in (("old", "new"), ("new", "old")):
        heard = Holders()
        for boot_id in order:
            heard.beat(beat(boot_id, started_s=10 if boot_id == "new" else 0))
        heard.beat(beat("other", seat="agent_runner-2", started_s=20))
        assert heard.verdict("old", now=0, up_since=0) is SweepReason.HOLDER_REPLACED
        assert heard.verdict("new", now=0, up_since=0) is None
        assert heard.verdict("other", now=0, up_since=0) is None
    holders.beat(beat("old"))
    holders.beat(beat("new", started_s=10))
    holders.gone("new", expired=False, now=0)
    assert holders.verdict("old", now=0, up_since=0) is None
