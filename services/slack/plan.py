"""Which event is shown in which channel, and where. Pure: an event, what is known, and the settings in; notices out.

Two projects on one channel make one notice. What belongs to no project goes to the fleet's channel; where an incident would
be told nowhere, it is told everywhere.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase

import msgspec

from bus import subjects
from bus.events import NOUNS, finding, freeze
from bus.events import incident as inc
from bus.events.finding import Severity
from bus.store import CONTROL, INVOCATIONS, Recorded
from services.fleet.slack import Rule, Slack, Thread
from services.incident.state import Incident
from services.slack import incident_words, words
from services.slack.board import Board, Told, project_of, role_in, role_of, severity_of
from services.slack.message import Message
from services.slack.notice import Notice, Place

#: Nouns of CONTROL that are never shown: our own record, and what is news to nobody.
_SILENT = frozenset({"slack", "projection", "topology", "schedule", "message", "registry", "invocation", "deadletter"})
#: What channels show without any rule.
SHOWN = (
    "finding.opened", "finding.changed", "finding.closed", "finding.silenced", "finding.unsilenced",
    "incident.*", "sweep.finished", "daemon.gave_up", "freeze.frozen", "freeze.changed", "freeze.missing", "freeze.thawing",
    "freeze.thawed", "quota.stepped", "quota.tripped", "quota.reset", "quota.cap_set", "quota.refused", "quota.repriced",
    "loop.*", "guard.*", "drill.failed", "ops.finished", "ops.refused", "decision.recorded", "archive.damaged",
    "invocation.dead_lettered",
)  # fmt: skip
#: Who acts from Slack, as events name them: ``slack:U0ANN (ann)``.
_ACTOR = re.compile(r"slack:(?P<user>[UW][A-Z0-9]+)(?: |$)")
#: Part of an id's hash that a sample is compared with.
_SAMPLES = 1 << 32


class Fleet(msgspec.Struct, frozen=True, kw_only=True):
    """What of the fleet's settings decides where something is shown."""

    slack: Slack
    #: Channel of each project that has one.
    channels: dict[str, str] = {}
    #: Roles of each project.
    roles: dict[str, tuple[str, ...]] = {}
    #: Slack user id of each person who has one, by their name in the settings.
    people: dict[str, str] = {}

    def projects_in(self, channel: str) -> frozenset[str]:
        """The projects whose channel this is."""
        return frozenset(name for name, its in self.channels.items() if its == channel)

    def everywhere(self) -> tuple[str, ...]:
        """Every channel that shows anything by itself, each once."""
        return tuple(dict.fromkeys(filter(None, (self.slack.channel, *self.channels.values()))))


def filters(settings: Slack) -> dict[str, tuple[str, ...]]:
    """The subjects that are read of each stream."""
    nouns = [f"ctl.{noun}.>" for noun in NOUNS if noun not in _SILENT]
    patterns = {*SHOWN, *(pattern for rule in settings.rules for pattern in rule.events or ("*",))}
    names = [name for name in NOUNS["invocation"] if any(fnmatchcase(f"invocation.{name}", p) for p in patterns)]
    return {CONTROL: tuple(nouns), INVOCATIONS: tuple(f"inv.*.*.*.{name}" for name in names)}


def kind_of(subject: str) -> str:
    """``finding.opened``, ``invocation.failed``."""
    return subjects.type_of(subject).removeprefix("systems.")


def step(record: Recorded, board: Board, fleet: Fleet) -> tuple[Notice, ...]:
    """Take an event to the board: what is shown of it."""
    tokens = record.subject.split(".")
    before = board.findings.get(tokens[2]) if isinstance(record.data, finding.Closed) else None
    if tokens[0] == "ctl":
        board.take(record)
    return notices(record, board, fleet, before)


def notices(record: Recorded, board: Board, fleet: Fleet, before: Told | None = None) -> tuple[Notice, ...]:
    """What is shown of an event.

    Args:
        record: the event.
        board: what is known with it.
        fleet: the settings.
        before: of a finding's closing, what was known of it until then.
    """
    if record.event is None or record.data is None:
        return ()
    kind = kind_of(record.subject)
    noun = kind.partition(".")[0]
    if noun == "incident":
        return tuple(_incident(record, kind, board, fleet))
    if noun == "finding":
        return tuple(_finding(record, kind, board, fleet, before))
    return tuple(_other(record, kind, board, fleet))


def _channels(
    record: Recorded, kind: str, about: tuple[str, str], fleet: Fleet, severity: Severity
) -> dict[str, Rule | None]:
    """The channels of an event about a project and a role, each once, with the rule that asks for it."""
    project, role = about
    found: dict[str, Rule | None] = {}
    if any(fnmatchcase(kind, pattern) for pattern in SHOWN):
        own = fleet.channels.get(project, "")
        everywhere = isinstance(record.data, freeze.Frozen | freeze.Thawed) or (
            severity is Severity.ULTRA and not fleet.slack.channel
        )
        shown = fleet.everywhere() if everywhere and not own else (own or fleet.slack.channel,)
        if severity is Severity.ULTRA:
            shown = (*shown, fleet.slack.channel)
        found |= {channel: None for channel in shown if channel}
    assert record.event is not None
    for rule in fleet.slack.rules:
        # In a channel that shows it anyway a rule can only say how.
        if not found.get(rule.channel) and _takes(rule, kind, project, role, severity, record.event.id):
            found[rule.channel] = rule
    return found


def _takes(rule: Rule, kind: str, project: str, role: str, severity: Severity, id_: str) -> bool:
    return (
        any(fnmatchcase(kind, pattern) for pattern in rule.events or SHOWN)
        and (not rule.projects or project in rule.projects)
        and (not rule.roles or role in rule.roles)
        and (not rule.severities or severity in rule.severities)
        and sampled(id_, rule.sample)
    )


def sampled(id_: str, part: float) -> bool:
    """Whether an event is in the sample: the same answer each time, and for every mirror."""
    return part >= 1 or int.from_bytes(hashlib.sha256(id_.encode()).digest()[:4]) < part * _SAMPLES


def _notice(record: Recorded, kind: str, channel: str, message: Message) -> Notice:
    assert record.event is not None
    stream = INVOCATIONS if record.subject.startswith("inv.") else CONTROL
    return Notice(
        channel=channel,
        kind=kind,
        stream=stream,
        seq=record.seq,
        event=record.event.id,
        at=record.stored_at,
        message=message,
    )


_set = msgspec.structs.replace


def _other(record: Recorded, kind: str, board: Board, fleet: Fleet) -> Iterator[Notice]:
    for channel, rule in _channels(
        record, kind, (project_of(record, board), role_of(record, board)), fleet, severity_of(record, board)
    ).items():
        one = _notice(record, kind, channel, words.of(record, board))
        tokens = record.subject.split(".")
        if kind == "sweep.finished":
            yield _set(one, place=Place.UPDATE, key="sweep")
        elif kind == "freeze.frozen":
            yield _set(one, place=Place.NEW, key=f"freeze:{tokens[2]}", urgent=True)
        elif tokens[1] == "freeze":
            yield _set(one, place=Place.REPLY, key=f"freeze:{tokens[2]}", urgent=True)
        elif rule is not None and rule.thread is Thread.INVOCATION and tokens[0] == "inv":
            yield _set(one, place=Place.REPLY, key=f"invocation:{tokens[3]}")
        else:
            yield one


def _finding(record: Recorded, kind: str, board: Board, fleet: Fleet, before: Told | None) -> Iterator[Notice]:
    print_ = record.subject.split(".")[2]
    closed = record.data if isinstance(record.data, finding.Closed) else None
    told = before if closed else board.findings.get(print_)
    if told is None or isinstance(record.data, finding.Raised | finding.Proposed):
        return
    if told.finding.muted and not isinstance(record.data, finding.Changed):
        return  # what explains it is shown
    severity = told.finding.severity
    role = role_in(told.finding.subject)
    seen = _channels(record, kind, (role.partition("/")[0], role), fleet, severity)
    place = Place.NEW if isinstance(record.data, finding.Opened) else Place.UPDATE
    message = words.found(told.known, closed=closed)
    for channel in seen:
        one = _notice(record, kind, channel, message)
        yield _set(one, place=place, key=f"finding:{print_}:{told.opened}", urgent=severity is Severity.ULTRA)


def _incident(record: Recorded, kind: str, board: Board, fleet: Fleet) -> Iterator[Notice]:
    number = record.subject.split(".")[2]
    if not number.isdecimal():
        return  # nobody's: incidents have numbers
    state = board.incidents.get(int(number))
    if isinstance(record.data, inc.PageDue):
        yield from _page(record, kind, board, int(number))
        return
    if state is None:
        return
    projects = set(state.affected)
    if isinstance(record.data, inc.Affected):
        projects |= set(record.data.removed)  # they too are told
    shown = [fleet.channels[name] for name in sorted(projects) if fleet.channels.get(name)]
    channels = tuple(dict.fromkeys(filter(None, (fleet.slack.channel, *shown)))) or fleet.everywhere()
    key = f"incident:{number}"
    for channel in channels:
        own = frozenset() if channel == fleet.slack.channel else fleet.projects_in(channel)
        head = _notice(record, kind, channel, incident_words.head(state, own, fleet.roles))
        said = incident_words.said(record.data, state, own)
        if isinstance(record.data, inc.Declared):
            yield _set(head, place=Place.NEW, key=key, urgent=True)
            continue
        if said is None:
            continue
        # The head first: a channel that is told from here on begins with how it stands.
        yield _set(head, place=Place.UPDATE, key=key, urgent=True)
        yield _set(head, message=said, place=Place.REPLY, key=key, urgent=True)
    yield from _reminder(record, kind, state, fleet)


def _reminder(record: Recorded, kind: str, state: Incident, fleet: Fleet) -> Iterator[Notice]:
    """Whoever owes an update is told so directly: a line in a thread wakes nobody."""
    if isinstance(record.data, inc.Updated) and record.data.automatic and record.data.nags:
        nags = record.data.nags
        acted = _ACTOR.match(nags)
        user = acted["user"] if acted else fleet.people.get(nags, "")
        if user:
            one = _notice(record, kind, user, incident_words.reminder(state, record.data))
            yield _set(one, urgent=True, passing=True)


def _page(record: Recorded, kind: str, board: Board, number: int) -> Iterator[Notice]:
    order: inc.PageDue = record.data
    if order.carrier is inc.Carrier.SLACK:
        one = _notice(record, kind, order.target, incident_words.call(board.incidents.get(number), order, number))
        yield _set(one, urgent=True, page=order, incident=number)
