"""Incidents: what may follow what, for any history that people, findings and the pager can make together."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.events import incident as ev
from bus.events.finding import Kind, Severity
from bus.store import read
from services.incident import commands as ask
from services.incident.decision import MACHINES, IncidentRefused, decide
from services.incident.ledger import fold
from services.incident.state import Incident, Status, evolve

T0 = datetime(2026, 11, 25, 3, tzinfo=UTC)
PEOPLE = st.sampled_from(["ann", "bob"])
ANYBODY = st.sampled_from(["ann", "bob", "monitor", "shop/coder", ""])
FINDINGS = st.sampled_from(["f1", "f2", "f3"])
PROJECTS = st.sampled_from(["shop", "ledger", "lab"])
SEVERITIES = st.sampled_from(Severity)
TEXTS = st.sampled_from(["", " ", "the disk is full"])


def declared(severity: Severity = Severity.ULTRA) -> Incident:
    """An incident that was just declared."""
    event = ev.Declared(
        title="no runner",
        severity=severity,
        by="monitor",
        since=T0,
        finding="f1",
        kind=Kind.NO_RUNNER,
        subject="fleet",
        affected=(ev.Impact(project="shop", reason="no runner"),),
        next_at=T0 + timedelta(minutes=30),
    )
    state = evolve(None, 1, event, 1, T0)
    assert state is not None
    return state


@st.composite
def _moments(draw: st.DrawFn) -> datetime:
    return T0 + timedelta(minutes=draw(st.integers(0, 300)))


def _join(finding: str, severity: Severity) -> ask.Join:
    return ask.Join(
        finding=finding,
        kind=Kind.BACKLOG,
        severity=severity,
        title="it waits",
        subject="shop/coder",
        reason=ev.JoinReason.SUBJECT,
    )


def _page(page: str, person: str, way: str, level: int, turn: int, attempt: int) -> ask.Page:
    return ask.Page(
        ev.PageDue(
            page=page, person=person, way=way, carrier=ev.Carrier.APPRISE, level=level, turn=turn, attempt=attempt
        )
    )


def _answer(page: str, ok: bool) -> ask.Answer:
    return ask.Answer(
        ev.Paged(page=page, person="ann", way="mail", level=1, attempt=1, ok=ok, error="" if ok else "refused")
    )


_PAGES = st.sampled_from(["p1", "p2", "p3", "p4"])
_SMALL = st.integers(1, 3)
COMMANDS: st.SearchStrategy[ask.Command] = st.one_of(
    st.builds(ask.Acknowledge, by=ANYBODY, until=st.none() | _moments(), take=st.booleans()),
    st.builds(ask.Expire),
    st.builds(_join, FINDINGS, SEVERITIES),
    st.builds(ask.Recover, FINDINGS),
    st.builds(ask.Update, by=PEOPLE, text=TEXTS, next_at=st.none() | _moments()),
    st.builds(ask.Tick, _moments()),
    st.builds(ask.Note, PEOPLE, TEXTS),
    st.builds(ask.Assign, PEOPLE, PEOPLE),
    st.builds(ask.ChangeSeverity, PEOPLE, SEVERITIES),
    st.builds(
        ask.Affect,
        by=st.sampled_from(["ann", "graph"]),
        add=st.lists(st.builds(ev.Impact, project=PROJECTS, reason=TEXTS, by=st.just("graph")), max_size=2).map(tuple),
        remove=st.lists(PROJECTS, max_size=2).map(tuple),
    ),
    st.builds(ask.Mitigate, ANYBODY),
    st.builds(ask.Close, by=ANYBODY, cause=TEXTS),
    st.builds(ask.Reopen, by=PEOPLE, why=TEXTS),
    st.builds(_page, _PAGES, PEOPLE, st.sampled_from(["mail", "sms"]), _SMALL, _SMALL, _SMALL),
    st.builds(_answer, _PAGES, st.booleans()),
    st.builds(ask.Judge),
    st.builds(ask.Draft, TEXTS),
)
HISTORIES = st.lists(st.tuples(COMMANDS, _moments()), max_size=40)


def play(history: list[tuple[ask.Command, datetime]]) -> list[tuple[Incident, ask.Command, ev.IncidentEvent, Incident]]:
    """What a history comes to: each event that was accepted, with the state before and after it."""
    state, seq, at, found = declared(), 1, T0, []
    for command, moment in history:
        at = max(at, moment)
        try:
            events = decide(state, command, at)
        except IncidentRefused:
            continue
        for event in events:
            seq += 1
            after = evolve(state, 1, event, seq, at)
            assert after is not None
            found.append((state, command, event, after))
            state = after
    return found


@settings(max_examples=50, deadline=None)
@given(HISTORIES)
def test_incident_fold_is_consistent(history: list[tuple[ask.Command, datetime]]) -> None:
    """After any accepted event status, owner, times, fence and paging agree with one another."""
    for before, _, _, after in play(history):
        assert after.last_seq > before.last_seq
        assert (after.status is Status.CLOSED) == (after.closed_at is not None) == bool(after.closed_by)
        assert not (after.status is Status.ACKNOWLEDGED and not after.owner)
        assert not (after.status is Status.DECLARED and after.owner)
        assert not (after.status is Status.MITIGATED and after.mitigated_at is None)
        assert (after.next_at is None) or after.open
        assert not (after.paging_failed_at is not None and after.status in {Status.ACKNOWLEDGED, Status.CLOSED})
        assert after.round >= before.round
        assert len({(line.level, line.person, line.way) for line in after.lines}) == len(after.lines)
        assert not set(after.spared) & set(after.affected)


@settings(max_examples=50, deadline=None)
@given(HISTORIES)
def test_incident_pages_nobody_after_acknowledgement_or_close(history: list[tuple[ask.Command, datetime]]) -> None:
    """A call is ordered only while the incident is ultra and nobody has it, and never twice."""
    for before, _, event, _ in play(history):
        if isinstance(event, ev.PageDue):
            assert before.status is Status.DECLARED
            assert before.severity is Severity.ULTRA
            same = [
                line
                for line in before.lines
                if (line.level, line.person, line.way) == (event.level, event.person, event.way)
            ]
            assert all((line.turn, line.attempt) < (event.turn, event.attempt) for line in same)


@settings(max_examples=50, deadline=None)
@given(HISTORIES)
def test_incident_closes_only_by_a_person_and_once(history: list[tuple[ask.Command, datetime]]) -> None:
    """Each close has a person, a cause, and an open incident before it."""
    for before, _, event, after in play(history):
        if isinstance(event, ev.Closed):
            assert before.open
            assert event.by not in MACHINES
            assert "/" not in event.by
            assert event.cause.strip()
        if not before.open and after.open:
            assert isinstance(event, ev.Reopened)


@settings(max_examples=50, deadline=None)
@given(HISTORIES)
def test_incident_believes_people_over_the_graph(history: list[tuple[ask.Command, datetime]]) -> None:
    """A project that a person has removed comes back only by a person."""
    for before, command, event, after in play(history):
        if isinstance(event, ev.Affected) and isinstance(command, ask.Affect) and command.by == "graph":
            assert not set(before.spared) & set(after.affected)


@settings(max_examples=50, deadline=None)
@given(HISTORIES)
def test_incident_says_once_that_all_paging_fails(history: list[tuple[ask.Command, datetime]]) -> None:
    """All ways failing is told when it begins and when it ends, each once, and only when it is so."""
    for before, _, event, after in play(history):
        match event:
            case ev.PagingFailed():
                assert before.paging_failed_at is None
                assert after.lines
                assert all(line.failing for line in after.lines)
            case ev.PagingRecovered():
                assert before.paging_failed_at is not None
                assert after.paging_failed_at is None
            case _:
                pass


def test_incident_second_close_is_told_who_was_first() -> None:
    """Of two who close at once the second one hears who has, when and why, and what opens it again."""
    state = declared()
    [closed] = decide(state, ask.Close(by="ann", cause="the disk was full"), T0)
    after = evolve(state, 1, closed, 2, T0)
    assert after is not None
    with pytest.raises(IncidentRefused, match=r"ann closed it at 2026-11-25 03:00:00 UTC \(the disk was full\)") as no:
        decide(after, ask.Close(by="bob", cause="no idea"), T0)
    assert "systems incident reopen 1" in str(no.value)


def test_incident_is_reopened_when_its_mitigation_does_not_hold() -> None:
    """An ultra that joins a mitigated incident pages people again."""
    state = declared()
    commands: list[ask.Command] = [ask.Mitigate("ann"), _join("f2", Severity.ULTRA)]
    for seq, command in enumerate(commands, 2):
        for event in decide(state, command, T0):
            after = evolve(state, 1, event, seq, T0)
            assert after is not None
            state = after
    assert state.pages
    assert state.round == 2
    assert set(state.findings) == {"f1", "f2"}


def test_incident_acknowledgement_has_one_owner() -> None:
    """Who acknowledges second is told who was first, and may take it over."""
    state = declared()
    until = T0 + timedelta(hours=1)
    [event] = decide(state, ask.Acknowledge(by="ann", until=until), T0)
    state = evolve(state, 1, event, 2, T0) or state
    with pytest.raises(IncidentRefused, match=r"ann has it since .* until 2026-11-25 04:00:00 UTC; take it over"):
        decide(state, ask.Acknowledge(by="bob", until=until), T0)
    assert decide(state, ask.Acknowledge(by="bob", until=until, take=True), T0) == [
        ev.Acknowledged(by="bob", until=until)
    ]
    later = msgspec.structs.replace(state, owner_until=until)
    assert isinstance(decide(later, ask.Expire(), until)[0], ev.AcknowledgementExpired)


@pytest.mark.parametrize(
    ("subject", "fence"),
    [
        ("ctl.incident.1.closed", 9),
        ("ctl.incident.1.closed.twice", 9),
        ("ctl.incident.2.closed", 1),
        ("ctl.incident.one.closed", 1),
        ("ctl.incident.\u00b9.closed", 1),
    ],
)
def test_incident_fold_of_rubbish_moves_a_fence_and_nothing_else(subject: str, fence: int) -> None:
    """Rubbish changes nothing of the incident that it names but the fence, and makes no other one."""
    state = declared()
    incidents = {1: state}
    fold(incidents, read(9, subject, T0, b"{"))
    assert incidents == {1: msgspec.structs.replace(state, last_seq=fence)}
