"""What an incident says in a channel: to everybody, or to the projects whose channel it is. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from bus.events import incident as ev
from services.incident import words
from services.incident.state import Incident, Status
from services.slack.message import Button, Message
from services.slack.words import CLOCK, DONE, ICONS, INFO, STOP, WARN, moment

#: Sign and word of each status.
_STANDS = {
    Status.DECLARED: "nobody has it yet",
    Status.ACKNOWLEDGED: "acknowledged",
    Status.MITIGATED: "mitigated, not over",
    Status.CLOSED: "closed",
}


def head(state: Incident, projects: Collection[str], roles: Mapping[str, Collection[str]]) -> Message:
    """The head of its thread: how it stands now. `projects` are those of the channel; none is everybody's channel."""
    number = str(state.number)
    stands = _STANDS[state.status]
    if state.status is Status.ACKNOWLEDGED:
        stands += f" by {state.owner}"
    lines = [("Stands", stands), ("Since", moment(state.since))]
    lines += [("In command", state.commander)] if state.commander else []
    lines += _hit(state, projects, roles)
    if state.news:
        lines.append(("News", state.news))
    if state.open and state.next_at:
        lines.append(("Next news", f"by {moment(state.next_at)}"))
    if state.status is Status.CLOSED:
        lines.append(("Cause", state.cause))
    return Message(
        icon=DONE if not state.open else ICONS[state.severity],
        title=f"Incident {number}: {state.title}",
        lines=tuple(lines),
        detail=state.detail if state.open else "",
        command=state.command if state.open else f"systems incident export {number}",
        whole=f"systems incident show {number}",
        buttons=_buttons(state),
    )


def _buttons(state: Incident) -> tuple[Button, ...]:
    value = str(state.number)
    if not state.open:
        return ()
    found = [] if state.status is not Status.DECLARED else [
        Button(action="incident_acknowledge", label="Acknowledge", value=value, style="primary")
    ]  # fmt: skip
    return (
        *found,
        Button(action="incident_command", label="Take command", value=value),
        Button(action="incident_update", label="Post update", value=value),
        Button(action="incident_close", label="Close", value=value, style="danger"),
    )


def _hit(state: Incident, projects: Collection[str], roles: Mapping[str, Collection[str]]) -> list[tuple[str, str]]:
    """What is hit, what still works and what to do, in words for these projects; for everybody, all of them."""
    lines, whole = [], words.stands_by(state)
    for name, impact in sorted(state.affected.items()):
        if projects and name not in projects:
            continue
        lines.append((f"Hits {name}", impact.reason))
        sound = [role for role in roles.get(name, ()) if f"{name}/{role}" not in impact.reason]
        # A reason that names no role of the project may be about each of them.
        if state.open and not whole and sound and len(sound) < len(roles[name]):
            lines.append((f"Still works in {name}", ", ".join(sorted(sound))))
    if state.open and projects:
        lines += [("Still works", whole)] if whole else []
        lines.append(("What to do", words.to_do(state)))
    return lines


def said(event: ev.IncidentEvent, state: Incident, projects: Collection[str]) -> Message | None:
    """What one event adds to the thread; None for what is no news to people."""
    for part in (_people, _life, _facts):
        found = part(event, projects)
        if found is not None:
            return msgspec.structs.replace(found, whole=f"systems incident show {state.number}")
    return None


def _line(icon: str, title: str, *lines: tuple[str, str], detail: str = "") -> Message:
    return Message(icon=icon, title=title, lines=tuple(line for line in lines if line[1]), detail=detail)


def _people(event: ev.IncidentEvent, projects: Collection[str]) -> Message | None:
    """Who has it and what they say."""
    match event:
        case ev.Acknowledged():
            return _line(DONE, f"{event.by} has it", ("Until", moment(event.until) if event.until else ""))
        case ev.AcknowledgementExpired():
            return _line(WARN, f"{event.by} had it, and time is over: people are called again")
        case ev.Updated():
            own = next((one.text for one in event.projects if one.project in projects), event.text)
            title = "No news yet" if event.automatic else f"Update by {event.by}"
            when = moment(event.next_at) if event.next_at else ""
            return _line(INFO, title, ("Next news by", when), ("Owed by", event.nags), detail=own)
        case ev.Assigned():
            return _line(INFO, f"{event.commander} is in command", ("Before", event.was))
        case _:
            return None


def _life(event: ev.IncidentEvent, _: Collection[str]) -> Message | None:
    """How it goes on."""
    match event:
        case ev.SeverityChanged():
            title = f"Now {event.severity.value}, was {event.was.value}"
            return _line(ICONS[event.severity], title, ("By", event.by), ("Why", event.why))
        case ev.Mitigated():
            return _line(INFO, f"Mitigated, says {event.by}: it does no more harm, and is not over", detail=event.text)
        case ev.Closed():
            actions = "\n".join(f"- {a.text}{f' ({a.owner})' if a.owner else ''}" for a in event.actions)
            return _line(
                DONE, f"Closed by {event.by} after {event.open_s:.0f} s", ("Cause", event.cause), detail=actions
            )
        case ev.Reopened():
            return _line(STOP, f"Open again: {event.why}", ("By", event.by))
        case _:
            return None


def _facts(event: ev.IncidentEvent, projects: Collection[str]) -> Message | None:
    """What belongs to it, what it hits, and whether anybody can be called."""
    match event:
        case ev.Affected():
            return _affected(event, projects)
        case ev.Joined():
            about, why = ("About", event.subject), ("Because of", event.reason.value)
            return _line(ICONS[event.severity], f"A finding belongs to it: {event.title}", about, why)
        case ev.Recovered():
            return _line(DONE, f"Gone: {event.title}", ("Still there", str(event.left)))
        case ev.PagingFailed():
            return _line(STOP, "Every way to call somebody has failed; it is tried again", detail="\n".join(event.ways))
        case ev.PagingRecovered():
            return _line(DONE, f"{event.way} reaches {event.person} again")
        case _:
            return None


def _affected(event: ev.Affected, projects: Collection[str]) -> Message | None:
    """What it hits beside what was said: of these projects, or of all; None where that is said of others."""
    added = [impact for impact in event.added if not projects or impact.project in projects]
    removed = [name for name in event.removed if not projects or name in projects]
    if not added and not removed:
        return None
    lines = [(f"Hits {impact.project}", impact.reason) for impact in added]
    lines += [("Not hit", ", ".join(removed))] if removed else []
    return _line(INFO, "More is known of what it hits", *lines, ("By", event.by))


def reminder(state: Incident, event: ev.Updated) -> Message:
    """What whoever is in charge reads when an update was owed and has not come."""
    lines = [("Owed since", moment(state.owed_at))] if state.owed_at else []
    lines += [("Told so far", event.text), ("Hits", ", ".join(sorted(state.affected)))]
    return Message(
        icon=CLOCK,
        title=f"Incident {state.number} waits for your update: {state.title}",
        lines=tuple(line for line in lines if line[1]),
        command=f"systems incident update {state.number} TEXT",
        whole=f"systems incident show {state.number}",
        buttons=_buttons(state),
    )


def call(state: Incident | None, order: ev.PageDue, number: int) -> Message:
    """What a person who is called reads."""
    if state is None:
        return Message(icon="📟", title=f"Incident {number} calls you", command=f"systems incident show {number}")
    lines = [("Stands", _STANDS[state.status]), ("Since", moment(state.since))]
    lines += [(f"Hits {name}", impact.reason) for name, impact in sorted(state.affected.items())]
    return Message(
        icon="📟",
        title=f"Incident {number} calls you: {state.title}",
        lines=(*lines, ("Call", f"level {order.level}, {order.turn}. time, by {order.policy or 'nobody'}")),
        detail=state.detail,
        command=f"systems incident ack {number}",
        whole=f"systems incident show {number}",
        buttons=_buttons(state),
    )
