"""The incidents of the record: read from CONTROL, and appended to under a fence, so that of two who act at once one wins.

Everybody acts through here: the warden, the command line, Slack. Who loses a fence reads what the other one has said, and
decides again: a second close is then refused in words.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import structlog

from bus import errors
from bus.events import incident as ev
from bus.store import CONTROL, Recorded
from services.daemon import Bus
from services.incident import commands as ask
from services.incident.decision import decide
from services.incident.state import Incident, evolve

log = structlog.get_logger()

#: Everything of all incidents, and all their beginnings: who takes a number fences the latter.
ALL, _BEGINNINGS = "ctl.incident.>", "ctl.incident.*.declared"


def scope(number: int) -> str:
    """What an incident's fence is compared over: all of its events."""
    return f"ctl.incident.{number}.>"


def fold(incidents: dict[int, Incident], record: Recorded) -> None:
    """Fold one event of ``ctl.incident.>`` into the incidents, by number.

    What has no number is nobody's. Rubbish among an incident's events moves its fence and nothing else.
    """
    token = record.subject.split(".")[2]
    if not token.isdecimal():
        return
    number = int(token)
    state = incidents.get(number)
    if record.data is not None:
        state = evolve(state, number, record.data, record.seq, record.stored_at)
    if state is not None:
        incidents[number] = msgspec.structs.replace(state, last_seq=record.seq)


class Ledger:
    """What is known of incidents."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        #: All of them, by number.
        self.incidents: dict[int, Incident] = {}
        #: Sequence of the last event folded, and of the last declaration.
        self._position = 0
        self._begun = 0

    @property
    def open(self) -> tuple[Incident, ...]:
        """Those that nobody has closed, the oldest first."""
        return tuple(one for _, one in sorted(self.incidents.items()) if one.open)

    async def catch_up(self) -> None:
        """Read what is new.

        Raises:
            ServerError: the stream is not there.
        """
        async for record in self._bus.store.read(CONTROL, ALL, start=self._position + 1):
            self.take(record)

    def take(self, record: Recorded) -> None:
        """Fold one event; once, also when two read at the same time."""
        if record.seq <= self._position:
            return
        self._position = record.seq
        if record.subject.split(".")[3:] == ["declared"]:
            self._begun = record.seq
        fold(self.incidents, record)

    def find(self, text: str) -> Incident:
        """The incident with this number.

        Raises:
            UnknownName: there is none.
        """
        number = text.strip().removeprefix("#")
        found = self.incidents.get(int(number)) if number.isdecimal() else None
        if found is None:
            raise errors.UnknownName("incident", text, map(str, sorted(self.incidents)))
        return found

    async def declare(self, declared: ev.Declared) -> Incident:
        """Open an incident under the next number; of a finding that has an open one already, that one.

        Raises:
            BusError: the server did not take it.
        """
        while True:
            await self.catch_up()
            for known in self.open:
                if declared.finding and declared.finding in known.findings:
                    return known
            number = max(self.incidents, default=0) + 1
            event = self._bus.author.control(str(number), declared, actor=declared.by)
            try:
                await self._bus.store.append(event, expect=self._begun, scope=_BEGINNINGS)
            except errors.SequenceConflict:
                log.info("incident_overtaken", incident=number, what="declared")
                continue
            await self.catch_up()
            return self.incidents[number]

    async def act(self, number: int, command: ask.Command, *, actor: str = "") -> Incident:
        """Carry a command out: the incident afterwards.

        Args:
            number: of the incident.
            command: what is asked.
            actor: who is named in the event; empty for the writer.

        Raises:
            UnknownName: there is no such incident.
            IncidentRefused: the command does not fit the incident as it stands.
            BusError: the server did not take it.
        """
        while True:
            await self.catch_up()
            state = self.find(str(number))
            events = decide(state, command, self._bus.author.now())
            if await self._append(state, events, actor):
                await self.catch_up()
                return self.incidents[number]

    async def _append(self, state: Incident, events: Iterable[ev.IncidentEvent], actor: str) -> bool:
        """Whether all were written, and nobody was quicker."""
        expect = state.last_seq
        for event in events:
            envelope = self._bus.author.control(str(state.number), event, actor=actor)
            try:
                expect = await self._bus.store.append(envelope, expect=expect, scope=scope(state.number))
            except errors.SequenceConflict:
                log.info("incident_overtaken", incident=state.number, what=type(event).__name__)
                return False
        return True
