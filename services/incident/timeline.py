"""The story of an incident as lines, each of which names its event. Pure.

It is made of the incident's own events, those of its findings, and what guards, daemons and people did meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec

from bus.events import daemon, finding, freeze, guard, loop, ops, quota
from bus.events import incident as ev
from bus.events.finding import Severity
from bus.store import Recorded
from services.incident.state import Incident
from services.incident.words import clock, span

#: What is looked through beside the incident's own events and those of its findings.
BESIDE = (
    "ctl.daemon.*.exited",
    "ctl.daemon.*.gave_up",
    "ctl.daemon.*.started",
    "ctl.freeze.*.frozen",
    "ctl.freeze.*.thawed",
    "ctl.quota.*.tripped",
    "ctl.loop.*.tripped",
    "ctl.guard.*.paused",
    "ctl.guard.*.resumed",
    "ctl.ops.*.requested",
)


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One event of the story."""

    at: datetime
    #: Where the event lies: ``CONTROL:123``.
    event: str
    subject: str
    #: Who did it; empty for nobody in particular.
    who: str
    what: str


def timeline(incident: Incident, records: Iterable[Recorded]) -> list[Line]:
    """The lines that records of CONTROL make, in order."""
    lines = []
    for record in sorted(records, key=lambda record: record.seq):
        found = _line(incident, record)
        if found is not None:
            lines.append(found)
    return lines


def _line(incident: Incident, record: Recorded) -> Line | None:
    _, noun, key, name = record.subject.split(".")
    who = record.event.actor if record.event is not None else ""
    if record.data is None:
        what = f"no event of ours: {record.problem}"
    elif noun == "incident":
        if key != str(incident.number):
            return None
        who, what = getattr(record.data, "by", "") or who, said(record.data)
    elif noun == "finding":
        if key not in incident.findings:
            return None
        what = _of_finding(record.data)
    else:
        if not _meanwhile(incident, record.stored_at):
            return None
        what = _beside(key, record.data)
    if not what:
        return None
    return Line(at=record.stored_at, event=f"CONTROL:{record.seq}", subject=f"{noun} {name}", who=who, what=what)


def _meanwhile(incident: Incident, at: datetime) -> bool:
    return at >= incident.since and (incident.closed_at is None or at <= incident.closed_at)


def said(event: ev.IncidentEvent) -> str:
    """What an event of an incident says, in one line."""
    for part in (_life, _people, _paging):
        text = part(event)
        if text:
            return text
    return type(event).__name__


def _life(event: ev.IncidentEvent) -> str:
    match event:
        case ev.Declared():
            hit = f", hits {', '.join(impact.project for impact in event.affected)}" if event.affected else ""
            return f"declared ({event.severity}): {event.title}{hit}"
        case ev.Acknowledged():
            return f"acknowledged by {event.by}" + (f" until {clock(event.until)}" if event.until is not None else "")
        case ev.AcknowledgementExpired():
            return f"the acknowledgement of {event.by} is over: people are called again"
        case ev.Joined():
            return f"joined by finding {event.finding} ({event.reason}): {event.title}"
        case ev.Recovered():
            left = f"{event.left} of its findings are still there" if event.left else "nothing of it is left"
            return f"gone: {event.title}; {left}"
        case ev.Mitigated():
            return "mitigated" + (f": {event.text}" if event.text else "")
        case ev.Closed():
            return f"closed after {span(event.open_s)}: {event.cause}"
        case ev.Reopened():
            return f"reopened: {event.why}"
        case ev.Drafted():
            return "the post-mortem was drafted"
        case _:
            return ""


def _people(event: ev.IncidentEvent) -> str:
    match event:
        case ev.Updated():
            nags = f"; {event.nags} is reminded" if event.nags else ""
            own = "".join(f"; {words.project}: {words.text}" for words in event.projects)
            return f"update: {event.text}{own}{nags}"
        case ev.Noted():
            return f"note: {event.text}"
        case ev.Assigned():
            return f"{event.commander} is in command" + (f" after {event.was}" if event.was else "")
        case ev.SeverityChanged():
            return f"{event.was} becomes {event.severity}" + (f": {event.why}" if event.why else "")
        case ev.Affected():
            parts = [f"hits {impact.project}: {impact.reason}" for impact in event.added]
            parts += [f"does not hit {project}" for project in event.removed]
            return "; ".join(parts)
        case _:
            return ""


def _paging(event: ev.IncidentEvent) -> str:
    match event:
        case ev.PageDue():
            again = f", attempt {event.attempt}" if event.attempt > 1 else ""
            return f"{event.person} is to be called by {event.way} (step {event.level}{again})"
        case ev.Paged() if event.ok:
            return f"{event.person} was called by {event.way}"
        case ev.Paged():
            return f"{event.person} could not be called by {event.way}: {event.error}"
        case ev.Told():
            return (
                f"{event.project} was told by {event.way}"
                if event.ok
                else f"{event.project} could not be told: {event.error}"
            )
        case ev.PagingFailed():
            return f"nobody can be called: {'; '.join(event.ways)}"
        case ev.PagingRecovered():
            return f"{event.person} can be called again by {event.way}"
        case _:
            return ""


def _of_finding(event: Any) -> str:
    match event:
        case finding.Opened():
            return f"found ({event.severity}): {event.title}"
        case finding.Changed() if event.severity is Severity.ULTRA or event.change is not finding.Change.BETTER:
            return f"{event.change}: {event.title}"
        case finding.Closed():
            return f"not wrong any more ({event.reason})" + (f": {event.why}" if event.why else "")
        case finding.Silenced():
            return f"silenced by {event.owner} until {clock(event.until)}: {event.reason}"
        case finding.Proposed() if event.summary:
            return f"triage: {event.summary}"
        case _:
            return ""


def _beside(key: str, event: Any) -> str:
    match event:
        case daemon.Exited():
            return f"{event.daemon} ended (status {event.status})"
        case daemon.GaveUp():
            return f"{event.daemon} is not started again after {event.exits} ends"
        case daemon.Started():
            return f"{event.daemon} is up (pid {event.pid})"
        case freeze.Frozen():
            return f"frozen ({event.mode}): {event.reason or 'no reason given'}"
        case freeze.Thawed():
            return "thawed"
        case quota.Tripped():
            return f"the quota breaker trips on {event.key}"
        case loop.Tripped():
            return f"the loop breaker stops the tree of {event.role} ({event.reason})"
        case guard.Paused():
            return f"{event.role} is paused: {event.reason}"
        case guard.Resumed():
            return f"{event.role} is resumed"
        case ops.Requested():
            return f"{event.action} of {event.target}" + (f": {event.why}" if event.why else "")
        case _:
            return f"{key}"
