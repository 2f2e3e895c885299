"""What is to be done about a kill switch, from what is seen of it. Pure.

Nothing is remembered between two looks: the flag, the stream's shape and the record in CONTROL say where a freeze or a thaw
stands, so a warden that dies in the middle goes on where it was.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

from bus.flags import KillSwitch, Mode

#: Seconds that daemons have for their receipt of a freeze.
RECEIPT_S = 10.0
#: Seconds that live runners have to settle what they hold at a thaw before it goes on without them.
SETTLE_S = 30.0


class Step(StrEnum):
    """The next thing to do."""

    NOTHING = "nothing"
    #: Make the server refuse writes and hand out nothing.
    FREEZE = "freeze"
    #: Write that it does, and at which sequence.
    RECORD = "record"
    #: Write that the mode of the standing freeze has changed.
    CHANGE = "change"
    #: Write who gave no receipt.
    MISS = "miss"
    #: Put clear: its time is over.
    CLEAR = "clear"
    #: Let the server take writes again.
    THAW = "thaw"
    #: Wait until the runners have settled what they hold.
    WAIT = "wait"
    #: Put back what nobody is left to settle, and hand out work again.
    RELEASE = "release"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What CONTROL says of the last freeze."""

    id: str = ""
    #: Last mode and problem that were written.
    mode: str = ""
    why: str = ""
    seq: int = 0
    frozen_at: datetime | None = None
    thawing_at: datetime | None = None
    thawed: bool = False
    #: Boot ids with a receipt for the freeze, and for the thaw.
    stopped: frozenset[str] = frozenset()
    settled: frozenset[str] = frozenset()
    #: Receipts (freeze id, boot id) that came before their freeze was recorded.
    early: frozenset[tuple[str, str]] = frozenset()
    #: Instances that were reported as missing.
    missing: frozenset[str] = frozenset()

    @property
    def stands(self) -> bool:
        """A freeze was begun and its thaw is not over."""
        return bool(self.id) and not self.thawed


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the decision depends on."""

    switch: KillSwitch
    #: The stream refuses writes.
    stream_frozen: bool
    record: Record
    #: Live daemons: boot id -> instance; and those of them that settle claims.
    alive: dict[str, str]
    #: The same for those that do not beat and are not known to have ended: nobody can say that they have stopped.
    silent: dict[str, str] = {}
    #: When each of the live ones started.
    since: dict[str, datetime] = {}
    runners: frozenset[str] = frozenset()


def decide(seen: Seen, now: datetime) -> Step:
    """The next step; NOTHING when all is as it should be."""
    switch, record = seen.switch, seen.record
    if switch.frozen:
        if not seen.stream_frozen:
            return Step.FREEZE
        if record.id != switch.id or record.thawing_at is not None:
            return Step.RECORD
        if (record.mode, record.why) != (switch.mode.value, switch.problem):
            return Step.CHANGE
        if switch.mode is Mode.SOFT and switch.until is not None and now >= switch.until:
            return Step.CLEAR
        if late(seen, now) - record.missing:
            return Step.MISS
        return Step.NOTHING
    if seen.stream_frozen:
        return Step.THAW
    if not record.stands:
        return Step.NOTHING
    if record.thawing_at is None:
        return Step.THAW
    waited = (now - record.thawing_at).total_seconds()
    if seen.runners - record.settled and waited < SETTLE_S:
        return Step.WAIT
    return Step.RELEASE


def late(seen: Seen, now: datetime) -> frozenset[str]:
    """Instances that gave no receipt in time: live ones, and silent ones that nobody saw end."""
    frozen_at = seen.record.frozen_at
    if frozen_at is None:
        return frozenset()
    # Who starts in a freeze owes a receipt as well, and has as long for it.
    return frozenset(
        name
        for boot, name in (seen.silent | seen.alive).items()
        if boot not in seen.record.stopped
        and (now - max(frozen_at, seen.since.get(boot, frozen_at))).total_seconds() >= RECEIPT_S
    )
