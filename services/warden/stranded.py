"""Work that nobody will ever hand out again, found by looking: the breaker that needs no advisory and no runner.

A delivery can be lost between the server and a runner that dies before its claim; a delayed NAK is a plain message and can
be lost too; a tick may never come. The sure sign is work that could be handed out, while runners wait for work and get
none. Putting such work back is safe even when the sign deceives: the fence lets only one side win, and an older delivery
is dropped.
"""

from __future__ import annotations

import msgspec

from bus.events.invocation import ReleaseReason
from bus.invocation import Command, FallDue, Release, Status
from services.warden.work import Open

#: Seconds that a delivery may be on its way before it counts as lost.
LOST_AFTER_S = 3.0


class Consumer(msgspec.Struct, frozen=True, kw_only=True):
    """What the server says of a role's consumer."""

    #: Highest stream sequence handed out.
    delivered_seq: int
    #: Pull requests that wait for work.
    waiting: int
    #: Deliveries without an acknowledgement.
    ack_pending: int
    max_ack_pending: int
    #: Matching messages never handed out.
    pending: int
    paused: bool = False

    @property
    def hungry(self) -> bool:
        """Runners wait, and the server may hand out: what is to be delivered again has been.

        That holds also when `ack_pending` is at its limit, which keeps back only what was never delivered.
        """
        return self.waiting > 0 and not self.paused


def read(info: dict[str, object]) -> Consumer:
    """A ``CONSUMER.INFO`` answer."""
    found = msgspec.convert(info, _Info)
    return Consumer(
        delivered_seq=found.delivered.stream_seq,
        waiting=found.num_waiting,
        ack_pending=found.num_ack_pending,
        max_ack_pending=found.config.max_ack_pending,
        pending=found.num_pending,
        paused=found.paused,
    )


def handed_out(item: Open, consumer: Consumer | None) -> bool:
    """The server has handed it out, and nobody has claimed it yet: it is on its way, or lost."""
    return item.status is Status.QUEUED and consumer is not None and 0 < item.requested_seq <= consumer.delivered_seq


def decide(item: Open, consumer: Consumer | None, now: float) -> Command | None:
    """The command that brings an item back to work; None while it may still come by itself."""
    if item.status is Status.SCHEDULED:
        return FallDue() if now > item.due_at + LOST_AFTER_S else None
    if consumer is None or not consumer.hungry:
        return None
    if item.status is Status.QUEUED and item.handed_at and now > item.handed_at + LOST_AFTER_S:
        return Release(reason=ReleaseReason.LOST_DELIVERY)
    if item.status is Status.WAITING and item.due_at and now > item.due_at + LOST_AFTER_S:
        return Release(reason=ReleaseReason.LOST_RETRY)
    return None


class _Delivered(msgspec.Struct):
    stream_seq: int = 0


class _Config(msgspec.Struct):
    max_ack_pending: int = 1000


class _Info(msgspec.Struct):
    delivered: _Delivered
    config: _Config
    num_waiting: int = 0
    num_ack_pending: int = 0
    num_pending: int = 0
    paused: bool = False
