"""How far a fold of the log has come, kept on disk, so that a restart does not read all of it again.

A cache and nothing more: a file that is missing, damaged, of another shape or of another log is passed over, and the log is
folded from its beginning; one that the disk does not take is told, and the next one comes. Everything here blocks, for the time
of one small file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, TypeVar

import msgspec
import structlog

log = structlog.get_logger()

_ANEW = "folding the log from its beginning"


class Checkpoint(Protocol):
    """What every checkpoint says beside the fold: a Struct of its own for each kind."""

    @property
    def shape(self) -> int:
        """Version of the file's shape; another one is passed over."""
        ...

    @property
    def created(self) -> str:
        """When the stream was created: a stream that was made anew is another log."""
        ...

    @property
    def position(self) -> int:
        """Sequence up to which it was folded."""
        ...


C = TypeVar("C", bound=Checkpoint)


def load(file: Path, kind: type[C], *, shape: int, created: str, first: int, last: int) -> C | None:
    """The checkpoint to go on from; None where there is none of this log.

    Args:
        file: where it is kept.
        kind: its Struct.
        shape: the version of that which counts.
        created: when the stream was created.
        first: the first sequence that is still in it.
        last: its last sequence.
    """
    try:
        kept = msgspec.msgpack.decode(file.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        log.warning("checkpoint_unreadable", file=str(file), error=str(exc), action=_ANEW)
        return None
    if kept.shape != shape or kept.created != created or kept.position > last:
        log.warning("checkpoint_of_another_log", file=str(file), action=_ANEW)
        return None
    if kept.position + 1 < first:
        # Of what it holds as unfinished the end may have been trimmed unseen; what is unfinished is all in the log.
        log.warning("checkpoint_before_the_log", file=str(file), position=kept.position, first=first, action=_ANEW)
        return None
    return kept


def save(file: Path, checkpoint: Checkpoint) -> None:
    """Write it in one piece: a reader sees the old file or the new one."""
    part = file.with_suffix(".part")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(msgspec.msgpack.encode(checkpoint))
        part.replace(file)
    except OSError as exc:
        log.warning("checkpoint_unsaved", file=str(file), error=str(exc))
