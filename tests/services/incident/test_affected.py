"""Which projects an incident hits, with the reason for each: by kind, by role, by guards, and by who asked whom."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from bus.events import incident as ev
from bus.events.finding import Kind, Severity
from bus.refusal import Reason, Refusal
from services.incident.affected import Scene, impacts, news, waits
from services.incident.state import Incident, evolve
from services.loop.tree import Forest, Node, Tree

T0 = datetime(2026, 11, 25, 3, tzinfo=UTC)
ROLES = frozenset({"shop/coder", "shop/reviewer", "ledger/bookkeeper", "lab/mouse"})


def _incident(kind: Kind, subject: str) -> Incident:
    event = ev.Declared(
        title="12 dead letters wait",
        severity=Severity.ULTRA,
        by="monitor",
        since=T0,
        finding="f1",
        kind=kind,
        subject=subject,
    )
    state = evolve(None, 1, event, 1, T0)
    assert state is not None
    return state


def _said(found: tuple[ev.Impact, ...]) -> dict[str, str]:
    return {impact.project: impact.reason for impact in found}


def test_affected_what_stops_all_work_hits_all() -> None:
    """A freeze, a dead server and the absence of runners hit every project, each in its own words."""
    for kind, words in ((Kind.FROZEN, "kill switch"), (Kind.NO_RUNNER, "nobody runs work"), (Kind.BUS_DOWN, "bus")):
        found = _said(impacts(_incident(kind, "x"), Scene(roles=ROLES)))
        assert found.keys() == {"shop", "ledger", "lab"}
        assert all(words in reason for reason in found.values())
    assert (
        "tables stand still" in _said(impacts(_incident(Kind.DAEMON_DOWN, "projector@vm"), Scene(roles=ROLES)))["lab"]
    )


def test_affected_absence_of_a_daemon_hits_all_in_its_words() -> None:
    """Whatever says that a daemon is gone, its kind says what that means; a role of that name is no daemon."""
    for kind, subject in ((Kind.PERSON_NEEDED, "agent_runner-1@vm"), (Kind.DAEMON_SILENT, "agent_runner")):
        found = _said(impacts(_incident(kind, subject), Scene(roles=ROLES)))
        assert found == dict.fromkeys(["lab", "ledger", "shop"], "a runner is away: work may wait")
    role = Scene(roles=ROLES | {"warden/keeper"})
    assert _said(impacts(_incident(Kind.DEAD_LETTERS, "warden/keeper"), role)).keys() == {"warden"}


def test_affected_role_hits_its_project_and_those_that_wait_for_it() -> None:
    """A role's trouble is its project's, and that of projects whose unfinished work has asked it, also through others."""
    tree = Tree(
        "r1",
        {
            "r1": Node("ledger/bookkeeper", "k1"),
            "r2": Node("shop/reviewer", "k2", 1, "r1", "ledger/bookkeeper"),
            "r3": Node("shop/coder", "k3", 2, "r2", "shop/reviewer"),
        },
    )
    over = Tree("r4", {"r4": Node("lab/mouse", "k4"), "r5": Node("shop/coder", "k5", 1, "r4", "lab/mouse", open=False)})
    scene = Scene(roles=ROLES, waits=waits(Forest(trees={"r1": tree, "r4": over})))
    assert _said(impacts(_incident(Kind.DEAD_LETTERS, "shop/coder"), scene)) == {
        "shop": "shop/coder: 12 dead letters wait",
        "ledger": "ledger/bookkeeper has asked shop/coder (12 dead letters wait)",
    }


def test_affected_guards_that_stand_because_of_it_count() -> None:
    """A refusal hits what it covers if it began with the incident or covers one of its roles; an older one does not."""
    old = Refusal(
        reason=Reason.PAUSED, scope="lab/mouse", because="cheese is out", since=datetime(2026, 1, 1, tzinfo=UTC)
    )
    new = Refusal(reason=Reason.PAUSED, scope="ledger", because="precaution (ann)", since=T0)
    found = _said(impacts(_incident(Kind.DEAD_LETTERS, "shop/coder"), Scene(roles=ROLES, refusals=(old, new))))
    assert found.keys() == {"shop", "ledger"}
    assert found["ledger"] == "ledger/bookkeeper is paused: precaution (ann)"


def test_affected_news_adds_and_never_takes_away() -> None:
    """Only what the incident does not say yet is news; a project that a person described keeps those words."""
    state = _incident(Kind.DEAD_LETTERS, "shop/coder")
    person = ev.Impact(project="ledger", reason="invoices wait", by="ann")
    graph = ev.Impact(project="shop", reason="a")
    state = msgspec.structs.replace(state, affected={"ledger": person, "shop": graph})
    found = (ev.Impact(project="ledger", reason="b"), ev.Impact(project="shop", reason="b; a"))
    assert news(state, found) == (ev.Impact(project="shop", reason="a; b"),)
    assert news(state, (graph,)) == ()
