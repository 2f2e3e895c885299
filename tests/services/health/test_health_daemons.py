"""A daemon's state is what its evidence says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bus.liveness import Heartbeat
from services.health.daemons import DEAF_S, LATE_S, State, state_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def beat(**more: Any) -> Heartbeat:
    """A runner's heartbeat of an hour's life, stored just now."""
    facts: dict[str, Any] = {"daemon": "agent_runner", "started_at": NOW - timedelta(hours=1), "at": NOW} | more
    return Heartbeat(instance="i", boot_id="b", host="h", home="x", pid=1, **facts)


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        ({"last_empty_at": NOW}, State.ALIVE),
        ({"last_message_at": NOW - timedelta(seconds=DEAF_S - 1)}, State.ALIVE),
        ({"last_message_at": NOW - timedelta(seconds=DEAF_S + 1)}, State.DEAF),
        ({"at": NOW - timedelta(seconds=LATE_S + 1), "last_empty_at": NOW}, State.LATE),
        ({"started_at": NOW - timedelta(seconds=1)}, State.STARTING),
        ({}, State.DEAF),
        ({"daemon": "launcher"}, State.ALIVE),
    ],
)
def test_state_needs_evidence_of_work(facts: dict[str, Any], state: State) -> None:
    """Beating is not enough: a daemon that nothing reaches is deaf, and one without a beat is late."""
    assert state_of(beat(**facts), NOW) is state
