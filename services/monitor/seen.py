"""Everything that a sweep has looked at, and what it could not see. The rules judge this and nothing else."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from bus.events.finding import Evidence
from bus.events.topology import Change
from services.health.panel import Panel


class Part(StrEnum):
    """A part of the fleet that is looked at as a whole, or not."""

    #: What the panel shows: daemons, roles, kill switch, guards, caps.
    PANEL = "panel"
    #: Streams, disk, memory, clock, peers, certificate.
    SERVER = "server"
    #: Work in flight, as the fold of the log has it.
    WORK = "work"
    LETTERS = "dead letters"
    #: What CONTROL says of lately.
    RECORD = "record"
    #: The live bus against its declared shape.
    SHAPE = "shape"
    #: What only tables know: rates, and whether an error is new.
    TABLES = "tables"
    ARCHIVE = "archive"


class Unseen(msgspec.Struct, frozen=True):
    """A part that could not be looked at."""

    part: Part
    why: str

    def __str__(self) -> str:
        return f"{self.part.value} ({self.why})"


class StreamSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A stream as the server has it."""

    name: str
    last_seq: int
    messages: int
    bytes: int
    max_bytes: int = -1
    #: Replicas that are away, or far behind.
    away: tuple[str, ...] = ()


class ServerSeen(msgspec.Struct, frozen=True, kw_only=True):
    """The server and the machine. None: it does not say, or there is none."""

    streams: tuple[StreamSeen, ...] = ()
    #: Parts that are left, 0 to 1.
    disk_left: float | None = None
    store_left: float | None = None
    memory_left: float | None = None
    #: Seconds that the server's clock is ahead of ours; the request's own time is taken off.
    skew_s: float = 0.0
    certificate_ends: datetime | None = None
    #: When the bus was made: a fleet that is younger than a limit owes no proof yet.
    born: datetime | None = None
    #: The last end of the server's process that nobody asked for, if that was lately.
    ended_at: datetime | None = None
    ended: Evidence | None = None


class ConsumerSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A role's consumer, looked at twice where it seemed wrong."""

    role: str
    pending: int
    ack_pending: int
    waiting: int
    #: Unfinished invocations of the role by the fold.
    unfinished: int = 0
    #: Invocations that could be handed out, are not, and will not be by themselves.
    stranded: tuple[str, ...] = ()
    #: Seconds that one attempt may take.
    timeout_s: float = 0.0


class ClaimSeen(msgspec.Struct, frozen=True, kw_only=True):
    """One of the oldest claims in flight."""

    role: str
    invocation: str
    since: datetime
    age_s: float
    timeout_s: float


class LettersSeen(msgspec.Struct, frozen=True, kw_only=True):
    """The dead letters that wait: of one role, or with an empty role of all of them."""

    role: str
    count: int
    lately: int
    oldest_at: datetime | None
    last_seq: int


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """An event of CONTROL in the look-back window."""

    seq: int
    at: datetime
    #: The id token of its subject.
    id: str
    data: Any

    @property
    def evidence(self) -> Evidence:
        """Where it lies."""
        return Evidence("CONTROL", self.seq)


class ErrorSeen(msgspec.Struct, frozen=True, kw_only=True):
    """Failures of one fingerprint, as the tables count them."""

    fingerprint: str
    role: str
    kind: str
    message: str
    first_at: datetime
    last_seq: int
    #: In the look-back window, and in windows of that length before it on average.
    lately: int
    usual: float


class GapSeen(msgspec.Struct, frozen=True, kw_only=True):
    """Sequences that the archive should hold and does not."""

    stream: str
    first: int
    last: int
    why: str = ""


class StepSeen(msgspec.Struct, frozen=True, kw_only=True):
    """Something of the live bus that is not as declared."""

    name: str
    action: str
    changes: tuple[Change, ...]


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """One look."""

    at: datetime
    host: str
    #: Parts that were not looked at on purpose: a quick look.
    skipped: frozenset[Part] = frozenset()
    unseen: tuple[Unseen, ...] = ()
    panel: Panel | None = None
    server: ServerSeen | None = None
    consumers: tuple[ConsumerSeen, ...] = ()
    claims: tuple[ClaimSeen, ...] = ()
    letters: tuple[LettersSeen, ...] = ()
    #: Seat token -> the last event about that daemon.
    daemons: dict[str, Said] = {}
    #: The fleet comes up at this moment: who is not there yet may still come.
    settling: bool = False
    #: Events of CONTROL in the look-back window, oldest first.
    said: tuple[Said, ...] = ()
    #: Concerns that still stand, raised by somebody.
    raised: tuple[Said, ...] = ()
    steps: tuple[StepSeen, ...] = ()
    errors: tuple[ErrorSeen, ...] = ()
    #: How far the tables are behind the log: events, seconds.
    lag_events: int = 0
    lag_s: float = 0.0
    gaps: tuple[GapSeen, ...] = ()
    #: Why the outside switch could not be called; empty for nothing.
    ping_problem: str = ""

    @property
    def blind(self) -> frozenset[Part]:
        """Parts of which nothing is known."""
        return self.skipped | {unseen.part for unseen in self.unseen}
