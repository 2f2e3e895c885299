"""How far the warden has folded the log, kept on disk, so that a restart does not read all of it again.

A cache and nothing more: a file that is missing, damaged, or of another log is passed over, and the log is folded from its
beginning. Monotonic seconds mean nothing to the next process, so due times are kept as wall time.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import structlog

from bus.invocation import Status
from bus.subjects import Ref
from services.warden.work import LastError, Open, OpenWork

log = structlog.get_logger()

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
    """A fold at a sequence of one particular stream."""

    shape: int
    #: When the stream was created: a stream that was made anew is another log.
    created: str
    position: int
    items: list[_Item]
    counts: list[tuple[str, str, int]]
    last_errors: list[LastError]


def save(file: Path, work: OpenWork, created: str, *, now: datetime, monotonic: float) -> None:
    """Write the fold, in one piece: a reader sees the old file or the new one."""
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
    part = file.with_suffix(".part")
    part.write_bytes(msgspec.msgpack.encode(kept))
    part.replace(file)


def load(file: Path, created: str, first_seq: int, last_seq: int, *, now: datetime, monotonic: float) -> OpenWork:
    """The fold to go on from: the file's, if it is of this log, else an empty one."""
    work = OpenWork()
    try:
        kept = msgspec.msgpack.decode(file.read_bytes(), type=Checkpoint)
    except FileNotFoundError:
        return work
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        log.warning(
            "checkpoint_unreadable", file=str(file), error=str(exc), action="folding the log from its beginning"
        )
        return work
    if kept.shape != _SHAPE or kept.created != created or kept.position > last_seq:
        log.warning("checkpoint_of_another_log", file=str(file), action="folding the log from its beginning")
        return work
    if kept.position + 1 < first_seq:
        # Of what it holds as unfinished the end may have been trimmed unseen; what is unfinished is all in the log.
        log.warning("checkpoint_before_the_log", file=str(file), position=kept.position, first=first_seq)
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
