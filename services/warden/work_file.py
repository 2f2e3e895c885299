"""The sweeper's checkpoint: unfinished work as it is kept on disk.

Monotonic seconds mean nothing to the next process, so due times are kept as wall time.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from bus.invocation import Status
from bus.subjects import Ref
from services.warden import checkpoint
from services.warden.work import LastError, Open, OpenWork

#: Version of the file's shape; another one is passed over.
_SHAPE = 1


class _Item(msgspec.Struct, frozen=True, array_like=True):
    ref: Ref
    status: Status
    requested_seq: int
    since: datetime
    holder: str
    runner: str
    delivery: int
    reply: str
    due: datetime | None


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """The work at a sequence of one particular stream."""

    shape: int
    created: str
    position: int
    items: list[_Item]
    counts: list[tuple[str, str, int]]
    last_errors: list[LastError]


def save(file: Path, work: OpenWork, created: str, *, now: datetime, monotonic: float) -> None:
    """Write the work that is folded so far."""
    items = [
        _Item(
            item.ref,
            item.status,
            item.requested_seq,
            item.since,
            item.holder,
            item.runner,
            item.delivery,
            item.reply,
            now + timedelta(seconds=item.due_at - monotonic) if item.due_at else None,
        )
        for item in work.open.values()
    ]
    kept = Checkpoint(
        shape=_SHAPE,
        created=created,
        position=work.position,
        items=items,
        counts=[(role, name, count) for (role, name), count in work.counts.items()],
        last_errors=list(work.last_errors),
    )
    checkpoint.save(file, kept)


def load(file: Path, created: str, first_seq: int, last_seq: int, *, now: datetime, monotonic: float) -> OpenWork:
    """The work to go on from: the file's, if it is of this log, else none."""
    work = OpenWork()
    kept = checkpoint.load(file, Checkpoint, shape=_SHAPE, created=created, first=first_seq, last=last_seq)
    if kept is None:
        return work
    work.position = kept.position
    for item in kept.items:
        due_at = monotonic + (item.due - now).total_seconds() if item.due is not None else 0.0
        work.add(
            Open(
                item.ref,
                item.status,
                item.requested_seq,
                item.since,
                item.holder,
                item.runner,
                item.delivery,
                item.reply,
                due_at,
            )
        )
    work.counts.update({(role, name): count for role, name, count in kept.counts})
    work.last_errors.extend(kept.last_errors)
    return work
