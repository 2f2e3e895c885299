"""What can go wrong with the primary file, told apart from DuckDB's text once and here.

DuckDB has one class for a full disk, a lock and a damaged block, so its sentences are all there is to go by; the tests
make each of them on real files.
"""

from __future__ import annotations

import re
from pathlib import Path

import duckdb

from bus import errors
from projections.partition import named

#: The holder of a lock, as DuckDB names it.
_HOLDER = re.compile(r"\(PID (\d+)\)")
_NO_ROOM = ("No space left on device", "File too large", "Disk quota exceeded")
_DAMAGED = (
    "Corrupt",
    "not a valid DuckDB database file",
    "Could not read enough bytes",
    "replaying WAL",
    "while deserializing",
    "deserialize",
)
_BUSY = "Cannot CHECKPOINT"
#: After some errors DuckDB refuses everything until the file is attached again.
_INVALIDATED = "has been invalidated"


class PrimaryError(errors.BusError):
    """The primary file cannot be used right now."""


class PrimaryLocked(PrimaryError):
    """Another process has the file open."""


class PrimaryDamaged(PrimaryError):
    """The file is no database of ours, or no longer: it is set aside and made again."""


class NoRoom(PrimaryError):
    """The disk takes no more: what no checkpoint has put into the file is read again when there is room."""


class NoRoomForCopy(PrimaryError):
    """The disk takes no copy of the primary; the primary itself is as it was."""


class PrimaryInvalidated(PrimaryError):
    """The file must be opened again before it can be used."""


class PrimaryUnready(PrimaryError):
    """The tables are being made, and there are no former ones: what they say so far is not what happened."""


class Busy(PrimaryError):
    """A query still reads what a checkpoint would move: tried again in a moment."""


def _published(file: Path) -> Path:
    """The copy for everybody of a primary: a part's is called like the folder of its primary."""
    name = file.parent.name
    return file.parents[1] / f"{name if named(name) else 'fleet'}.duckdb"


def translate(exc: duckdb.Error, file: Path) -> PrimaryError | None:
    """A driver error as one of ours; None for those that are about a statement and not about the file."""
    text = str(exc)
    if "Could not set lock" in text:
        holder = _HOLDER.search(text)
        by = f"process {holder[1]} has it open" if holder else "another process has it open"
        return PrimaryLocked(
            f"expected {file} to be the projector's alone, got: {by}; "
            f"end it, and open {_published(file)} instead: that copy is for everybody"
        )
    if any(sign in text for sign in _NO_ROOM):
        return NoRoom(
            f"expected room on the disk for {file}, got: none ({text}); free some, the projector goes on by itself"
        )
    if any(sign in text for sign in _DAMAGED) or isinstance(
        exc, duckdb.InternalException | duckdb.SerializationException
    ):
        return PrimaryDamaged(f"expected {file} to be a whole database, got: {text}")
    if _INVALIDATED in text or isinstance(exc, duckdb.FatalException | duckdb.ConnectionException):
        return PrimaryInvalidated(f"expected {file} to be usable, got: {text}; it is opened again")
    if _BUSY in text:
        return Busy(f"expected no query in the way of a checkpoint of {file}, got: {text}")
    return None
