"""Something that is wrong: what, how bad, since when, by which evidence, and what a person runs. Pure."""

from __future__ import annotations

import hashlib
from datetime import datetime

import msgspec

from bus.events import finding as ev
from bus.events.finding import EVIDENCE_LIMIT, Evidence, Kind, Severity

#: Characters of a fingerprint: those of errors have as many.
_LENGTH = 12
#: Characters of a title and of a detail; what is raised comes from anybody.
TITLE_LIMIT, DETAIL_LIMIT = 200, 2000


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One finding, as a sweep makes it."""

    kind: Kind
    severity: Severity
    #: Role, daemon, stream, guard: with the kind it is what the finding is known by.
    subject: str
    title: str
    since: datetime
    detail: str = ""
    evidence: tuple[Evidence, ...] = ()
    #: More is worse.
    value: float = 0.0
    command: str = ""
    #: Fingerprint of the finding that explains this one; empty for none.
    cause: str = ""
    by: str = "monitor"

    @property
    def fingerprint(self) -> str:
        """What it is known by over all sweeps."""
        return fingerprint(self.kind, self.subject)

    @property
    def muted(self) -> bool:
        """Another finding explains it."""
        return bool(self.cause)


def fingerprint(kind: Kind, subject: str) -> str:
    """12 hexadecimal digits that stand for a kind of finding about a subject."""
    return hashlib.sha256(f"{kind.value}\0{subject}".encode()).hexdigest()[:_LENGTH]


def rank(severity: Severity) -> int:
    """Severities as numbers: the worse the higher."""
    return (Severity.CONCERN, Severity.ULTRA).index(severity)


def opened(found: Finding, sweep: str) -> ev.Opened:
    """The event that begins its life."""
    return ev.Opened(
        kind=found.kind,
        severity=found.severity,
        title=found.title[:TITLE_LIMIT],
        subject=found.subject,
        since=found.since,
        detail=found.detail[:DETAIL_LIMIT],
        evidence=found.evidence[:EVIDENCE_LIMIT],
        value=found.value,
        command=found.command,
        cause=found.cause,
        by=found.by,
        sweep=sweep,
    )


def changed(found: Finding, change: ev.Change, was: float, sweep: str) -> ev.Changed:
    """The event that says how it differs from what was written last."""
    return ev.Changed(
        change=change,
        severity=found.severity,
        title=found.title[:TITLE_LIMIT],
        detail=found.detail[:DETAIL_LIMIT],
        evidence=found.evidence[:EVIDENCE_LIMIT],
        value=found.value,
        was=was,
        command=found.command,
        cause=found.cause,
        sweep=sweep,
    )
