"""What the mirror knows when an event comes: the findings that are open, the incidents, the invocations' own words.

A fold of ``ctl.finding.>`` and ``ctl.incident.>``; it can be made again from CONTROL at any time, and keeps no more than what is
open and the last :data:`CLOSED` incidents that are not.
"""

from __future__ import annotations

import msgspec

from bus.events import finding, incident
from bus.events.finding import Severity
from bus.store import Recorded
from services.incident import ledger
from services.incident.state import Incident
from services.monitor import memory
from services.monitor.finding import Finding
from services.monitor.memory import Known

#: Closed incidents that are remembered: one may be opened again.
CLOSED = 200


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """An open finding, and which opening of it channels show."""

    known: Known
    #: Sequence of its opening: a finding that comes back is another one for whoever reads a channel.
    opened: int

    @property
    def finding(self) -> Finding:
        """It, as it was last told."""
        return self.known.finding


class Board:
    """The fold."""

    def __init__(self) -> None:
        self.findings: dict[str, Told] = {}
        self.incidents: dict[int, Incident] = {}

    def take(self, record: Recorded) -> None:
        """Fold one event of CONTROL."""
        _, noun, id_, _ = record.subject.split(".", 3)
        if noun == "finding":
            self._finding(id_, record)
        elif noun == "incident":
            ledger.fold(self.incidents, record)
            self._forget()

    def _finding(self, print_: str, record: Recorded) -> None:
        before = self.findings.get(print_)
        known = memory.evolve(before.known if before is not None else None, record.data)
        if known is None:
            self.findings.pop(print_, None)
            return
        opened = record.seq if before is None or isinstance(record.data, finding.Opened) else before.opened
        self.findings[print_] = Told(known=known, opened=opened)

    def _forget(self) -> None:
        """Drop closed incidents, the oldest first, as far as there are too many."""
        if len(self.incidents) > CLOSED:
            closed = [number for number, state in self.incidents.items() if not state.open]
            for number in closed[: len(self.incidents) - CLOSED]:
                del self.incidents[number]


def project_of(record: Recorded, board: Board) -> str:
    """The project that an event is about; empty where it is about no single one."""
    tokens = record.subject.split(".")
    if tokens[0] == "inv":
        return tokens[1]
    data = record.data
    if tokens[1] == "finding":
        told = board.findings.get(tokens[2])
        return role_in(getattr(data, "subject", "") or (told.finding.subject if told else "")).partition("/")[0]
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
        told = board.findings.get(tokens[2])
        return role_in(getattr(record.data, "subject", "") or (told.finding.subject if told else ""))
    role = getattr(record.data, "role", "")
    return role if isinstance(role, str) else ""


def severity_of(record: Recorded, board: Board) -> Severity:
    """How bad it is that this happened: what says nothing of it is a concern."""
    tokens = record.subject.split(".")
    if isinstance(record.data, finding.Closed | finding.Silenced | finding.Unsilenced):
        told = board.findings.get(tokens[2])
        return told.finding.severity if told else Severity.CONCERN
    if tokens[1] == "incident" and tokens[2].isdecimal() and not isinstance(record.data, incident.Declared):
        state = board.incidents.get(int(tokens[2]))
        return state.severity if state else Severity.CONCERN
    found = getattr(record.data, "severity", Severity.CONCERN)
    return found if isinstance(found, Severity) else Severity.CONCERN
