"""Where an incident stands: the fold of its events. Pure."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from bus.events import incident as ev
from bus.events.finding import Kind, Severity
from bus.events.moment import Moment

_change = msgspec.structs.replace


class Status(StrEnum):
    """Where an incident stands."""

    #: Nobody has it: if it is ultra, people are paged.
    DECLARED = "declared"
    ACKNOWLEDGED = "acknowledged"
    #: It does no more harm; updates are still owed.
    MITIGATED = "mitigated"
    CLOSED = "closed"


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A finding of an incident."""

    finding: str
    kind: Kind
    severity: Severity
    title: str
    subject: str
    reason: ev.JoinReason
    joined_at: Moment
    #: When it was gone; None while it is there.
    recovered_at: Moment | None = None


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One person called by one way in one step of the policy: the last order, and what became of it."""

    page: str
    person: str
    way: str
    carrier: ev.Carrier
    level: int
    turn: int
    attempt: int
    due_at: Moment
    target: str = ""
    #: When the last order was answered; None while nobody has answered it.
    answered_at: Moment | None = None
    #: The last answer was that it went out.
    ok: bool = False
    #: Answers in a row that it did not, and why.
    failures: int = 0
    error: str = ""

    @property
    def waits(self) -> bool:
        """Its last order is not answered."""
        return self.answered_at is None

    @property
    def failing(self) -> bool:
        """It does not work, as far as is known."""
        return self.failures > 0


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the next decision depends on, and what people are shown."""

    number: int
    title: str
    severity: Severity
    status: Status
    declared_at: Moment
    #: Who declared it: ``monitor`` or a person.
    by: str
    #: When what is wrong began.
    since: Moment
    #: Stream sequence of its last event: the fence of the next one.
    last_seq: int
    detail: str = ""
    command: str = ""
    #: What it is about; empty where nobody says.
    subject: str = ""
    #: Its findings by fingerprint.
    findings: dict[str, Part] = {}
    #: The projects that it hits.
    affected: dict[str, ev.Impact] = {}
    #: Projects that a person has removed, and who: the graph does not add them again.
    spared: dict[str, str] = {}
    #: Whose acknowledgement stands; empty for nobody's.
    owner: str = ""
    owner_until: Moment | None = None
    acknowledged_at: Moment | None = None
    #: The first acknowledgement of all.
    first_acknowledged_at: Moment | None = None
    commander: str = ""
    #: When the next update goes out, by somebody or by the clock.
    next_at: Moment | None = None
    #: When a person's update is owed: a broadcast of the clock does not pay it.
    owed_at: Moment | None = None
    #: The last news of a person.
    news: str = ""
    news_at: Moment | None = None
    mitigated_at: Moment | None = None
    closed_at: Moment | None = None
    closed_by: str = ""
    cause: str = ""
    actions: tuple[ev.Action, ...] = ()
    reopened: int = 0
    #: When it was declared, or reopened last.
    opened_at: Moment
    #: When the present round of paging began: the steps of the policy count from here.
    paging_from: Moment
    #: Rounds so far: one for the declaration, one for each lapse, reopening, and change to ultra.
    round: int = 1
    #: The calls of the present round.
    lines: tuple[Line, ...] = ()
    first_paged_at: Moment | None = None
    #: Since when every way fails; None while one works or none was tried.
    paging_failed_at: Moment | None = None
    drafted: bool = False

    @property
    def open(self) -> bool:
        """Nobody has closed it."""
        return self.status is not Status.CLOSED

    @property
    def pages(self) -> bool:
        """People are to be called for it: it is ultra, and nobody has it."""
        return self.status is Status.DECLARED and self.severity is Severity.ULTRA

    @property
    def in_charge(self) -> str:
        """Who is asked about it: the commander, else who has acknowledged it; empty for nobody."""
        return self.commander or self.owner

    @property
    def failing(self) -> tuple[Line, ...]:
        """Calls of the present round that have failed."""
        return tuple(line for line in self.lines if line.failing)

    @property
    def left(self) -> int:
        """Findings of it that are still there."""
        return sum(part.recovered_at is None for part in self.findings.values())

    def overdue(self, now: datetime) -> bool:
        """Whether a person's update is owed and has not come."""
        return self.open and self.owed_at is not None and now > self.owed_at


def evolve(state: Incident | None, number: int, event: ev.IncidentEvent, seq: int, at: datetime) -> Incident | None:
    """The incident after one more event, stored at `seq` and `at`; an event of an incident that nobody declared is none.

    An event that cannot follow is folded all the same: the log is the truth, also where it surprises.
    """
    if isinstance(event, ev.Declared):
        return _declared(number, event, seq, at)
    if state is None:
        return None
    for part in (_life, _people, _facts, _paging):
        change = part(state, event, at)
        if change is not None:
            return _change(state, last_seq=seq, **change)
    return _change(state, last_seq=seq)


def _declared(number: int, event: ev.Declared, seq: int, at: datetime) -> Incident:
    findings: dict[str, Part] = {}
    if event.finding and event.kind is not None:
        findings[event.finding] = Part(
            finding=event.finding,
            kind=event.kind,
            severity=event.severity,
            title=event.title,
            subject=event.subject,
            reason=ev.JoinReason.OPENED,
            joined_at=at,
        )
    return Incident(
        number=number,
        title=event.title,
        severity=event.severity,
        status=Status.DECLARED,
        declared_at=at,
        opened_at=at,
        paging_from=at,
        by=event.by,
        since=event.since,
        last_seq=seq,
        detail=event.detail,
        command=event.command,
        subject=event.subject,
        findings=findings,
        affected={impact.project: impact for impact in event.affected},
        next_at=event.next_at,
        owed_at=event.next_at,
    )


def _round(state: Incident, at: datetime) -> dict[str, Any]:
    """What begins a new round of paging."""
    return {"paging_from": at, "round": state.round + 1, "lines": ()}


_NOBODY: dict[str, Any] = {"owner": "", "owner_until": None, "acknowledged_at": None}


def _life(state: Incident, event: ev.IncidentEvent, at: datetime) -> dict[str, Any] | None:
    """The events that move it from one status to another."""
    match event:
        case ev.Acknowledged():
            return {
                "status": Status.ACKNOWLEDGED if state.status is Status.DECLARED else state.status,
                "owner": event.by,
                "owner_until": event.until,
                "acknowledged_at": at,
                "first_acknowledged_at": state.first_acknowledged_at or at,
                "paging_failed_at": None,
            }
        case ev.AcknowledgementExpired():
            status = Status.DECLARED if state.status is Status.ACKNOWLEDGED else state.status
            return {"status": status, **_NOBODY, **_round(state, at)}
        case ev.Mitigated():
            return {"status": Status.MITIGATED, "mitigated_at": at, "paging_failed_at": None}
        case ev.Closed():
            return {
                "status": Status.CLOSED,
                "closed_at": at,
                "closed_by": event.by,
                "cause": event.cause,
                "actions": event.actions,
                "next_at": None,
                "owed_at": None,
                "paging_failed_at": None,
                "drafted": False,
            }
        case ev.Reopened():
            return {
                "status": Status.DECLARED,
                "opened_at": at,
                "mitigated_at": None,
                "closed_at": None,
                "closed_by": "",
                "reopened": state.reopened + 1,
                "next_at": event.next_at,
                "owed_at": event.next_at,
                **_NOBODY,
                **_round(state, at),
            }
        case ev.SeverityChanged():
            again = _round(state, at) if event.severity is Severity.ULTRA else {"paging_failed_at": None}
            return {"severity": event.severity, **again}
        case _:
            return None


def _people(_state: Incident, event: ev.IncidentEvent, at: datetime) -> dict[str, Any] | None:
    """What people say and who they are."""
    match event:
        case ev.Updated() if event.automatic:
            return {"next_at": event.next_at}
        case ev.Updated():
            return {"next_at": event.next_at, "owed_at": event.next_at, "news": event.text, "news_at": at}
        case ev.Assigned():
            return {"commander": event.commander}
        case ev.Drafted():
            return {"drafted": True}
        case _:
            return None


def _facts(state: Incident, event: ev.IncidentEvent, at: datetime) -> dict[str, Any] | None:
    """What it consists of and what it hits."""
    match event:
        case ev.Joined():
            part = Part(
                finding=event.finding,
                kind=event.kind,
                severity=event.severity,
                title=event.title,
                subject=event.subject,
                reason=event.reason,
                joined_at=at,
            )
            return {"findings": {**state.findings, event.finding: part}}
        case ev.Recovered() if event.finding in state.findings:
            part = _change(state.findings[event.finding], recovered_at=at)
            return {"findings": {**state.findings, event.finding: part}}
        case ev.Affected():
            hit = {name: impact for name, impact in state.affected.items() if name not in event.removed}
            hit |= {impact.project: impact for impact in event.added}
            spared = {**state.spared, **dict.fromkeys(event.removed, event.by)}
            return {"affected": hit, "spared": {name: by for name, by in spared.items() if name not in hit}}
        case _:
            return None


def _paging(state: Incident, event: ev.IncidentEvent, at: datetime) -> dict[str, Any] | None:
    """Who is called, and what became of it."""
    match event:
        case ev.PageDue():
            line = Line(
                page=event.page,
                person=event.person,
                way=event.way,
                carrier=event.carrier,
                level=event.level,
                turn=event.turn,
                attempt=event.attempt,
                due_at=at,
                target=event.target,
            )
            others = tuple(other for other in state.lines if place(other) != place(line))
            for before in state.lines:
                if before not in others:
                    line = _change(line, ok=before.ok, failures=before.failures, error=before.error)
            return {"lines": (*others, line)}
        case ev.Paged():
            lines = tuple(_answered(line, event, at) if line.page == event.page else line for line in state.lines)
            return {"lines": lines, "first_paged_at": state.first_paged_at or (at if event.ok else None)}
        case ev.PagingFailed():
            return {"paging_failed_at": state.paging_failed_at or at}
        case ev.PagingRecovered():
            return {"paging_failed_at": None}
        case _:
            return None


def place(line: Line | ev.PageDue) -> tuple[int, str, str]:
    """What a call is known by within a round: the step, the person and the way."""
    return (line.level, line.person, line.way)


def answer(order: Line | ev.PageDue, error: str, took_s: float) -> ev.Paged:
    """What became of a call, in the words of its order; `error` is empty for one that went out."""
    return ev.Paged(
        page=order.page,
        person=order.person,
        way=order.way,
        level=order.level,
        attempt=order.attempt,
        ok=not error,
        error=error,
        took_s=round(took_s, 3),
    )


def _answered(line: Line, event: ev.Paged, at: datetime) -> Line:
    if event.ok:
        return _change(line, answered_at=at, ok=True, failures=0, error="")
    if line.answered_at is not None:
        return line  # said already, or done all the same by a carrier that was late
    return _change(line, answered_at=at, ok=False, failures=line.failures + 1, error=event.error)
