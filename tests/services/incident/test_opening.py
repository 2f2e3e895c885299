"""Findings become incidents: which one opens one, joins one, opens one again, and which does nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from bus.events import finding as fe
from bus.events import incident as ev
from bus.events.finding import Kind, Severity
from bus.store import Recorded
from services.fleet.duty import Incidents
from services.incident import commands as ask
from services.incident.decision import decide
from services.incident.opening import Act, Declare, Standing, about, next_step, stand
from services.incident.state import Incident, Status, evolve
from services.monitor.finding import Finding

T0 = datetime(2026, 11, 25, 3, tzinfo=UTC)
LIMITS = Incidents(reopen_within=3600)


class World:
    """Findings and incidents as a handler sees them, with a clock that the test moves."""

    def __init__(self) -> None:
        self.standing: dict[str, Standing] = {}
        self.incidents: dict[int, Incident] = {}
        self.now = T0
        self._seq = 0

    def finding(self, kind: Kind, subject: str, severity: Severity = Severity.ULTRA, cause: str = "") -> str:
        """A finding opens: its fingerprint."""
        found = Finding(kind=kind, severity=severity, subject=subject, title=f"{kind} {subject}", since=self.now)
        event = fe.Opened(kind=kind, severity=severity, subject=subject, title=found.title, since=self.now, cause=cause)
        self.says(found.fingerprint, event)
        return found.fingerprint

    def says(self, print_: str, event: object) -> None:
        """An event of a finding."""
        self._seq += 1
        record = Recorded(self._seq, f"ctl.finding.{print_}.x", self.now, None, event)
        after = stand(self.standing.get(print_), record)
        if after is None:
            self.standing.pop(print_, None)
        else:
            self.standing[print_] = after

    def act(self, number: int, command: ask.Command) -> None:
        """A command to an incident."""
        for event in decide(self.incidents[number], command, self.now):
            self._fold(number, event)

    def _fold(self, number: int, event: ev.IncidentEvent) -> None:
        self._seq += 1
        state = evolve(self.incidents.get(number), number, event, self._seq, self.now)
        assert state is not None
        self.incidents[number] = state

    def settle(self) -> list[str]:
        """Do what follows until nothing does: what was done."""
        done: list[str] = []
        while (step := next_step(self.incidents, self.standing, LIMITS, self.now)) is not None:
            assert len(done) < 50, "it does not come to rest"
            if isinstance(step, Declare):
                number = max(self.incidents, default=0) + 1
                self._fold(number, step.event)
                done.append(f"declare {number}")
            else:
                assert isinstance(step, Act)
                self.act(step.number, step.command)
                done.append(f"{type(step.command).__name__.lower()} {step.number}")
        return done


def test_opening_ultra_that_speaks_opens_one() -> None:
    """An ultra opens an incident; a concern, one that is silenced and one that is explained do not."""
    world = World()
    world.finding(Kind.BACKLOG, "shop/coder", Severity.CONCERN)
    muted = world.finding(Kind.STRANDED, "ledger/bookkeeper", cause="somewhere else")
    silenced = world.finding(Kind.DRILL_FAILED, "kill switch")
    world.says(silenced, fe.Silenced(owner="ann", reason="known", until=T0 + timedelta(hours=1)))
    assert world.settle() == []
    world.says(silenced, fe.Unsilenced(reason=fe.UnsilenceReason.TIME, owner="ann"))
    assert world.settle() == ["declare 1"]
    assert world.incidents[1].findings.keys() == {silenced}
    assert muted not in world.incidents[1].findings


def test_opening_one_cause_is_one_incident() -> None:
    """What the root explains, what is about the same thing and what explains it join; what is not related opens another."""
    world = World()
    root = world.finding(Kind.DAEMON_DOWN, "agent_runner-1@vm")
    assert world.settle() == ["declare 1"]
    explained = world.finding(Kind.NO_RUNNER, "fleet", cause=root)
    same = world.finding(Kind.DAEMON_SILENT, "agent_runner")
    assert world.settle() == ["join 1", "join 1"]
    parts = world.incidents[1].findings
    assert (parts[explained].reason, parts[explained].severity) == (ev.JoinReason.CAUSE, Severity.CONCERN)
    assert parts[same].reason is ev.JoinReason.SUBJECT
    world.finding(Kind.ARCHIVE_GAP, "INVOCATIONS 12")
    assert world.settle() == ["declare 2"]


def test_opening_late_root_joins_what_it_explains() -> None:
    """A root that is found after what it explains joins the incident that was opened for that."""
    world = World()
    leaf = world.finding(Kind.NO_RUNNER, "agent_runner pool")
    assert world.settle() == ["declare 1"]
    root = world.finding(Kind.BUS_DOWN, "nats-server")
    world.says(leaf, fe.Changed(change=fe.Change.MUTED, severity=Severity.ULTRA, title="no runner", cause=root))
    assert world.settle() == ["join 1", "join 1"]
    assert world.incidents[1].findings[root].reason is ev.JoinReason.CAUSE


def test_opening_gone_finding_recovers_and_closes_nothing() -> None:
    """When its findings are gone the incident says so and stays open for a person."""
    world = World()
    print_ = world.finding(Kind.WRITTEN_FROZEN, "INVOCATIONS")
    world.settle()
    world.says(print_, fe.Closed(reason=fe.CloseReason.GONE))
    assert world.settle() == ["recover 1"]
    assert world.incidents[1].open
    assert world.incidents[1].left == 0
    world.finding(Kind.WRITTEN_FROZEN, "INVOCATIONS")
    assert world.settle() == ["join 1"]
    assert world.incidents[1].findings[print_].reason is ev.JoinReason.BACK


def test_opening_closed_one_comes_back_within_its_time() -> None:
    """Back within the time it is the same incident again, later a new one; what stood at the close opens nothing."""
    world = World()
    print_ = world.finding(Kind.WRITTEN_FROZEN, "INVOCATIONS")
    world.settle()
    world.now += timedelta(minutes=1)
    world.act(1, ask.Close(by="ann", cause="a test"))
    assert world.settle() == [], "a person has closed it while it is there"
    world.says(print_, fe.Closed(reason=fe.CloseReason.GONE))
    world.now += timedelta(minutes=50)
    world.finding(Kind.WRITTEN_FROZEN, "INVOCATIONS")
    assert world.settle() == ["reopen 1"]
    assert world.incidents[1].status is Status.DECLARED
    world.says(print_, fe.Closed(reason=fe.CloseReason.GONE))
    assert world.settle() == ["recover 1"]
    world.act(1, ask.Close(by="ann", cause="a test"))
    world.now += timedelta(minutes=61)
    world.finding(Kind.WRITTEN_FROZEN, "INVOCATIONS")
    assert world.settle() == ["declare 2"]


def test_opening_concern_that_turns_ultra_wakes_people() -> None:
    """A joined concern that becomes ultra is told to its incident, and opens a mitigated one again."""
    world = World()
    world.finding(Kind.DEAD_LETTERS, "shop/coder")
    print_ = world.finding(Kind.BACKLOG, "shop/coder", Severity.CONCERN)
    assert world.settle() == ["declare 1", "join 1"]
    world.act(1, ask.Mitigate("ann"))
    world.says(print_, fe.Changed(change=fe.Change.WORSE, severity=Severity.ULTRA, title="it grows"))
    assert world.settle() == ["join 1"]
    assert world.incidents[1].pages


def test_opening_subjects_are_about_the_same() -> None:
    """A seat is about its kind of daemon, and what was raised about who raised it."""
    assert about("agent_runner-1@vm") == about("agent_runner") == "agent_runner"
    assert about("shop/coder: the shop is on fire") == "shop/coder"
    assert about("kill switch") == "kill switch"
    assert about("INVOCATIONS 12") == "INVOCATIONS 12"


def test_opening_what_had_happened_before_the_close_is_no_new_incident() -> None:
    """A daemon that a person has started is found to have ended, just after the close: nobody is called for that again."""
    world = World()
    down = world.finding(Kind.DAEMON_DOWN, "agent_runner-1@vm")
    silent = world.finding(Kind.DAEMON_SILENT, "agent_runner", cause=down)
    world.settle()
    ended_at = world.now
    world.now += timedelta(minutes=1)
    world.act(1, ask.Close(by="ann", cause="it was killed"))
    ended = Finding(
        kind=Kind.DAEMON_ENDED, severity=Severity.ULTRA, subject="agent_runner-1@vm", title="", since=ended_at
    )
    event = fe.Opened(
        kind=ended.kind, severity=ended.severity, subject=ended.subject, title="it had ended", since=ended_at
    )
    muted = fe.Changed(change=fe.Change.MUTED, severity=Severity.ULTRA, title="", cause=ended.fingerprint)
    world.says(ended.fingerprint, event)
    assert world.settle() == []
    world.says(silent, muted)
    world.says(down, fe.Closed(reason=fe.CloseReason.GONE))
    assert world.settle() == []

    # What it explains from now on is news.
    world.says(silent, fe.Closed(reason=fe.CloseReason.GONE))
    assert world.settle() == []
    world.now += timedelta(minutes=1)
    world.finding(Kind.NO_CONSUMERS, "shop/coder", cause=ended.fingerprint)
    assert world.settle() == ["declare 2", "join 2"]


def test_opening_daemon_that_ends_after_the_close_is_a_new_incident() -> None:
    """The same daemon ends once more after the close, and an ultra that began before it but is no mere event calls as well."""
    world = World()
    down = world.finding(Kind.DAEMON_DOWN, "agent_runner-1@vm")
    world.settle()
    world.says(down, fe.Closed(reason=fe.CloseReason.GONE))
    world.act(1, ask.Close(by="ann", cause="it was killed"))
    world.now += timedelta(seconds=1)
    ended = world.finding(Kind.DAEMON_ENDED, "agent_runner-1@vm")
    assert world.settle() == ["declare 2"]
    world.says(ended, fe.Closed(reason=fe.CloseReason.GONE))
    world.act(2, ask.Close(by="ann", cause="it was killed"))
    deaf = Finding(kind=Kind.DAEMON_DEAF, severity=Severity.ULTRA, subject="agent_runner-1@vm", title="deaf", since=T0)
    event = fe.Opened(kind=deaf.kind, severity=deaf.severity, subject=deaf.subject, title=deaf.title, since=T0)
    world.says(deaf.fingerprint, event)
    assert world.settle() == ["declare 3"]
