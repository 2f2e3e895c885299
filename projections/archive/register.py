"""The archive's files in the projector's own tables: which are there, and that their rows are no longer in ``hot.log``.

Registering is one transaction: the row about the file, the rows that leave ``hot.log``, the views that read the file from now
on. It may be done again at any time. The sidecars on the disk are the truth; these rows can be made from them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from projections.archive.manifest import Segment
from projections.database import transaction

#: Makes the public views anew, after the files behind them have changed; runs inside the transaction.
Publish = Callable[[duckdb.DuckDBPyConnection], None]
_FIELDS = "stream, created, first_seq, last_seq, rows, absent, first_at, last_at, day, sha256, size, log"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A registered file."""

    segment: Segment
    copied_to: str = ""
    copied_at: datetime | None = None
    problem: str = ""


def entries(connection: duckdb.DuckDBPyConnection, stream: str = "", created: str = "") -> list[Entry]:
    """The registered files, by stream and sequence; of one stream or one life of it, if named."""
    where = " AND ".join(f"{column} = ?" for column, value in (("stream", stream), ("created", created)) if value)
    rows = connection.execute(
        f"SELECT {_FIELDS}, copied_to, problem FROM archive_segments {'WHERE ' + where if where else ''} "  # noqa: S608 (our own names)
        "ORDER BY stream, created, first_seq",
        [value for value in (stream, created) if value],
    ).fetchall()
    return [_entry(row) for row in rows]


def keys(connection: duckdb.DuckDBPyConnection) -> set[str]:
    """Names of all registered files."""
    return {key for (key,) in connection.execute("SELECT key FROM archive_segments").fetchall()}


def paths(connection: duckdb.DuckDBPyConnection, root: Path) -> list[str]:
    """The files that the views read, by their absolute paths: those that are sound."""
    rows = connection.execute(
        "SELECT key FROM archive_segments WHERE problem IS NULL ORDER BY stream, created, first_seq"
    ).fetchall()
    return [str(root.absolute() / key) for (key,) in rows]


def add(connection: duckdb.DuckDBPyConnection, segments: Iterable[Segment], publish: Publish) -> int:
    """Register files, in one transaction, but for those that are registered: how many were new."""
    with transaction(connection):
        known = keys(connection)
        new = [segment for segment in segments if segment.key not in known]
        for segment in new:
            _insert(connection, Entry(segment=segment))
            connection.execute(
                "DELETE FROM hot.log WHERE stream = ? AND seq BETWEEN ? AND ?",
                [segment.stream, segment.first, segment.last],
            )
        if new:
            publish(connection)
    return len(new)


def put(connection: duckdb.DuckDBPyConnection, segment: Segment, problem: str = "") -> None:
    """Register a file whose rows are not in ``hot.log``, inside the caller's transaction."""
    _replace(connection, Entry(segment=segment, problem=problem))


def copied(connection: duckdb.DuckDBPyConnection, segment: Segment, url: str, at: datetime) -> None:
    """A store has a proven copy."""
    with transaction(connection):
        _replace(connection, Entry(segment=segment, copied_to=url, copied_at=at))


def spoiled(connection: duckdb.DuckDBPyConnection, found: Iterable[tuple[Segment, str]], publish: Publish) -> None:
    """Files that are not what they were, or (without a problem) are sound again: the views leave them out, or read them again.

    All in one transaction: the views cannot be made while one file that they read is missing.
    """
    with transaction(connection):
        for segment, problem in found:
            _replace(connection, Entry(segment=segment, problem=problem))
        publish(connection)


def _replace(connection: duckdb.DuckDBPyConnection, entry: Entry) -> None:
    # Not an UPDATE: those are in the way of a checkpoint for as long as somebody reads.
    connection.execute("DELETE FROM archive_segments WHERE key = ?", [entry.segment.key])
    _insert(connection, entry)


def _insert(connection: duckdb.DuckDBPyConnection, entry: Entry) -> None:
    segment = entry.segment
    connection.execute(
        f"INSERT INTO archive_segments ({_FIELDS}, key, copied_to, copied_at, problem) VALUES ({', '.join('?' * 16)})",  # noqa: S608 (our own names)
        [
            segment.stream,
            segment.created,
            segment.first,
            segment.last,
            segment.rows,
            [{"first": first, "last": last} for first, last in segment.absent],
            segment.first_at.replace(tzinfo=None),
            segment.last_at.replace(tzinfo=None),
            segment.day,
            segment.sha256,
            segment.size,
            segment.log,
            segment.key,
            entry.copied_to or None,
            entry.copied_at.astimezone(UTC).replace(tzinfo=None) if entry.copied_at is not None else None,
            entry.problem or None,
        ],
    )


def _entry(row: tuple[Any, ...]) -> Entry:
    stream, created, first, last, rows, absent, first_at, last_at, day, sha256, size, log, copied_to, problem = row
    segment = Segment(
        stream=stream,
        created=created,
        first=first,
        last=last,
        rows=rows,
        absent=tuple((gap["first"], gap["last"]) for gap in absent),
        first_at=first_at.replace(tzinfo=UTC),
        last_at=last_at.replace(tzinfo=UTC),
        day=day,
        sha256=sha256,
        size=size,
        log=log,
    )
    return Entry(segment=segment, copied_to=copied_to or "", problem=problem or "")
