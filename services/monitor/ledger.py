"""The findings of the record: read from CONTROL, and appended to under a fence, so that of two who write one wins.

The fold is :func:`services.monitor.memory.evolve`. Everything of it can be read again from CONTROL at any time; a monitor that
starts reads all of ``ctl.finding.>`` once and from then on what is new.
"""

from __future__ import annotations

from collections import deque
from datetime import datetime, timedelta

import structlog

from bus import errors
from bus.events import finding as ev
from bus.store import CONTROL, Recorded
from services.daemon import Bus
from services.monitor import memory
from services.monitor.finding import rank
from services.monitor.memory import Known, Step
from services.monitor.seen import Said

log = structlog.get_logger()

#: Seconds over which what somebody raises is counted.
HOUR_S = 3600.0
#: Raises remembered of one who raises: more than anybody may make in an hour.
_REMEMBERED = 1000


def scope(fingerprint: str) -> str:
    """What a finding's fence is compared over: all of its events."""
    return f"ctl.finding.{fingerprint}.>"


class Ledger:
    """What is known of findings."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        #: The open ones, by fingerprint.
        self.known: dict[str, Known] = {}
        #: What somebody raised and nobody has closed: the last word, with the worst severity.
        self.raised: dict[str, Said] = {}
        #: What a triage proposes, of the open ones.
        self.proposed: dict[str, ev.Proposed] = {}
        #: When each one raised something, oldest first.
        self._raises: dict[str, deque[datetime]] = {}
        self._seqs: dict[str, int] = {}
        self._position = 0

    async def catch_up(self) -> None:
        """Read what is new.

        Raises:
            ServerError: the stream is not there.
        """
        async for record in self._bus.store.read(CONTROL, "ctl.finding.>", start=self._position + 1):
            self.take(record)

    def take(self, record: Recorded) -> None:
        """Fold one event; once, also when two read at the same time."""
        if record.seq <= self._position:
            return
        self._position = record.seq
        print_ = record.subject.split(".")[2]
        self._seqs[print_] = record.seq
        if record.data is None:
            return
        if isinstance(record.data, ev.Raised):
            self._take_raised(print_, record)
        if isinstance(record.data, ev.Proposed) and print_ in self.known:
            self.proposed[print_] = record.data
        after = memory.evolve(self.known.get(print_), record.data)
        if after is not None:
            self.known[print_] = after
            return
        self.known.pop(print_, None)
        if isinstance(record.data, ev.Closed):
            self.raised.pop(print_, None)
            self.proposed.pop(print_, None)

    def _take_raised(self, print_: str, record: Recorded) -> None:
        data: ev.Raised = record.data
        before = self.raised.get(print_)
        if before is not None and rank(before.data.severity) > rank(data.severity):
            data = before.data
        self.raised[print_] = Said(seq=record.seq, at=record.stored_at, id=print_, data=data)
        self._raises.setdefault(data.by, deque(maxlen=_REMEMBERED)).append(record.stored_at)

    def raises(self, now: datetime, by: str | None = None) -> list[datetime]:
        """When somebody (all, for None) raised something within the last hour, oldest first."""
        since = now - timedelta(seconds=HOUR_S)
        of = self._raises.values() if by is None else [self._raises.get(by, deque())]
        return sorted(at for times in of for at in times if at > since)

    def standing(self, now: datetime, stands_s: float) -> tuple[Said, ...]:
        """What was raised and still stands."""
        since = now - timedelta(seconds=stands_s)
        return tuple(sorted((said for said in self.raised.values() if said.at > since), key=lambda said: said.seq))

    async def write(self, step: Step, *, event_id: str = "") -> bool:
        """Append one event of a finding: whether it was, and nobody was quicker."""
        event = self._bus.author.control(step.fingerprint, step.event, event_id=event_id)
        expect = self._seqs.get(step.fingerprint, 0)
        try:
            seq = await self._bus.store.append(event, expect=expect, scope=scope(step.fingerprint))
        except errors.SequenceConflict:
            # A person or a neighbour in the watch ring was quicker: the next look goes by what they have said.
            log.info("finding_overtaken", fingerprint=step.fingerprint, what=type(step.event).__name__)
            return False
        self._seqs[step.fingerprint] = seq
        return True
