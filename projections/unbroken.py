"""A partition whose reader misses no message of INVOCATIONS unseen: the one stream that is trimmed.

The fleet's own projector is the one that archives and trims, so nothing leaves the stream before it is in its tables. A part that
was away for longer than the stream keeps messages finds it begun later: the server hands out what is left, and says nothing of
what is not. So the sequences are looked at, before anything of a batch is folded.
"""

from __future__ import annotations

import msgspec

from bus.store import INVOCATIONS
from bus.wire import Delivery
from projections.partition import Partition


class Skipped(Exception):
    """The reader did not get the messages from `first` to `last`; with `last` before `first`, it was sent back."""

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last
        super().__init__(f"expected message {first:,} of {INVOCATIONS}, got: {last + 1:,}")


class Reached(msgspec.Struct):
    """How far the stream was read."""

    #: Sequence of the last message that was handed out, or is in the tables.
    seq: int = 0
    #: Sequences that the stream does not hold though it begins before them: deleted by a person, one by one.
    absent: set[tuple[int, int]] = msgspec.field(default_factory=set)


class Unbroken(Partition, frozen=True, kw_only=True):
    """The same partition, and how far it was read."""

    reached: Reached = msgspec.field(default_factory=Reached)

    def own(self, stream: str, deliveries: list[Delivery]) -> list[Delivery]:
        """Those that are folded here.

        Raises:
            Skipped: a message is missing before one of them; nothing of them was taken.
        """
        if stream == INVOCATIONS:
            self._follow(deliveries)
        return super().own(stream, deliveries)

    def _follow(self, deliveries: list[Delivery]) -> None:
        seq, last = self.reached.seq, deliveries[-1].seq
        if deliveries[0].seq != seq + 1 or last - seq != len(deliveries):
            for delivery in deliveries:
                gap = (seq + 1, delivery.seq - 1)
                if delivery.seq != seq + 1 and gap not in self.reached.absent:
                    raise Skipped(*gap)
                seq = delivery.seq
        self.reached.seq = last


def unbroken(partition: Partition) -> Unbroken:
    """A partition that is to be followed."""
    return Unbroken(partition.number, partition.of)
