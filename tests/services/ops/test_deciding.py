"""What a person may still decide about a triage's proposal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from bus import errors
from bus.events import finding as ev
from services.monitor.finding import Finding
from services.monitor.memory import Known
from services.ops.deciding import Proposal, standing
from services.ops.operation import Operation, Status

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
KNOWN = Known(
    finding=Finding(kind=ev.Kind.DAEMON_DEAF, severity=ev.Severity.CONCERN, subject="warden", title="deaf", since=NOW)
)
RESTART = ev.Proposal(action="restart", target="warden", why="it is deaf")
PROPOSED = ev.Proposed(invocation="i1", proposals=(RESTART,))
MEANT = Proposal(fingerprint="f1", invocation="i1", place=0)


def done(status: Status, *, reason: str = "", at: datetime = NOW, why: str = "finding f1: it is deaf") -> Operation:
    """An action as somebody has asked for it."""
    return Operation(
        id="o", action="restart", target="warden", who="bob", why=why, status=status, requested_at=at, reason=reason
    )


@pytest.mark.parametrize(
    "before",
    [
        [],
        [done(Status.FAILED)],
        [done(Status.ABANDONED)],
        [done(Status.REFUSED, reason="somebody else is at work")],
        [done(Status.DONE, why="finding f2: another one")],
        [done(Status.DONE, at=NOW - timedelta(hours=1))],
    ],
)
def test_a_proposal_stands_until_it_is_done_or_rejected(before: list[Operation]) -> None:
    """What failed, what belongs to another finding and what was done about an earlier time of this one decide nothing."""
    assert standing(MEANT, KNOWN, PROPOSED, before) is RESTART


@pytest.mark.parametrize(
    ("known", "proposed", "before", "said"),
    [
        (None, PROPOSED, [], "got: it is closed since"),
        (KNOWN, None, [], "got an older one"),
        (KNOWN, ev.Proposed(invocation="i2", proposals=(RESTART,)), [], "got an older one"),
        (KNOWN, ev.Proposed(invocation="i1"), [], "got an older one"),
        (KNOWN, PROPOSED, [done(Status.DONE)], "restart of warden by bob is done"),
        (KNOWN, PROPOSED, [done(Status.RUNNING)], "restart of warden by bob is running"),
        (KNOWN, PROPOSED, [done(Status.REFUSED, reason="rejected by bob: no")], "got: rejected by bob: no"),
    ],
)
def test_what_has_happened_since_is_told(
    known: Known | None, proposed: ev.Proposed | None, before: list[Operation], said: str
) -> None:
    """A finding that is gone, a newer answer, an action that runs, is done or was rejected: nothing is left to decide."""
    with pytest.raises(errors.Conflict) as caught:
        standing(MEANT, known, proposed, before)
    assert said in str(caught.value)
