"""One action, folded from its events; and whether it may begin."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

from bus.events import ops as ev
from services.ops.operation import No, Operation, Status, aged, decide, evolve

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
ASKED = ev.Requested(action="restart", target="warden", who="ann", why="slow", decision=3)


def folded(*events: ev.OpsEvent) -> Operation:
    """The action after these events."""
    state: Operation | None = None
    for event in events:
        state = evolve(state, "id", event, NOW)
    assert state is not None
    return state


def test_action_is_what_its_events_say() -> None:
    """Asked for, begun and done: who, why, the decision, the evidence and how long it took."""
    evidence = msgspec.Raw(b'{"pid":7}')
    done = folded(
        ASKED, ev.Started(limit_s=9, lock="daemon warden"), ev.Finished(ok=True, took_s=1.5, evidence=evidence)
    )
    assert (done.status, done.sentence, done.why, done.decision) == (Status.DONE, "restart of warden by ann", "slow", 3)
    assert (done.took_s, done.evidence) == (1.5, evidence)
    assert folded(ASKED, ev.Refused(reason="no", command="x")).status is Status.REFUSED
    failed = ev.Finished(ok=False, took_s=1, evidence=evidence)
    assert folded(ASKED, ev.Started(limit_s=9), failed).status is Status.FAILED


def test_action_that_nobody_asked_for_is_none() -> None:
    """Events without a request before them make no action."""
    assert evolve(None, "id", ev.Started(limit_s=1), NOW) is None


def test_action_that_nothing_is_heard_of_is_abandoned() -> None:
    """After its time an action that never ended counts as abandoned, and holds nobody up."""
    running = folded(ASKED, ev.Started(limit_s=10, lock="daemon warden"))
    assert aged(running, NOW + timedelta(seconds=9)).status is Status.RUNNING
    late = aged(running, NOW + timedelta(seconds=10))
    assert late.status is Status.ABANDONED
    assert decide(None, "daemon warden", 5, [late]) == ev.Started(limit_s=5, lock="daemon warden")


def test_action_does_not_begin_while_another_holds_what_it_needs() -> None:
    """The same lock is a refusal that says who holds it since when; another lock, or none, is not."""
    running = folded(ASKED, ev.Started(limit_s=10, lock="daemon warden"))
    refused = decide(None, "daemon warden", 5, [running])
    assert isinstance(refused, ev.Refused)
    assert refused.reason == (
        "expected nobody else at work on daemon warden, got: the restart of warden by ann runs since 2026-11-25 12:00:00 UTC (id)"
    )
    assert isinstance(decide(None, "daemon other", 5, [running]), ev.Started)
    assert isinstance(decide(None, "", 5, [running]), ev.Started)


def test_action_whose_check_says_no_is_refused_with_its_command() -> None:
    """The check's own reason and command are what is recorded."""
    assert decide(No("why not", "do this"), "", 5, []) == ev.Refused(reason="why not", command="do this")
