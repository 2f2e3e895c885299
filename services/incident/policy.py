"""Who is to be called for an incident right now: a function of the incident, the policies and the time. Pure.

Steps count from the round's begin: the declaration, a lapsed acknowledgement, a reopening. A step repeats until somebody
acknowledges. A call that failed is made again after a pause that doubles; while it fails, its step's repeats add nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec

from bus.events.incident import Carrier, PageDue
from bus.ids import key_id
from services.fleet.duty import CHANNEL, SLACK, Day, Escalation, Hours, Incidents, Person, Rotation, Step
from services.fleet.reach import ways_of
from services.fleet.registry import Registry
from services.incident.state import Incident, Line, place

_DAYS = tuple(Day)


class Duty(msgspec.Struct, frozen=True, kw_only=True):
    """All that decides who is called."""

    people: dict[str, Person] = {}
    rotations: dict[str, Rotation] = {}
    hours: dict[str, Hours] = {}
    policies: dict[str, Escalation] = {}
    limits: Incidents = Incidents()
    #: Project -> name of its own policy; empty for none.
    projects: dict[str, str] = {}
    #: Project -> its Slack channel; empty for none.
    channels: dict[str, str] = {}


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One person, by one way, in one step."""

    level: int
    person: str
    way: str
    carrier: Carrier
    policy: str
    target: str = ""


def duty_of(registry: Registry) -> Duty:
    """The duty that the settings in effect describe."""
    settings = registry.settings
    return Duty(
        people=settings.people,
        rotations=settings.rotations,
        hours=settings.hours,
        policies=settings.escalation,
        limits=settings.incidents,
        projects={name: project.escalation for name, project in registry.projects.items()},
        channels={name: project.slack_channel for name, project in registry.projects.items()},
    )


def policies_of(incident: Incident, duty: Duty) -> tuple[str, ...]:
    """Names of the policies by which people are called for it: those of the projects that it hits, each once."""
    own = {duty.projects.get(project, "") or duty.limits.escalation for project in incident.affected}
    names = own or {duty.limits.escalation}
    return tuple(sorted(name for name in names if name in duty.policies))


def on_call(rotation: Rotation, now: datetime) -> str:
    """Whose turn it is. Hand-over is at the same hour by the rotation's own clock, whatever that clock does."""
    begins = datetime.fromisoformat(rotation.begins)
    local = now.astimezone(ZoneInfo(rotation.time_zone)).replace(tzinfo=None)
    turn = (local - begins) // timedelta(seconds=rotation.every)
    return rotation.people[turn % len(rotation.people)]


def is_within(hours: Hours, now: datetime) -> bool:
    """Whether a moment is in these hours. Those over midnight belong to the day on which they begin."""
    local = now.astimezone(ZoneInfo(hours.time_zone))
    clock, today = f"{local:%H:%M}", local.weekday()
    if hours.start < hours.end:
        return _DAYS[today] in hours.days and hours.start <= clock < hours.end
    if clock >= hours.start:
        return _DAYS[today] in hours.days
    return clock < hours.end and _DAYS[today - 1] in hours.days


def due(incident: Incident, duty: Duty, now: datetime) -> tuple[PageDue, ...]:
    """The calls to order now, the first step's first."""
    if not incident.pages:
        return ()
    lines = {place(line): line for line in incident.lines}
    found: dict[tuple[int, str, str], PageDue] = {}
    for name in policies_of(incident, duty):
        for level, step in enumerate(duty.policies[name].steps, 1):
            turn = _turn(step, incident, duty, now)
            for call in _calls(name, level, step, incident, duty, now) if turn else ():
                key = (call.level, call.person, call.way)
                attempt = _attempt(lines.get(key), turn, duty.limits, now)
                if attempt and key not in found:
                    found[key] = _order(incident, call, turn, attempt)
    return tuple(sorted(found.values(), key=lambda order: order.level))


def _turn(step: Step, incident: Incident, duty: Duty, now: datetime) -> int:
    """How often the step's time has come in this round; 0 when it has not, or these are not its hours."""
    waited = (now - incident.paging_from).total_seconds() - step.after
    if waited < 0:
        return 0
    if step.within and not is_within(duty.hours.get(step.within, Hours()), now):
        return 0
    if step.outside and is_within(duty.hours.get(step.outside, Hours()), now):
        return 0
    return 1 + int(waited // step.repeat) if step.repeat is not None else 1


def _attempt(line: Line | None, turn: int, limits: Incidents, now: datetime) -> int:
    """Which attempt is due, from 1; 0 for none."""
    if line is None:
        return 1
    if line.answered_at is None:
        return 0
    if not line.failing:
        return 1 if turn > line.turn else 0
    pause = min(limits.retry_longest, limits.retry * 2.0 ** min(line.attempt - 1, 30))
    return line.attempt + 1 if now >= line.answered_at + timedelta(seconds=pause) else 0


def _calls(name: str, level: int, step: Step, incident: Incident, duty: Duty, now: datetime) -> Iterator[Call]:
    for whom in step.whom:
        if whom == CHANNEL:
            for channel in sorted({duty.channels.get(project, "") for project in incident.affected} - {""}):
                yield Call(level=level, person=channel, way=CHANNEL, carrier=Carrier.SLACK, policy=name, target=channel)
            continue
        rotation = duty.rotations.get(whom)
        person = on_call(rotation, now) if rotation is not None else whom
        known = duty.people.get(person)
        if known is None:
            continue  # taken out of the settings by hand; doctor and status say that it reaches nobody
        has = ways_of(known)
        for way in [way for way in step.how if way in has] or has:
            slack = way == SLACK
            yield Call(
                level=level,
                person=person,
                way=way,
                carrier=Carrier.SLACK if slack else Carrier.APPRISE,
                policy=name,
                target=known.slack if slack else "",
            )


def _order(incident: Incident, call: Call, turn: int, attempt: int) -> PageDue:
    what = f"{incident.number}/{incident.round}/{call.level}/{call.person}/{call.way}/{turn}/{attempt}"
    return PageDue(
        page=key_id("page", what),
        person=call.person,
        way=call.way,
        carrier=call.carrier,
        target=call.target,
        level=call.level,
        turn=turn,
        attempt=attempt,
        policy=call.policy,
    )


def reaches(incident: Incident, duty: Duty, now: datetime) -> bool:
    """Whether any step of its policies would ever call a person."""
    return any(
        call.way != CHANNEL
        for name in policies_of(incident, duty)
        for level, step in enumerate(duty.policies[name].steps, 1)
        for call in _calls(name, level, step, incident, duty, now)
    )
