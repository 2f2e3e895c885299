"""The panel's verdict: what is nominal, what concerns a person, and what pages one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from bus import flags
from projections.standing import State as Tables
from services.freezes import Freeze
from services.health.daemons import DaemonLine, State
from services.health.panel import Panel, RoleLine, TripLine, Verdict
from services.health.verdict import judge
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
    found, reasons = judge(msgspec.structs.replace(GOOD, **change))
    assert found is verdict
    assert any(said in reason for reason in reasons) or not said
    assert bool(reasons) is (verdict is not Verdict.NOMINAL)


def test_verdict_names_the_command_of_a_daemon_that_is_down() -> None:
    """A daemon that the launcher gave up on is ultra, with what a person has to run; the worst comes first."""
    down = DaemonLine(name="warden", state=State.DOWN, daemon="warden", note="run: systems start warden")
    panel = msgspec.structs.replace(GOOD, daemons=(*GOOD.daemons, down), dead_letters=1)
    verdict, reasons = judge(panel)
    assert verdict is Verdict.ULTRA
    assert reasons[0] == "warden is down: run: systems start warden"
