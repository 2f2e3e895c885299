"""The watch ring: who watches whom, who counts as silent, and when a sweep is late."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.liveness import Heartbeat
from services.fleet.spec import Monitor
from services.monitor import ring

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LIMITS = Monitor(every=100, grace=10)


def beat(kind: str, age_s: float) -> Heartbeat:
    """A heartbeat of that age."""
    return Heartbeat(
        daemon=kind,
        instance=kind,
        boot_id="b",
        host="h",
        home="x",
        pid=1,
        started_at=NOW,
        at=NOW - timedelta(seconds=age_s),
    )


@given(st.sets(st.sampled_from(ring.ORDER), min_size=2))
def test_ring_is_one_whole_circle(present: set[str]) -> None:
    """Whichever kinds a fleet has, following who watches whom comes past each of them once and back to the first."""
    first = min(present)
    seen, at = [first], ring.watched(first, present)
    while at != first:
        seen.append(at)
        at = ring.watched(at, present)
    assert sorted(seen) == sorted(present)


@pytest.mark.parametrize(
    ("kind", "present", "watches"),
    [
        ("launcher", {"launcher", "agent_runner", "warden"}, "agent_runner"),
        ("agent_runner", {"launcher", "agent_runner", "warden"}, "warden"),
        ("warden", {"launcher", "agent_runner", "warden"}, "launcher"),
        ("warden", {"launcher", "agent_runner", "warden", "projector"}, "projector"),
        ("launcher", {"launcher"}, ""),
        ("nats-server", {"launcher"}, ""),
    ],
)
def test_ring_leaves_out_what_a_fleet_does_not_have(kind: str, present: set[str], watches: str) -> None:
    """The neighbour is the next kind that is there; who is alone, or no daemon of ours, watches nobody."""
    assert ring.watched(kind, present) == watches


def test_kind_is_silent_when_none_of_it_beats() -> None:
    """One fresh beat of several is enough; old ones, and those of other kinds, are none."""
    assert ring.is_silent("warden", [beat("agent_runner", 0), beat("warden", 60)], NOW)
    assert not ring.is_silent("warden", [beat("warden", 60), beat("warden", 3)], NOW)


@pytest.mark.parametrize(
    ("last_s", "since_s", "late"),
    [
        (50, 1000, 0),
        (109, 1000, 0),
        (111, 1000, 11),
        (500, 50, 0),
        (500, 120, 20),
        (None, 50, 0),
        (None, 120, 20),
    ],
)
def test_sweep_is_late_after_its_grace_and_only_for_who_was_there(
    last_s: float | None, since_s: float, late: float
) -> None:
    """A sweep is late when one interval and the grace have passed since the last, or since the watcher began to watch."""
    last = None if last_s is None else NOW - timedelta(seconds=last_s)
    assert ring.late_by(last, NOW - timedelta(seconds=since_s), NOW, LIMITS) == late
