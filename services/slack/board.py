"""What the mirror knows when an event comes: the findings that are open, the incidents, the invocations' own words.

A fold of ``ctl.finding.>`` and ``ctl.incident.>``; it can be made again from CONTROL at any time, and keeps no more than what is
open and the last :data:`CLOSED` incidents that are not.
"""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime

import msgspec

from bus.events import finding, incident
from bus.events.finding import Severity
from bus.store import Recorded
from services.incident import state as incidents
from services.incident.state import Incident

#: Closed incidents that are remembered: one may be opened again.
CLOSED = 200


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """An open finding, as it was last told."""

    fingerprint: str
    severity: Severity
    title: str
    subject: str
    since: datetime
    #: Sequence of its opening: a finding that comes back is another one for whoever reads a channel.
    opened: int
    detail: str = ""
    command: str = ""
    #: Fingerprint of what explains it; empty for nothing.
    cause: str = ""
    #: Until when it calls nobody; None where it may.
    silenced: datetime | None = None


class Board:
    """The fold."""

    def __init__(self) -> None:
        self.findings: dict[str, Finding] = {}
        self.incidents: OrderedDict[int, Incident] = OrderedDict()

    def take(self, record: Recorded) -> None:
        """Fold one event of CONTROL."""
        if record.data is None:
            return
        _, noun, id_, _ = record.subject.split(".", 3)
        if noun == "finding":
            self._finding(id_, record)
        elif noun == "incident" and id_.isdigit():
            self._incident(int(id_), record)

    def _finding(self, print_: str, record: Recorded) -> None:
        known, event = self.findings.get(print_), record.data
        match event:
            case finding.Opened():
                self.findings[print_] = Finding(
                    fingerprint=print_,
                    severity=event.severity,
                    title=event.title,
                    subject=event.subject,
                    since=event.since,
                    opened=record.seq,
                    detail=event.detail,
                    command=event.command,
                    cause=event.cause,
                )
            case finding.Changed() if known is not None:
                self.findings[print_] = msgspec.structs.replace(
                    known,
                    severity=event.severity,
                    title=event.title,
                    detail=event.detail,
                    command=event.command,
                    cause=event.cause,
                )
            case finding.Silenced() if known is not None:
                self.findings[print_] = msgspec.structs.replace(known, silenced=event.until)
            case finding.Unsilenced() if known is not None:
                self.findings[print_] = msgspec.structs.replace(known, silenced=None)
            case finding.Closed():
                self.findings.pop(print_, None)

    def _incident(self, number: int, record: Recorded) -> None:
        after = incidents.evolve(self.incidents.get(number), number, record.data, record.seq, record.stored_at)
        if after is None:
            return
        self.incidents[number] = after
        if len(self.incidents) > CLOSED:
            closed = [one for one, state in self.incidents.items() if not state.open]
            for one in closed[: len(self.incidents) - CLOSED]:
                del self.incidents[one]


def project_of(record: Recorded, board: Board) -> str:
    """The project that an event is about; empty where it is about no single one."""
    tokens = record.subject.split(".")
    if tokens[0] == "inv":
        return tokens[1]
    data = record.data
    if tokens[1] == "finding":
        known = board.findings.get(tokens[2])
        return role_in(getattr(data, "subject", "") or (known.subject if known else "")).partition("/")[0]
    if tokens[1] == "quota":
        scope = tokens[2]
        return "" if scope in ("system", "tree") else scope.partition("_")[0]
    role = getattr(data, "role", "") or getattr(data, "target", "")
    return role.partition("/")[0] if isinstance(role, str) and "/" in role else getattr(data, "project", "")


def role_in(subject: str) -> str:
    """The role that a finding is about, from ``shop/coder`` or ``shop/coder e636eb7d11ef``; empty for none."""
    role = subject.partition(" ")[0]
    return role if role.count("/") == 1 else ""


def role_of(record: Recorded, board: Board) -> str:
    """The role that an event is about, as ``project/role``; empty for none."""
    tokens = record.subject.split(".")
    if tokens[0] == "inv":
        return f"{tokens[1]}/{tokens[2]}"
    if tokens[1] == "finding":
        known = board.findings.get(tokens[2])
        return role_in(getattr(record.data, "subject", "") or (known.subject if known else ""))
    role = getattr(record.data, "role", "")
    return role if isinstance(role, str) else ""


def severity_of(record: Recorded, board: Board) -> Severity:
    """How bad it is that this happened: what says nothing of it is a concern."""
    tokens = record.subject.split(".")
    if isinstance(record.data, finding.Closed | finding.Silenced | finding.Unsilenced):
        known = board.findings.get(tokens[2])
        return known.severity if known else Severity.CONCERN
    if tokens[1] == "incident" and tokens[2].isdigit() and not isinstance(record.data, incident.Declared):
        state = board.incidents.get(int(tokens[2]))
        return state.severity if state else Severity.CONCERN
    found = getattr(record.data, "severity", Severity.CONCERN)
    return found if isinstance(found, Severity) else Severity.CONCERN
