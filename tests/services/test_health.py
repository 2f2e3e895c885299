"""The panel's verdict: what is nominal, what concerns a person, and what pages one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from bus import flags
from bus.liveness import Heartbeat
from projections.standing import State as Tables
from services import health
from services.freezes import Freeze
from services.health import DaemonLine, Panel, RoleLine, State, TripLine, Verdict
from services.projector.line import TablesLine

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RUNNER = DaemonLine(name="agent_runner-1", state=State.ALIVE, daemon="agent_runner")
GOOD = Panel(
    at=NOW,
    verdict=Verdict.NOMINAL,
    reasons=(),
    daemons=(DaemonLine(name="launcher", state=State.ALIVE, daemon="launcher"), RUNNER),
    roles=(RoleLine(role="shop/coder", backlog=5),),
    dead_letters=0,
    oldest_in_flight_s=None,
    oldest_in_flight="",
    last_errors=(),
    kill_switch=Freeze(mode=flags.Mode.CLEAR),
    guards=(),
)


def beat(**more: Any) -> Heartbeat:
    """A runner's heartbeat of an hour's life, stored just now."""
    facts: dict[str, Any] = {"daemon": "agent_runner", "started_at": NOW - timedelta(hours=1), "at": NOW} | more
    return Heartbeat(instance="i", boot_id="b", host="h", home="x", pid=1, **facts)


@pytest.mark.parametrize(
    ("change", "verdict", "said"),
    [
        ({}, Verdict.NOMINAL, ""),
        ({"dead_letters": 2}, Verdict.CONCERN, "2 dead letters wait"),
        ({"kill_switch": Freeze(mode=flags.Mode.HARD)}, Verdict.CONCERN, "frozen (hard)"),
        ({"kill_switch": Freeze(mode=flags.Mode.CLEAR, thawing=True)}, Verdict.CONCERN, "thawing"),
        ({"kill_switch": Freeze(mode=flags.Mode.CLEAR, problem="the flag was deleted")}, Verdict.CONCERN, "deleted"),
        (
            {"kill_switch": Freeze(mode=flags.Mode.SOFT, writes=3)},
            Verdict.ULTRA,
            "3 events were stored after the freeze",
        ),
        (
            {"kill_switch": Freeze(mode=flags.Mode.SOFT, missing=("warden",), overdue=("warden",))},
            Verdict.ULTRA,
            "no receipt of the freeze from warden",
        ),
        (
            {"trips": (TripLine(key="quota.x", scope="shop", sentence="shop is refused"),)},
            Verdict.CONCERN,
            "shop is refused",
        ),
        (
            {"tables": TablesLine(state=Tables.STALLED, problem="no room")},
            Verdict.CONCERN,
            "the tables stand still: no room",
        ),
        (
            {"tables": TablesLine(state=Tables.BUILDING, behind=5, seconds=31)},
            Verdict.CONCERN,
            "made anew and are 5 events",
        ),
        (
            {"tables": TablesLine(state=Tables.FOLLOWING, behind=5, seconds=31)},
            Verdict.CONCERN,
            "5 events and 31 s behind",
        ),
        ({"tables": TablesLine(state=Tables.FOLLOWING, behind=5000, seconds=2)}, Verdict.NOMINAL, ""),
        ({"unseen": ("claims",)}, Verdict.CONCERN, "not seen: claims"),
        ({"daemons": ()}, Verdict.ULTRA, "no agent_runner is alive; 5 invocations wait"),
        ({"daemons": (), "unseen": ("claims",)}, Verdict.ULTRA, "no agent_runner is alive"),
        ({"daemons": (), "roles": ()}, Verdict.CONCERN, "no agent_runner is alive"),
    ],
)
def test_verdict_follows_what_is_seen(change: dict[str, Any], verdict: Verdict, said: str) -> None:
    """Each fault has its verdict and its reason; work that nobody does is ultra, also when the warden is silent."""
    found, reasons = health.judge(msgspec.structs.replace(GOOD, **change))
    assert found is verdict
    assert any(said in reason for reason in reasons) or not said
    assert bool(reasons) is (verdict is not Verdict.NOMINAL)


def test_verdict_names_the_command_of_a_daemon_that_is_down() -> None:
    """A daemon that the launcher gave up on is ultra, with what a person has to run; the worst comes first."""
    down = DaemonLine(name="warden", state=State.DOWN, daemon="warden", note="run: systems start warden")
    panel = msgspec.structs.replace(GOOD, daemons=(*GOOD.daemons, down), dead_letters=1)
    verdict, reasons = health.judge(panel)
    assert verdict is Verdict.ULTRA
    assert reasons[0] == "warden is down: run: systems start warden"


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        ({"last_empty_at": NOW}, State.ALIVE),
        ({"last_message_at": NOW - timedelta(seconds=health.DEAF_S - 1)}, State.ALIVE),
        ({"last_message_at": NOW - timedelta(seconds=health.DEAF_S + 1)}, State.DEAF),
        ({"at": NOW - timedelta(seconds=health.LATE_S + 1), "last_empty_at": NOW}, State.LATE),
        ({"started_at": NOW - timedelta(seconds=1)}, State.STARTING),
        ({}, State.DEAF),
        ({"daemon": "launcher"}, State.ALIVE),
    ],
)
def test_state_needs_evidence_of_work(facts: dict[str, Any], state: State) -> None:
    """Beating is not enough: a daemon that nothing reaches is deaf, and one without a beat is late."""
    assert health.state_of(beat(**facts), NOW) is state
