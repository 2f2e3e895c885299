"""What people are told of an incident: one text for who is called, and one for each project that it hits. Pure."""

from __future__ import annotations

from datetime import UTC, datetime

from bus.events import incident as ev
from bus.events.finding import Kind
from services.incident.opening import about
from services.incident.state import Incident, Status
from services.incident.ways import Page

#: What still works, by the worst that is wrong; the first that fits.
_WORKS: tuple[tuple[frozenset[Kind], str], ...] = (
    (
        frozenset({Kind.BUS_DOWN, Kind.STORAGE_LOW}),
        "what runs keeps its results on the disk until they can be written; nothing that was accepted is lost",
    ),
    (
        frozenset({Kind.FROZEN, Kind.FREEZE_UNANSWERED, Kind.WRITTEN_FROZEN}),
        "everything can be read and asked; work in hand is kept and goes on at the thaw",
    ),
    (frozenset({Kind.NO_RUNNER}), "requests are accepted and wait; nothing is lost"),
)
_ELSE = "all other roles go on"
#: What a daemon of a kind that is away does not stop.
_WITHOUT: dict[str, str] = {
    "warden": "what was asked for is claimed, run and finished",
    "projector": "all work goes on; tables and questions catch up later",
    "agent_runner": "requests are accepted and wait; other runners go on",
    "launcher": "all daemons that run go on",
    "slack_mirror": "all work goes on; the command line tells everything",
    "nats-server": "what runs keeps its results on the disk until they can be written",
}


def clock(at: datetime | None) -> str:
    """A time of day for people."""
    return f"{at.astimezone(UTC):%H:%M:%S} UTC" if at is not None else "-"


def span(seconds: float) -> str:
    """A span of time for people: ``1.2 s``, ``45 s``, ``12 min``, ``3 h 5 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def page(incident: Incident, now: datetime) -> Page:
    """What somebody is called with."""
    hit = ", ".join(sorted(incident.affected)) or "no project that is known of"
    lines = [
        incident.title,
        f"since {clock(incident.since)} ({span((now - incident.since).total_seconds())}), hits {hit}",
    ]
    if incident.detail:
        lines.append(incident.detail)
    if incident.command:
        lines.append(f"look: {incident.command}")
    lines.append(f"have it: systems incident ack {incident.number}")
    return Page(
        title=f"[{incident.severity}] incident {incident.number}: {incident.title}"[:200],
        body="\n".join(lines),
        kind="failure",
    )


def works(incident: Incident) -> str:
    """What the incident does not stop."""
    return stands_by(incident) or _ELSE


def stands_by(incident: Incident) -> str:
    """What works although all work is hit; empty where only some roles are."""
    there = [part for part in incident.findings.values() if part.recovered_at is None]
    kinds = {part.kind for part in there}
    for some, text in _WORKS:
        if kinds & some:
            return text
    for part in there:
        if about(part.subject) in _WITHOUT:
            return _WITHOUT[about(part.subject)]
    return ""


def to_do(incident: Incident) -> str:
    """What a project is to do about it."""
    if incident.in_charge:
        return f"nothing, {incident.in_charge} has it"
    if incident.lines and all(line.failing for line in incident.lines):
        return "tell somebody who can help: every call has failed"
    # Without a policy nobody is called, and nobody may read that somebody comes.
    return f"nothing, {'somebody is being called' if incident.lines else 'nobody has it yet'}"


def opening(incident: Incident, project: str) -> str:
    """The first word to a project: what is hit, since when, what still works, what to do."""
    impact = incident.affected.get(project)
    reason = impact.reason if impact is not None else incident.title
    next_ = f"; next news by {clock(incident.next_at)}" if incident.next_at is not None else ""
    return "\n".join(
        [
            f"Incident {incident.number} ({incident.severity}): {incident.title}",
            f"What is hit: {project}: {reason}",
            f"Since: {clock(incident.since)}",
            f"What still works: {works(incident)}",
            f"What to do: {to_do(incident)}{next_}",
        ]
    )


def update(incident: Incident, event: ev.Updated, project: str) -> str:
    """News, in the words for a project where there are some."""
    own = next((words.text for words in event.projects if words.project == project), event.text)
    next_ = f"\nNext news by {clock(event.next_at)}" if event.next_at is not None and not event.automatic else ""
    return f"Incident {incident.number}: {own}{next_}"


def spared(incident: Incident, project: str, by: str) -> str:
    """To a project that was told it is hit, and is not."""
    return f"Incident {incident.number} does not hit {project} after all, says {by}: {incident.title}"


def closing(incident: Incident, project: str) -> str:
    """The last word to a project."""
    ended = incident.closed_at or incident.opened_at
    lines = [
        f"Incident {incident.number} is over: {incident.title}",
        f"{project} was hit for {span((ended - incident.since).total_seconds())}, until {clock(ended)}",
        f"Cause: {incident.cause}",
    ]
    lines += [
        f"To be done: {action.text}" + (f" ({action.owner})" if action.owner else "") for action in incident.actions
    ]
    return "\n".join(lines)


def status_of(incident: Incident, now: datetime) -> str:
    """How an incident stands, in one line for a panel."""
    match incident.status:
        case Status.DECLARED:
            told = "nobody has it" + (", nobody was called" if incident.pages and not incident.lines else "")
        case Status.ACKNOWLEDGED:
            until = f" until {clock(incident.owner_until)}" if incident.owner_until is not None else ""
            told = f"{incident.owner} has it{until}"
        case Status.MITIGATED:
            told = "mitigated" + (f", {incident.in_charge} has it" if incident.in_charge else "")
        case Status.CLOSED:
            told = f"closed by {incident.closed_by}"
    if incident.overdue(now) and incident.owed_at is not None:
        told += f", update overdue for {span((now - incident.owed_at).total_seconds())}"
    if incident.paging_failed_at is not None:
        told += ", NOBODY CAN BE CALLED: every way fails"
    elif incident.failing and incident.pages:
        told += f", {len(incident.failing)} of {len(incident.lines)} calls fail"
    return told
