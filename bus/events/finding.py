"""What is wrong with the fleet, as events on ``ctl.finding.<fingerprint>.<event>``.

A finding has one fingerprint for as long as it is the same thing about the same subject. ``opened``, ``changed`` and
``closed`` are its life; ``silenced`` and ``unsilenced`` say whether it may call people; ``raised`` is somebody's word, from
which a finding is opened. Every one but ``raised`` is appended under a fence over its fingerprint.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from bus.events.moment import Moment

#: Messages that a finding names as its evidence, at most.
EVIDENCE_LIMIT = 20


class Severity(StrEnum):
    """How bad it is: a concern waits for a person, ultra calls one."""

    CONCERN = "concern"
    ULTRA = "ultra"


class Kind(StrEnum):
    """What is wrong."""

    BUS_DOWN = "bus_down"
    STORAGE_LOW = "storage_low"
    MEMORY_LOW = "memory_low"
    PEER_LOST = "peer_lost"
    CLOCK_SKEW = "clock_skew"
    CERTIFICATE_ENDS = "certificate_ends"
    FROZEN = "frozen"
    FREEZE_UNANSWERED = "freeze_unanswered"
    WRITTEN_FROZEN = "written_frozen"
    DAEMON_DOWN = "daemon_down"
    DAEMON_LATE = "daemon_late"
    DAEMON_DEAF = "daemon_deaf"
    DAEMON_ENDED = "daemon_ended"
    #: Nobody of a kind of daemon beats: said by its neighbour in the watch ring.
    DAEMON_SILENT = "daemon_silent"
    #: A card waits for a person.
    PERSON_NEEDED = "person_needed"
    #: No sweep has finished in time: said by the launcher.
    SWEEP_LATE = "sweep_late"
    NO_RUNNER = "no_runner"
    NO_CONSUMERS = "no_consumers"
    BACKLOG = "backlog"
    CONSUMER_STUCK = "consumer_stuck"
    STRANDED = "stranded"
    CLAIM_OLD = "claim_old"
    DEAD_LETTERS = "dead_letters"
    ERROR_NEW = "error_new"
    ERROR_RATE = "error_rate"
    REFUSED = "refused"
    PAUSED = "paused"
    SPEND_UNVERIFIED = "spend_unverified"
    COUNTER_REPAIRED = "counter_repaired"
    DRILL_FAILED = "drill_failed"
    DRILL_OLD = "drill_old"
    SCHEDULE_MISSED = "schedule_missed"
    RUBBISH = "rubbish"
    DRIFT = "drift"
    PROJECTION_LATE = "projection_late"
    ARCHIVE_GAP = "archive_gap"
    PING_FAILED = "ping_failed"
    #: A part of the fleet could not be looked at.
    UNSEEN = "unseen"
    #: Somebody on the bus says so.
    RAISED = "raised"


class Change(StrEnum):
    """How an open finding differs from the sweep before."""

    WORSE = "worse"
    BETTER = "better"
    #: A root cause explains it, or does so no more.
    MUTED = "muted"
    UNMUTED = "unmuted"


class CloseReason(StrEnum):
    """Why a finding is not open any more."""

    #: A sweep that could see it did not find it.
    GONE = "gone"
    #: A person said so.
    CLOSED = "closed"
    #: Nobody raised it again in time.
    EXPIRED = "expired"


class UnsilenceReason(StrEnum):
    """Why a silence is over."""

    TIME = "time"
    #: What it was about is closed.
    CLOSED = "closed"
    PERSON = "person"


class Evidence(msgspec.Struct, frozen=True):
    """A message that shows it."""

    stream: str
    seq: int


class Opened(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something is wrong that was not, or was gone."""

    kind: Kind
    severity: Severity
    title: str
    #: Role, daemon, stream, bucket, guard: what it is about.
    subject: str
    since: Moment
    detail: str = ""
    evidence: tuple[Evidence, ...] = ()
    #: More is worse; what it counts is in the title.
    value: float = 0.0
    #: What a person runs; empty where there is nothing to run.
    command: str = ""
    #: Fingerprint of the finding that explains and mutes this one; empty for none.
    cause: str = ""
    #: Who says so: ``monitor``, a daemon of the watch ring, or whoever raised it.
    by: str = "monitor"
    #: Sweep that found it; empty where none did.
    sweep: str = ""


class Changed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """It is still there, and not as it was."""

    change: Change
    severity: Severity
    title: str
    detail: str = ""
    evidence: tuple[Evidence, ...] = ()
    value: float = 0.0
    #: What `value` was before.
    was: float = 0.0
    command: str = ""
    cause: str = ""
    sweep: str = ""


class Closed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """It is not wrong any more."""

    reason: CloseReason
    #: Seconds that it was open.
    open_s: float = 0.0
    #: A person's words.
    why: str = ""
    by: str = "monitor"
    sweep: str = ""


class Silenced(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """It shall call nobody for a while; it stays in sight. Ends with `until`, and with the finding."""

    owner: str
    reason: str
    until: Moment


class Unsilenced(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Its silence is over."""

    reason: UnsilenceReason
    #: Whose silence it was.
    owner: str = ""


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a triage would do."""

    action: str
    target: str
    why: str = ""
    #: It is on the list of what may be done without a person; all others wait for one.
    allowed: bool = False


class Proposed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A triage has looked at the finding and proposes what to do."""

    #: The triage's invocation.
    invocation: str
    summary: str = ""
    proposals: tuple[Proposal, ...] = ()
    #: Why its answer is none; empty for a good one.
    problem: str = ""


class Raised(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Somebody on the bus says that something is wrong."""

    #: ``project/role`` of a handler, or a person's or script's name.
    by: str
    severity: Severity
    title: str
    detail: str = ""
    evidence: tuple[Evidence, ...] = ()
    #: Invocation in which it was raised; empty for none.
    invocation: str = ""


EVENTS: dict[str, type[msgspec.Struct]] = {
    "opened": Opened,
    "changed": Changed,
    "closed": Closed,
    "silenced": Silenced,
    "unsilenced": Unsilenced,
    "raised": Raised,
    "proposed": Proposed,
}
