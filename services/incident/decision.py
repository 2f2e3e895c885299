"""What may happen next to an incident, and why not. Pure: time is an argument, and the fence has the last word."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from bus import errors
from bus.events import incident as ev
from bus.events.finding import Severity
from services.incident import commands as ask
from services.incident.state import Incident, Status, place

#: Who is no person: none of them closes an incident.
MACHINES = frozenset({"monitor", "graph", "clock", "warden", "slack_mirror", ""})
#: Who says which projects are affected, where no person does.
GRAPH = "graph"


class IncidentRefused(errors.Conflict):
    """A command does not fit the incident as it stands; the sentence says what has happened since, and what fits."""


def decide(state: Incident, command: ask.Command, now: datetime) -> list[ev.IncidentEvent]:
    """The events that carry the command out, to be appended one after the other from ``state.last_seq`` on.

    Raises:
        IncidentRefused: the command does not apply to the state; the sentence says why.
    """
    return _RULES[type(command)](state, command, now)


def _acknowledge(state: Incident, command: ask.Acknowledge, _now: datetime) -> list[ev.IncidentEvent]:
    _must_be_open(state)
    _must_be_person(command.by, "acknowledge")
    if state.owner == command.by and _same(state.owner_until, command.until):
        raise IncidentRefused(f"{named(state)} is acknowledged by {state.owner} already, {_until(state)}")
    if state.owner and state.owner != command.by and not command.take:
        raise IncidentRefused(
            f"expected {named(state)} to be unacknowledged, got: {state.owner} has it since {_time(state.acknowledged_at)}, "
            f"{_until(state)}; take it over with `systems incident ack {state.number} --take`"
        )
    return [ev.Acknowledged(by=command.by, until=command.until)]


def _same(old: datetime | None, new: datetime | None) -> bool:
    """Whether an acknowledgement would end no later than it does."""
    return old is None or (new is not None and new <= old)


def _expire(state: Incident, _: ask.Expire, now: datetime) -> list[ev.IncidentEvent]:
    if state.status is not Status.ACKNOWLEDGED or state.owner_until is None or now < state.owner_until:
        raise IncidentRefused(f"expected {named(state)} to be acknowledged until before now, got: {state.status}")
    return [ev.AcknowledgementExpired(by=state.owner)]


def _join(state: Incident, command: ask.Join, _now: datetime) -> list[ev.IncidentEvent]:
    _must_be_open(state)
    known = state.findings.get(command.finding)
    if known is not None and known.recovered_at is None and known.severity is command.severity:
        raise IncidentRefused(f"{command.finding} is a finding of {named(state)} already")
    back = known is not None and known.recovered_at is not None
    joined = ev.Joined(
        finding=command.finding,
        kind=command.kind,
        severity=command.severity,
        title=command.title,
        subject=command.subject,
        reason=ev.JoinReason.BACK if back else command.reason,
        by=command.by,
    )
    if state.status is not Status.MITIGATED or command.severity is not Severity.ULTRA:
        return [joined]
    # In this order: if only the first is written, the finding is still one to join.
    why = f"the mitigation does not hold: {command.title}"
    return [ev.Reopened(by=command.by, why=why, finding=command.finding, next_at=command.next_at), joined]


def _recover(state: Incident, command: ask.Recover, _now: datetime) -> list[ev.IncidentEvent]:
    part = state.findings.get(command.finding)
    if part is None or part.recovered_at is not None:
        raise IncidentRefused(f"expected a finding of {named(state)} that is there, got: {command.finding}")
    return [ev.Recovered(finding=part.finding, title=part.title, left=state.left - 1)]


def _update(state: Incident, command: ask.Update, _now: datetime) -> list[ev.IncidentEvent]:
    _must_be_open(state)
    _must_say("an update", command.text)
    for words in command.projects:
        _must_say(f"the update for {words.project}", words.text)
        _must_be_affected(state, words.project)
    return [
        ev.Updated(text=command.text, by=command.by, projects=command.projects, next_at=command.next_at)
    ]  # fmt: skip


def _tick(state: Incident, command: ask.Tick, now: datetime) -> list[ev.IncidentEvent]:
    _must_be_open(state)
    if state.next_at is None or now < state.next_at:
        raise IncidentRefused(f"expected an update of {named(state)} to be due, got: it is not")
    text = f"no news yet, next at {command.next_at:%H:%M:%S} UTC"
    return [ev.Updated(text=text, by="clock", automatic=True, nags=state.in_charge, next_at=command.next_at)]


def _note(_state: Incident, command: ask.Note, _now: datetime) -> list[ev.IncidentEvent]:
    _must_say("a note", command.text)
    return [ev.Noted(text=command.text, by=command.by)]


def _assign(state: Incident, command: ask.Assign, _now: datetime) -> list[ev.IncidentEvent]:
    _must_be_open(state)
    _must_say("a commander", command.commander)
    if state.commander == command.commander:
        raise IncidentRefused(f"{command.commander} is the commander of {named(state)} already")
    return [ev.Assigned(commander=command.commander, by=command.by, was=state.commander)]


def _severity(state: Incident, command: ask.ChangeSeverity, _now: datetime) -> list[ev.IncidentEvent]:
    _must_be_open(state)
    if state.severity is command.severity:
        raise IncidentRefused(f"{named(state)} is {state.severity} already")
    return [ev.SeverityChanged(severity=command.severity, was=state.severity, by=command.by, why=command.why)]


def _affect(state: Incident, command: ask.Affect, _now: datetime) -> list[ev.IncidentEvent]:
    _must_be_open(state)
    by_graph = command.by == GRAPH
    for project in command.remove:
        _must_be_affected(state, project)
    added = tuple(impact for impact in command.add if state.affected.get(impact.project) != impact)
    removed = command.remove
    if by_graph:
        added = tuple(
            impact for impact in added if impact.project not in state.spared and not _of_person(state, impact.project)
        )
        removed = tuple(project for project in removed if not _of_person(state, project))
    if not added and not removed:
        raise IncidentRefused(f"nothing changes for {named(state)}: that is what it affects already")
    return [ev.Affected(by=command.by, added=added, removed=removed)]


def _of_person(state: Incident, project: str) -> bool:
    known = state.affected.get(project)
    return known is not None and known.by != GRAPH


def _mitigate(state: Incident, command: ask.Mitigate, _now: datetime) -> list[ev.IncidentEvent]:
    _must_be_open(state)
    _must_be_person(command.by, "mitigate")
    if state.status is Status.MITIGATED:
        raise IncidentRefused(f"{named(state)} is mitigated since {_time(state.mitigated_at)} already")
    return [ev.Mitigated(by=command.by, text=command.text)]


def _close(state: Incident, command: ask.Close, now: datetime) -> list[ev.IncidentEvent]:
    _must_be_open(state)
    _must_be_person(command.by, "close")
    _must_say("a cause", command.cause)
    for action in command.actions:
        _must_say("an action", action.text)
    open_s = round(max(0.0, (now - state.opened_at).total_seconds()), 3)
    return [ev.Closed(by=command.by, cause=command.cause, actions=command.actions, open_s=open_s)]


def _reopen(state: Incident, command: ask.Reopen, _now: datetime) -> list[ev.IncidentEvent]:
    if state.status not in {Status.CLOSED, Status.MITIGATED}:
        raise IncidentRefused(f"expected {named(state)} to be closed or mitigated, got: it is {state.status}")
    _must_say("why it is reopened", command.why)
    return [ev.Reopened(by=command.by, why=command.why, finding=command.finding, next_at=command.next_at)]


def _page(state: Incident, command: ask.Page, _now: datetime) -> list[ev.IncidentEvent]:
    if not state.pages:
        raise IncidentRefused(f"expected {named(state)} to page people, got: it is {state.severity} and {state.status}")
    order = command.order
    for line in state.lines:
        if place(line) == place(order) and (line.turn, line.attempt) >= (order.turn, order.attempt):
            raise IncidentRefused(f"{order.person} was called by {order.way} for {named(state)} already")
    return [order]


def _answer(state: Incident, command: ask.Answer, _now: datetime) -> list[ev.IncidentEvent]:
    paged = command.paged
    line = next((line for line in state.lines if line.page == paged.page), None)
    if line is not None and line.answered_at is not None and (line.ok or not paged.ok):
        raise IncidentRefused(f"the call {paged.page} of {named(state)} is answered already")
    return [paged]  # also one of an earlier round: it stays on the record


def _judge(state: Incident, _: ask.Judge, _now: datetime) -> list[ev.IncidentEvent]:
    found = verdict_of(state)
    if found is None:
        raise IncidentRefused(f"nothing is new about the calls for {named(state)}")
    return [found]


def verdict_of(state: Incident) -> ev.PagingFailed | ev.PagingRecovered | None:
    """Whether every way fails now, or one works again; None when that is no news."""
    if state.paging_failed_at is not None:
        works = next((line for line in state.lines if line.ok and not line.failing), None)
        return ev.PagingRecovered(way=works.way, person=works.person) if works is not None else None
    if state.pages and state.lines and all(line.failing for line in state.lines):
        return ev.PagingFailed(ways=tuple(f"{line.person} by {line.way}: {line.error}" for line in state.lines))
    return None


def _tell(_state: Incident, command: ask.Tell, _now: datetime) -> list[ev.IncidentEvent]:
    return [command.told]


def _draft(state: Incident, command: ask.Draft, _now: datetime) -> list[ev.IncidentEvent]:
    if state.open or state.drafted:
        raise IncidentRefused(f"expected {named(state)} to be closed and without a draft, got: it is {state.status}")
    return [ev.Drafted(markdown=command.markdown)]


_RULES: dict[type, Callable[[Incident, Any, datetime], list[ev.IncidentEvent]]] = {
    ask.Acknowledge: _acknowledge,
    ask.Expire: _expire,
    ask.Join: _join,
    ask.Recover: _recover,
    ask.Update: _update,
    ask.Tick: _tick,
    ask.Note: _note,
    ask.Assign: _assign,
    ask.ChangeSeverity: _severity,
    ask.Affect: _affect,
    ask.Mitigate: _mitigate,
    ask.Close: _close,
    ask.Reopen: _reopen,
    ask.Page: _page,
    ask.Answer: _answer,
    ask.Judge: _judge,
    ask.Tell: _tell,
    ask.Draft: _draft,
}


def named(state: Incident) -> str:
    """An incident, as a sentence names it."""
    return f"incident {state.number}"


def _must_be_open(state: Incident) -> None:
    if not state.open:
        raise IncidentRefused(
            f"expected {named(state)} to be open, got: {state.closed_by} closed it at {_time(state.closed_at)} "
            f"({state.cause}); `systems incident reopen {state.number} --why TEXT` opens it again"
        )


def _must_be_person(by: str, what: str) -> None:
    # An agent's name is its role, project/role: what agents may do to incidents is read them, and raise findings.
    if by in MACHINES or "/" in by:
        raise IncidentRefused(f"expected a person to {what} an incident, got: {by or 'nobody'}")


def _must_say(what: str, text: str) -> None:
    if not text.strip():
        raise IncidentRefused(f"expected {what} to say something, got: {text!r}")


def _must_be_affected(state: Incident, project: str) -> None:
    if project not in state.affected:
        hint = errors.did_you_mean(project, state.affected) or "; it affects no project"
        raise IncidentRefused(f"expected a project that {named(state)} affects, got: {project!r}{hint}")


def _time(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC" if at is not None else "an unknown time"


def _until(state: Incident) -> str:
    return f"until {_time(state.owner_until)}" if state.owner_until is not None else "until it is closed"
