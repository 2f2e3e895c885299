"""Which finding opens an incident, joins one, opens one again, or is gone: one step at a time. Pure.

A finding calls when it is ultra, nothing explains it and nobody has silenced it. It counts as back only if it began to call
after the close: what a person closes while it is still there stays closed. So does what only says what happened to the same
thing until then: that a daemon had ended is found when it is back, which may be after the close.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta

import msgspec

from bus.events import incident as ev
from bus.events.finding import Kind, Severity
from bus.store import Recorded
from services.fleet.duty import Incidents
from services.incident import commands as ask
from services.incident.state import Incident
from services.monitor import memory
from services.monitor.memory import Known

#: ``agent_runner-1`` and ``warden@host`` are about the same kind of daemon.
_SEAT = re.compile(r"^([a-z_]+)(?:-\d+)?(?:@.*)?$")

#: Kinds that say what has happened, at their `since`, and not what is so.
_HAPPENED = frozenset({Kind.DAEMON_ENDED})


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """An open finding, and since when it calls people."""

    known: Known
    #: First invocations of the run trees that it shows.
    roots: frozenset[str] = frozenset()
    #: When it last began to call; None: it does not.
    called_at: datetime | None = None

    @property
    def fingerprint(self) -> str:
        """What it is known by."""
        return self.known.finding.fingerprint


def stand(before: Standing | None, record: Recorded) -> Standing | None:
    """A finding after one more of its events; None: it is not open."""
    known = memory.evolve(before.known if before is not None else None, record.data)
    if known is None:
        return None
    calls = known.speaks and known.finding.severity is Severity.ULTRA
    since = before.called_at if before is not None else None
    roots = before.roots if before is not None else frozenset()
    return Standing(known=known, roots=roots, called_at=(since or record.stored_at) if calls else None)


class Declare(msgspec.Struct, frozen=True):
    """Open an incident."""

    event: ev.Declared


class Act(msgspec.Struct, frozen=True):
    """Do something to one that exists."""

    number: int
    command: ask.Command


def next_step(
    incidents: Mapping[int, Incident], standing: Mapping[str, Standing], limits: Incidents, now: datetime
) -> Declare | Act | None:
    """What follows from the findings as they stand; None: nothing. To be asked again after each step."""
    open_ = [one for _, one in sorted(incidents.items()) if one.open]
    for one in open_:
        for print_, part in one.findings.items():
            if part.recovered_at is None and print_ not in standing:
                return Act(one.number, ask.Recover(print_))
    for found in sorted(standing.values(), key=lambda one: (one.called_at is None, one.known.finding.since)):
        step = _of(found, open_, incidents, standing, limits, now)
        if step is not None:
            return step
    return None


def _of(
    found: Standing,
    open_: list[Incident],
    incidents: Mapping[int, Incident],
    standing: Mapping[str, Standing],
    limits: Incidents,
    now: datetime,
) -> Declare | Act | None:
    finding, print_ = found.known.finding, found.fingerprint
    next_at = now + timedelta(seconds=limits.update_every)
    mine = next((one for one in open_ if print_ in one.findings), None)
    if mine is not None:
        part, join = mine.findings[print_], _join(found, mine.findings[print_].reason, next_at)
        if part.recovered_at is None and part.severity is join.severity:
            return None
        return Act(mine.number, join)
    if found.known.silence is not None:
        return None
    for one in open_:
        reason = related(found, one, standing)
        if reason is not None:
            return Act(one.number, _join(found, reason, next_at))
    if found.called_at is None:
        return None
    last = max(
        (one for one in incidents.values() if print_ in one.findings and one.closed_at is not None),
        key=lambda one: one.number,
        default=None,
    )
    if last is None or last.closed_at is None:
        return None if told(found, incidents, standing) else Declare(declared(found, next_at))
    if found.called_at <= last.closed_at:
        return None
    if found.called_at - last.closed_at > timedelta(seconds=limits.reopen_within):
        return Declare(declared(found, next_at))
    why = f"its finding is back: {finding.title}"
    return Act(last.number, ask.Reopen(by="monitor", why=why, finding=print_, next_at=next_at))


def told(found: Standing, incidents: Mapping[int, Incident], standing: Mapping[str, Standing]) -> bool:
    """Whether a finding only says what happened within an incident that a person has closed since.

    Such a one is as bad as what it explains; if any of that began after the close, it is news.
    """
    finding = found.known.finding
    if finding.kind not in _HAPPENED:
        return False
    explained = (one.known.finding for one in standing.values())
    latest = max((one.since for one in explained if one.cause == found.fingerprint), default=finding.since)
    return any(
        one.closed_at is not None
        and max(latest, finding.since) <= one.closed_at
        and any(part.subject == finding.subject for part in one.findings.values())
        for one in incidents.values()
    )


def _join(found: Standing, reason: ev.JoinReason, next_at: datetime) -> ask.Join:
    finding = found.known.finding
    return ask.Join(
        finding=found.fingerprint,
        kind=finding.kind,
        # What is explained or silenced wakes nobody, however bad it is.
        severity=finding.severity if found.called_at is not None else Severity.CONCERN,
        title=finding.title,
        subject=finding.subject,
        reason=reason,
        next_at=next_at,
    )


def related(found: Standing, one: Incident, standing: Mapping[str, Standing]) -> ev.JoinReason | None:
    """Why a finding belongs to an incident; None: it does not."""
    finding = found.known.finding
    if finding.cause and finding.cause in one.findings:
        return ev.JoinReason.CAUSE
    for print_, part in one.findings.items():
        other = standing.get(print_)
        if other is not None and other.known.finding.cause == found.fingerprint:
            return ev.JoinReason.CAUSE
        if part.recovered_at is None and about(part.subject) == about(finding.subject):
            return ev.JoinReason.SUBJECT
        if other is not None and other.roots & found.roots:
            return ev.JoinReason.TREE
    return None


def about(subject: str) -> str:
    """What a finding's subject is about: of a daemon its kind, of what somebody raised the one who did."""
    if ": " in subject:
        subject = subject.partition(": ")[0]
    seat = _SEAT.match(subject)
    return seat[1] if seat is not None else subject


def declared(found: Standing, next_at: datetime) -> ev.Declared:
    """The event that opens an incident for a finding."""
    finding = found.known.finding
    return ev.Declared(
        title=finding.title,
        severity=finding.severity,
        by="monitor",
        since=finding.since,
        detail=finding.detail,
        command=finding.command,
        finding=found.fingerprint,
        kind=finding.kind,
        subject=finding.subject,
        next_at=next_at,
    )
