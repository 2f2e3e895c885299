"""One file for everybody out of the published copies of several projectors: :mod:`projections.partition`.

Each table is the union of theirs; the views over them are the same statements as everywhere. How far the whole is, the slowest part
says. Takes half a second of a processor, 2.5 s for each million invocations and claims and 6 s for each million rows of the log, and
reads nothing but the copies, so it may run anywhere at any pace.

Which part a copy is, it says itself: in ``snapshot.host``, the seat of the projector that published it. So files may be called
anything, and are still found out when one is missing, is there twice, is of another version, or was made from other streams.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import msgspec

from bus import errors
from projections import fold
from projections.database import POSITIONS, STORAGE_VERSION, VERSION, remove, transaction, wal
from projections.partition import Partition, named
from projections.quoting import quoted

#: Tables that are no plain union -> what is made of it.
_MADE_OF = {
    # A schedule's requests are told by its project's events, its missed times by CONTROL's.
    "main.schedules": """
        SELECT
            project, role, name, sum(requests)::BIGINT AS requests, max(last_requested_at) AS last_requested_at, max(last_due) AS last_due,
            max(last_id) AS last_id, max(last_seq) AS last_seq, sum(missed)::BIGINT AS missed, max(last_missed_at) AS last_missed_at,
            max(last_missed_due) AS last_missed_due, max(last_missed_reason) AS last_missed_reason, max(last_missed_seq) AS last_missed_seq
        FROM ({}) GROUP BY project, role, name
    """,
    "hot.positions": "FROM ({}) QUALIFY row_number() OVER (PARTITION BY stream ORDER BY seq) = 1",
    "main.projection_lag": "FROM ({}) QUALIFY row_number() OVER (PARTITION BY stream ORDER BY seq) = 1",
    "main.snapshot": "FROM ({}) ORDER BY published_at LIMIT 1",
    "hot.made": "FROM ({}) ORDER BY made_at DESC LIMIT 1",
}
#: Tables that name files beside those of one projector.
_FILES = ("archive_segments", "cold_files")
_EVENTS = "COMMENT ON VIEW events IS 'Every event that the streams held when the parts were published; older ones are in the archive of the fleet'"


class Unmergeable(errors.BusError):
    """Files that are no parts of one whole."""


class Copy(msgspec.Struct, frozen=True, kw_only=True):
    """What a published copy says of itself."""

    file: Path
    partition: Partition
    version: str
    published_at: datetime
    #: Stream -> when it was made.
    eras: dict[str, str]


def merge(sources: Sequence[Path], target: Path) -> list[Copy]:
    """Replace `target` by the union of the published files of all partitions: those.

    Raises:
        Unmergeable: they are not the parts of one whole, one names files of its own, or is not there; or another merge is at work
            on the same target.
    """
    draft = target.with_name(f".{target.name}.draft")
    spill = target.with_name(f".{target.name}.spill")
    with _alone(target):
        remove(draft)  # what a merge that was killed has left
        with duckdb.connect(config={"temp_directory": str(spill)}) as connection:
            try:
                copies = [_attach(connection, number, source) for number, source in enumerate(sources)]
                _check_whole(copies)
                connection.execute(f"ATTACH {quoted(draft)} AS merged (STORAGE_VERSION '{STORAGE_VERSION}')")
                draft.chmod(0o600)
                connection.execute("USE merged")
                with transaction(connection):
                    fold.create(connection)
                    connection.execute(POSITIONS)
                    connection.execute(_EVENTS)
                    _fill(connection, [_name(number) for number in range(len(copies))])
                connection.execute("CHECKPOINT merged")
            except duckdb.Error as exc:
                raise Unmergeable(f"expected published tables in {', '.join(map(str, sources))}, got: {exc}") from exc
            finally:
                connection.execute("USE memory")
        draft.replace(target)
        # Of somebody who opened the former file to write, and left: nobody could open this one with it.
        wal(target).unlink(missing_ok=True)
        shutil.rmtree(spill, ignore_errors=True)
    return copies


def _name(number: int) -> str:
    """What a source is attached as."""
    return f"part{number}"


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Hold the target for one merge; the kernel lets go of it with the process."""
    try:
        descriptor = os.open(target.with_name(f".{target.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise Unmergeable(f"expected a folder that can be written at {target.parent}, got: {exc.strerror}") from exc
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as exc:
        raise Unmergeable(
            f"expected to be the only merge into {target}, got: another one is at work; end it, or name another file"
        ) from exc
    finally:
        os.close(descriptor)


def _attach(connection: duckdb.DuckDBPyConnection, number: int, source: Path) -> Copy:
    name = _name(number)
    connection.execute(f"ATTACH {quoted(source.absolute())} AS {name} (READ_ONLY)")
    copy = _account(connection, source, name)
    for table in _FILES:
        if connection.execute(f"SELECT count(*) FROM {name}.{table}").fetchall() != [(0,)]:  # noqa: S608 (our own names)
            raise Unmergeable(
                f"expected {source} to hold all of its rows itself, got: some are in files of {table}; partitions keep neither archive nor cold files"
            )
    return copy


def _account(connection: duckdb.DuckDBPyConnection, source: Path, name: str) -> Copy:
    """What a copy says of itself."""
    said = connection.execute(f"SELECT host, version, published_at FROM {name}.snapshot").fetchall()  # noqa: S608 (our own names)
    host, version, published_at = said[0] if said else ("nobody", "", datetime.min)  # noqa: DTZ901 (as tables have it)
    partition = named(host)
    if partition is None:
        raise Unmergeable(
            f"expected {source} to be the published copy of a part, got: one of {host}; `systems part run` makes parts"
        )
    eras = dict(connection.execute(f"SELECT stream, era FROM {name}.hot.positions").fetchall())  # noqa: S608
    return Copy(
        file=source, partition=partition, version=version, published_at=published_at.replace(tzinfo=UTC), eras=eras
    )


def _check_whole(copies: Sequence[Copy]) -> None:
    """Pass if the copies are the parts of one whole, each once.

    Raises:
        Unmergeable: they are not; says which is missing, doubled or different.
    """
    if not copies:
        raise Unmergeable("expected the published files of all parts, got: none")
    first = copies[0]
    for copy in copies:
        if copy.partition.of != first.partition.of:
            raise Unmergeable(
                f"expected parts of one division, got: {first.partition} in {first.file} and {copy.partition} in {copy.file}"
            )
        if copy.version != VERSION:
            raise Unmergeable(
                f"expected tables of version {VERSION} in {copy.file}, got: {copy.version}; "
                "run the part and the merge with the same release, and wait until it has made its tables anew"
            )
        other = next((s for s, era in copy.eras.items() if first.eras.get(s, era) != era), "")
        if other:
            raise Unmergeable(
                f"expected parts of the same streams, got: {other} of {first.eras[other]} in {first.file} and of "
                f"{copy.eras[other]} in {copy.file}; leave out what is of another server, or of a stream that is gone"
            )
    by_number: dict[int, Path] = {}
    for copy in copies:
        twin = by_number.setdefault(copy.partition.number, copy.file)
        if twin is not copy.file:
            raise Unmergeable(f"expected each part once, got: {copy.partition} in {twin} and in {copy.file}")
    missing = [str(Partition(n, first.partition.of)) for n in range(first.partition.of) if n not in by_number]
    if missing:
        raise Unmergeable(
            f"expected all parts of {first.partition.of}, got: none of {', '.join(missing)}; run it with "
            f"`systems part run {missing[0]} --into DIR`, and name its file"
        )


def _fill(connection: duckdb.DuckDBPyConnection, parts: Sequence[str]) -> None:
    tables = connection.execute(
        "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = 'merged' ORDER BY ALL"
    ).fetchall()
    for schema, table in tables:
        name = f"{schema}.{table}"
        union = " UNION ALL BY NAME ".join(f"FROM {part}.{name}" for part in parts)
        made = _MADE_OF.get(name, "FROM ({})").format(union)
        connection.execute(f"INSERT INTO merged.{name} BY NAME {made}")
