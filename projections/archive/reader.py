"""Reading records back from the archive: what the stream does not hold any more, as if it did.

Everything here blocks. Files are read a few thousand rows at a time; by id, only the parts of files that can hold it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bus import errors, store
from bus.store import INVOCATIONS, Recorded
from bus.subjects import Ref, parse_event
from projections.archive import manifest
from projections.archive.manifest import Segment
from projections.quoting import quoted

#: Rows in memory at a time.
_ROWS = 5_000
_COLUMNS = ["seq", "subject", "stored_at", "raw", "event"]


class Archived(msgspec.Struct, frozen=True, kw_only=True):
    """The files that hold a part of a stream."""

    root: Path
    segments: tuple[Segment, ...]
    #: Why some of what was asked for is in none of them; empty for nothing.
    problem: str = ""


def segments(root: Path, stream: str, created: str) -> list[Segment]:
    """The files of one life of a stream, in order."""
    found = manifest.scan(root).segments if root.is_dir() else []
    return [one for one in found if (one.stream, one.created) == (stream, created)]


def before(root: Path, stream: str, created: str, first: int, since: datetime) -> Archived:
    """The files with what a stream held before its present first sequence, since a moment."""
    found = segments(root, stream, created)
    reached = manifest.reach(found)
    problem = ""
    if reached < first - 1:
        problem = f"expected files in {root} to cover {stream} up to {first - 1:,}, where the stream begins, got: up to {reached:,}"
    wanted = tuple(one for one in found if one.last_at >= since and one.first < first)
    gone = [one for one in wanted if not (root / one.key).exists()]
    if gone:
        problem = (
            f"expected {root / gone[0].key}, got: no such file; `systems archive verify --repair` may bring it back"
        )
    return Archived(root=root, segments=tuple(one for one in wanted if one not in gone), problem=problem)


def batches(
    archived: Archived, *, first: int, since: datetime, events: Collection[str] = ()
) -> Iterator[list[Recorded]]:
    """The records of files before a sequence and since a moment, in order; only some events, if they are named.

    Raises:
        Unreadable: a file is damaged.
    """
    naive = pa.scalar(since.astimezone(UTC).replace(tzinfo=None), pa.timestamp("us"))
    for segment in archived.segments:
        try:
            for part in pq.ParquetFile(archived.root / segment.key).iter_batches(_ROWS, columns=_COLUMNS):
                wanted = pc.greater_equal(part["stored_at"], naive)
                wanted = pc.and_(wanted, pc.less(part["seq"], pa.scalar(first, pa.uint64())))
                if events:
                    chosen = pc.is_in(part["event"], value_set=pa.array(sorted(events)))
                    wanted = pc.and_(wanted, chosen)
                rows = part.filter(wanted)
                columns = (rows["seq"], rows["subject"], rows["stored_at"], rows["raw"])
                yield [_record(*row) for row in zip(*(column.to_pylist() for column in columns), strict=True)]
        except (OSError, pa.ArrowException) as exc:
            raise Unreadable(archived.root / segment.key, str(exc)) from exc


class Unreadable(errors.BusError):
    """A file of the archive cannot be read."""

    def __init__(self, file: Path, why: str) -> None:
        self.file = file
        super().__init__(
            f"expected {file} to be a file of the archive, got: {why}; `systems archive verify --repair` may bring it back"
        )


class Lookup:
    """Invocations by id, in the archive of one stream."""

    def __init__(self, root: Path, created: str) -> None:
        self._root = root
        self._segments = [one for one in segments(root, INVOCATIONS, created) if (root / one.key).exists()]

    @property
    def empty(self) -> bool:
        """There is nothing to look in."""
        return not self._segments

    def find(self, id_: str) -> Ref | None:
        """Which project and role an invocation id belongs to."""
        rows = self._query("SELECT subject", "key = ?", [id_], "LIMIT 1")
        return parse_event(str(rows[0][0]))[0] if rows else None

    def history(self, ref: Ref, *, before: int) -> list[Recorded]:
        """An invocation's records before a sequence, in order; of rubbish on its subjects as well."""
        what, where = "SELECT seq, subject, stored_at, raw", "starts_with(subject, ?) AND seq < ?"
        rows = self._query(what, where, [f"{ref.prefix}.", before], "ORDER BY seq")
        return [_record(*row) for row in rows]

    def members(self, root: str, *, before: int) -> list[Recorded]:
        """Requests of a run tree before a sequence, in order."""
        what = "SELECT seq, subject, stored_at, raw"
        where = "event IN ('requested', 'scheduled') AND root = ? AND seq < ?"
        return [_record(*row) for row in self._query(what, where, [root, before], "ORDER BY seq")]

    def _query(self, what: str, where: str, values: list[object], tail: str) -> list[tuple[Any, ...]]:
        if not self._segments:
            return []
        files = ", ".join(quoted(self._root / one.key) for one in self._segments)
        with duckdb.connect(config={"threads": 2}) as connection:
            try:
                return connection.execute(
                    f"{what} FROM read_parquet([{files}], hive_partitioning = false) WHERE {where} {tail}", values
                ).fetchall()
            except duckdb.Error as exc:
                raise Unreadable(self._root, str(exc).split("\n", 1)[0]) from exc


def _record(seq: int, subject: str, stored_at: datetime, raw: bytes) -> Recorded:
    return store.read(seq, subject, stored_at.replace(tzinfo=UTC), raw)
