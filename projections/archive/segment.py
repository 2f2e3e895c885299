"""One Parquet file of the archive: written once, read back, compared with what it was made of, and only then named.

The steps are such that a process killed between any two of them leaves either nothing, a leftover that the next start
removes, or the whole: draft, read back, name, sidecar. Everything here blocks, for as long as the rows take: about 2 s
for 250,000.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pyarrow.parquet as pq
import structlog

from bus.errors import BusError
from projections.archive import files, manifest
from projections.archive.manifest import Fault, Segment
from projections.log import LOG
from projections.quoting import quoted

log = structlog.get_logger()

#: Version of the columns that segments have.
LOG_VERSION = 1
#: Told the name of each step before it is taken; for logs, and for tests that end the process there.
Step = Callable[[str], None]
#: Rows of one group of a file, at most and at least, and the bytes of their bodies, about: so much is in memory at a time.
_GROUP_ROWS, _LEAST_ROWS, _GROUP_BYTES = 10_240, 100, 16 * 1024 * 1024
_COLUMNS = ", ".join(f'"{name}"' for name in LOG.names)
#: What a reading is compared by: rows, ends, and two sums over the hashes of all columns that do not depend on order.
_PRINT = (
    f"SELECT count(*), min(seq), max(seq), count(DISTINCT seq), bit_xor(hash({_COLUMNS})), sum(hash({_COLUMNS})), "
    "min(stored_at), max(stored_at), arg_min(stored_at, seq)"
)


class SegmentUnlike(BusError):
    """A file that was just written does not hold what it was written from: a disk or a memory that cannot be trusted."""


def source_of(relation: str, stream: str, first: int, last: int) -> str:
    """A relation's rows of a stream between two sequences, as what follows FROM."""
    return f"{relation} WHERE stream = {quoted(stream)} AND seq BETWEEN {first} AND {last}"


def write(
    connection: duckdb.DuckDBPyConnection,
    root: Path,
    *,
    stream: str,
    created: str,
    first: int,
    last: int,
    relation: str = "hot.log",
    step: Step = lambda _name: None,
) -> Segment:
    """Write a relation's rows of a stream, from sequence `first` to `last`, as a file of the archive below `root`.

    Args:
        connection: sees the relation; nothing in it is changed.
        root: the archive's folder.
        stream: whose messages.
        created: which life of the stream.
        first: where the file before it ended, plus 1; the row may come later.
        last: sequence of a row.
        relation: has the columns of the log.
        step: see :data:`Step`.

    Raises:
        SegmentUnlike: what was written is not what was read.
        OSError, duckdb.Error: the disk is full, or cannot be written; nothing of it counts.
    """
    source = source_of(relation, stream, first, last)
    wanted = _fingerprint(connection, source)
    found_at = _moment(wanted[8])
    draft_of = Segment(
        stream=stream,
        created=created,
        first=first,
        last=last,
        rows=wanted[0],
        absent=absences(connection, source, first),
        first_at=_moment(wanted[6]),
        last_at=_moment(wanted[7]),
        day=found_at.date(),
        sha256="",
        size=0,
        log=LOG_VERSION,
    )
    file = root / draft_of.key
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f"{file.name}.part")
    step("write")
    _write_rows(connection, relation, draft_of, draft)
    step("read_back")
    got = _fingerprint(connection, f"read_parquet({quoted(draft)}, hive_partitioning = false)")
    if got != wanted or wanted[0] != wanted[3] or wanted[2] != last:
        draft.unlink()
        raise SegmentUnlike(
            f"expected {draft} to hold {wanted[0]:,} messages of {stream} up to {last:,}, each once, and to read back as they "
            f"were written, got: {got[0]:,} up to {got[2]}; look at the disk and the memory of this machine"
        )
    segment = msgspec.structs.replace(draft_of, sha256=files.sha256(draft), size=draft.stat().st_size)
    step("name")
    files.settle(draft, file)
    step("sidecar")
    files.write(root / segment.sidecar, manifest.encode(segment))
    log.info("segment_written", segment=str(segment), rows=segment.rows, bytes=segment.size)
    return segment


def _write_rows(connection: duckdb.DuckDBPyConnection, relation: str, segment: Segment, draft: Path) -> None:
    """The rows in order, a group at a time: sorting all of them at once takes more memory than the tables may have."""
    source = source_of(relation, segment.stream, segment.first, segment.last)
    ((size,),) = connection.execute(f"SELECT coalesce(sum(octet_length(raw)), 0)::BIGINT FROM {source}").fetchall()  # noqa: S608
    width = max(_LEAST_ROWS, min(_GROUP_ROWS, _GROUP_BYTES * segment.rows // max(1, size)))
    with pq.ParquetWriter(draft, LOG, compression="zstd") as writer:
        for first in range(segment.first, segment.last + 1, width):
            part = source_of(relation, segment.stream, first, min(segment.last, first + width - 1))
            rows = connection.sql(f"SELECT {_COLUMNS} FROM {part} ORDER BY seq").to_arrow_table()  # noqa: S608
            if rows.num_rows:
                writer.write_table(rows.cast(LOG))


def check(root: Path, segment: Segment) -> Fault | None:
    """Whether a segment's file is there with the bytes that its sidecar names."""
    path = root / segment.key
    try:
        found = files.sha256(path)
    except FileNotFoundError:
        return _fault(segment, "missing", path, "none")
    except OSError as exc:
        return _fault(segment, "unreadable", path, exc.strerror or str(exc))
    if found != segment.sha256:
        return _fault(segment, "corrupt", path, f"SHA-256 {found[:12]}… instead of {segment.sha256[:12]}…")
    return None


def glance(root: Path, segment: Segment) -> Fault | None:
    """Whether a segment's file is there in its full size."""
    path = root / segment.key
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return _fault(segment, "missing", path, "none")
    except OSError as exc:
        return _fault(segment, "unreadable", path, exc.strerror or str(exc))
    return None if size == segment.size else _fault(segment, "corrupt", path, f"{size:,} bytes")


def _fault(segment: Segment, kind: str, path: Path, got: str) -> Fault:
    return Fault(
        kind=kind,
        stream=segment.stream,
        first=segment.first,
        last=segment.last,
        where=segment.key,
        sentence=f"expected {segment} in {path}, got: {got}; `systems archive verify --repair` brings it back from a copy "
        "or from the stream, if one of them still has it",
    )


def _fingerprint(connection: duckdb.DuckDBPyConnection, source: str) -> tuple[Any, ...]:
    rows = connection.execute(f"{_PRINT} FROM {source}").fetchall()
    found: tuple[Any, ...] = rows[0]
    return found


def absences(connection: duckdb.DuckDBPyConnection, source: str, first: int) -> tuple[tuple[int, int], ...]:
    """The ranges of sequences, from `first` on, that are missing before and between the rows of a source."""
    return tuple(
        connection.execute(
            f"SELECT before + 1, seq - 1 FROM (SELECT seq, lag(seq, 1, {first - 1}) OVER (ORDER BY seq) AS before FROM {source}) "  # noqa: S608
            "WHERE seq > before + 1 ORDER BY seq"
        ).fetchall()
    )


def _moment(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC)
