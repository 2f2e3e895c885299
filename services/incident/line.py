"""Open incidents as the panel shows them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import msgspec

from bus.events.finding import Severity
from bus.events.moment import Moment
from bus.store import CONTROL, Recorded
from services.daemon import Bus
from services.incident.ledger import fold, scope
from services.incident.state import Incident, Status
from services.incident.words import status_of

#: The events that say whether an incident is open: few, however many calls it makes.
_TURNS = ("declared", "closed", "reopened")


class IncidentLine(msgspec.Struct, frozen=True, kw_only=True):
    """An open incident."""

    number: int
    severity: Severity
    status: Status
    title: str
    since: Moment
    #: Who has it, until when, what is overdue, what fails: in words.
    stands: str
    #: Commander, else who has acknowledged it; empty for nobody.
    in_charge: str = ""
    affected: tuple[str, ...] = ()
    #: People are being called for it.
    pages: bool = False
    #: A person's update is owed and has not come.
    overdue: bool = False
    #: Every way to call people fails.
    paging_failed: bool = False
    #: Calls that fail, as ``person by way: error``.
    failing: tuple[str, ...] = ()

    @property
    def told(self) -> str:
        """It in one line."""
        return f"incident {self.number} ({self.severity}): {self.title}; {self.stands}"

    @property
    def command(self) -> str:
        """What a person runs next."""
        return f"systems incident {'show' if self.in_charge else 'ack'} {self.number}"


def line_of(incident: Incident, now: datetime) -> IncidentLine:
    """An incident as the panel shows it. Pure."""
    return IncidentLine(
        number=incident.number,
        severity=incident.severity,
        status=incident.status,
        title=incident.title,
        since=incident.since,
        stands=status_of(incident, now),
        in_charge=incident.in_charge,
        affected=tuple(sorted(incident.affected)),
        pages=incident.pages,
        overdue=incident.overdue(now),
        paging_failed=incident.paging_failed_at is not None,
        failing=tuple(f"{line.person} by {line.way}: {line.error}" for line in incident.failing),
    )


def lines(records: Iterable[Recorded], now: datetime) -> tuple[IncidentLine, ...]:
    """The open ones among the incidents that records of CONTROL make, the worst and oldest first. Pure."""
    states: dict[int, Incident] = {}
    for record in records:
        fold(states, record)
    found = (line_of(state, now) for state in states.values() if state.open)
    return tuple(sorted(found, key=lambda line: (line.severity is not Severity.ULTRA, line.number)))


async def look(bus: Bus, now: datetime) -> tuple[IncidentLine, ...]:
    """The open incidents; of those that are closed only the turns are read.

    Raises:
        BusError: the server does not answer.
    """
    turns: list[Recorded] = []
    for name in _TURNS:
        turns += [record async for record in bus.store.read(CONTROL, f"ctl.incident.*.{name}")]
    last = {record.subject.split(".")[2]: record for record in sorted(turns, key=lambda record: record.seq)}
    records: list[Recorded] = []
    for token, turn in last.items():
        if token.isdecimal() and not turn.subject.endswith(".closed"):
            records += [record async for record in bus.store.read(CONTROL, scope(int(token)))]
    return lines(records, now)
