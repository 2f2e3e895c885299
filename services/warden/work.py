"""All unfinished work of the fleet, folded from the log: who holds what, since when, and what waits.

Pure: fed with the messages of INVOCATIONS, asked for facts. It keeps a small record for each invocation that has not
ended and nothing for those that have, so its size is the backlog's. Decisions are made on an invocation's full history,
read again at that moment; this fold only says where to look.
"""

from __future__ import annotations

from collections import Counter, deque
from datetime import UTC, datetime

import msgspec

from bus import errors, wire
from bus.events import invocation as ev
from bus.events.message import Rejected
from bus.invocation import Status
from bus.store import Recorded, read
from bus.subjects import Ref, parse_event

#: Failures remembered for the panel's "last errors".
_LAST_ERRORS = 50
#: Events by which a guard acts on an invocation.
TRIPS = ("swept", "dead_lettered")


class Open(msgspec.Struct):
    """One invocation that has not ended."""

    ref: Ref
    status: Status
    requested_seq: int
    #: When its last event was stored.
    since: datetime
    holder: str = ""
    runner: str = ""
    delivery: int = 0
    reply: str = ""
    #: Monotonic second at which the retry, or the delayed request, is due.
    due_at: float = 0.0
    #: Monotonic second at which the server was first seen to have handed it out without a claim following; 0 for not so.
    handed_at: float = 0.0


class LastError(msgspec.Struct, frozen=True, kw_only=True):
    """A failure, as the panel shows it."""

    at: datetime
    role: str
    invocation: str
    kind: str
    message: str
    fingerprint: str
    seq: int


class TripFact(msgspec.Struct, frozen=True, kw_only=True):
    """The last time that a guard of INVOCATIONS acted, by the name of its event."""

    at: datetime
    #: What it was about, as the panel shows it.
    text: str


def trip_of(record: Recorded) -> TripFact:
    """A ``swept`` or ``dead_lettered`` as the panel shows it."""
    reason = record.data.reason if record.data is not None else ""
    return TripFact(at=record.stored_at, text=f"{reason} {record.subject.split('.')[3]}")


class OpenWork:
    """The fold."""

    def __init__(self) -> None:
        self.open: dict[str, Open] = {}
        self.by_holder: dict[str, set[str]] = {}
        #: How many are unfinished, by project, role and status.
        self.unfinished: Counter[tuple[str, str, Status]] = Counter()
        #: Events seen, by ``project/role`` and event name.
        self.counts: Counter[tuple[str, str]] = Counter()
        #: Event name -> the last one, of the guards that act on invocations; what came before the start is not in it.
        self.last_trips: dict[str, TripFact] = {}
        self.last_errors: deque[LastError] = deque(maxlen=_LAST_ERRORS)
        #: Sequence of the last message folded.
        self.position = 0

    def add(self, item: Open) -> None:
        """Keep an unfinished invocation."""
        self.open[item.ref.id] = item
        self.unfinished[item.ref.project, item.ref.role, item.status] += 1
        if item.holder:
            self.by_holder.setdefault(item.holder, set()).add(item.ref.id)

    def queued(self, role: tuple[str, str], seq: int) -> int:
        """How many of a role (project and name) were asked up to a sequence and are claimed by nobody."""
        return sum(
            item.status is Status.QUEUED and item.requested_seq <= seq and (item.ref.project, item.ref.role) == role
            for item in self.open.values()
        )

    def take(self, delivery: wire.Delivery, now: float, wall: datetime) -> Rejected | None:
        """Fold one message of INVOCATIONS, seen at monotonic second `now` and wall time `wall`; rubbish is returned as a report."""
        self.position = delivery.seq
        stored_at = datetime.fromtimestamp(delivery.stored_ns / 1e9, UTC)
        try:
            ref, name = parse_event(delivery.subject)
        except errors.BadSubject as exc:
            return _report(delivery, str(exc))
        record = read(delivery.seq, delivery.subject, stored_at, delivery.data)
        if record.data is None:
            return _report(delivery, record.problem)
        self.counts[f"{ref.project}/{ref.role}", name] += 1
        if name in TRIPS:
            self.last_trips[name] = trip_of(record)
        self._fold(ref, record, now, wall)
        return None

    def _fold(self, ref: Ref, record: Recorded, now: float, wall: datetime) -> None:
        item = self.open.get(ref.id)
        if item is None:
            item = Open(ref, Status.QUEUED, 0, record.stored_at)
        else:
            self.unfinished[ref.project, ref.role, item.status] -= 1
            held = self.by_holder.get(item.holder)
            if held is not None:
                held.discard(ref.id)
                if not held:
                    del self.by_holder[item.holder]
        item.since, item.holder, item.due_at, item.handed_at = record.stored_at, "", 0.0, 0.0
        match record.data:
            case ev.Requested():
                item.status, item.requested_seq = Status.QUEUED, record.seq
            case ev.Scheduled(due=due):
                item.status, item.due_at = Status.SCHEDULED, now + (due - wall).total_seconds()
            case ev.Claimed(holder=holder, reply=reply, delivery=delivery, runner=runner):
                item.status, item.holder, item.reply = Status.RUNNING, holder, reply
                item.delivery, item.runner = delivery, runner
            case ev.Failed() as failed:
                item.status = Status.WAITING
                if failed.retry_at is not None:
                    item.due_at = now + (failed.retry_at - wall).total_seconds()
                self._remember(ref, failed, record)
            case ev.Swept() | ev.Released() | ev.Redriven():
                item.status = Status.QUEUED
            case _:
                self.open.pop(ref.id, None)
                return
        self.add(item)

    def _remember(self, ref: Ref, failed: ev.Failed, record: Recorded) -> None:
        self.last_errors.append(
            LastError(
                at=record.stored_at,
                role=f"{ref.project}/{ref.role}",
                invocation=ref.id,
                kind=failed.error.kind,
                message=failed.error.message,
                fingerprint=failed.error.fingerprint,
                seq=record.seq,
            )
        )


def _report(delivery: wire.Delivery, why: str) -> Rejected:
    head = delivery.data[:200].decode(errors="replace")
    return Rejected(
        stream="INVOCATIONS",
        seq=delivery.seq,
        subject=delivery.subject,
        reason=why,
        head="".join(c if c.isprintable() else "." for c in head),
    )
