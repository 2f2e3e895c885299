"""Tables from history: the archive's files through the same fold as live events, in SQL; the streams go on from there.

``events`` over the archive needs no work at all, the view reads the files. The other tables are folded file by file, each in
one transaction that also registers the file, so a rebuild that is cut off goes on where it was. The positions come last: only
with them do readers follow the streams.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path

import duckdb
import structlog

from bus import errors, wire
from bus.connection import Connection
from projections import fold, history, positions
from projections.archive import manifest, register, segment
from projections.archive.manifest import Segment
from projections.database import Database, Settings, transaction
from projections.log import LOG, STREAMS
from projections.positions import Position
from projections.primary import Files, Primary
from projections.quoting import quoted

log = structlog.get_logger()

#: The one stream whose bodies no fold reads: all that tables need of it is in columns.
_TYPED = "INVOCATIONS"


class Archived:
    """An archive as the projector restores tables from it, and rows that go cold meanwhile."""

    def __init__(
        self,
        home: Path,
        connection: Connection,
        cold: history.Cold,
        repair: Callable[[Segment], Awaitable[object]] | None = None,
    ) -> None:
        """Make it; `repair` is asked to make a damaged file again before it is given up on."""
        self._home = home
        self._connection = connection
        self._cold = cold
        self._repair = repair

    async def restore(self, database: Database) -> None:
        """Fill new tables with all that is archived of the present streams, and set their positions.

        Raises:
            BusError: the server does not answer.
            PrimaryError: see :mod:`projections.faults`.
        """
        eras = await eras_of(self._connection)
        for one in await database.run(lambda con: _left(con, self._home, eras)):
            fault = await asyncio.to_thread(segment.check, self._home / "archive", one)
            if fault is not None and self._repair is not None:
                await self._repair(one)
        # Read anew: what was repaired may have another checksum.
        left = await database.run(lambda con: _left(con, self._home, eras))
        if left:
            # Nothing is read from the streams meanwhile: no core has to be left to the readers.
            await database.reopen(os.cpu_count())
        for one in left:
            await database.run(partial(restore_one, home=self._home, one=one))
            if await database.run(self._cold.move):
                # Not after each file: what a checkpoint has compressed would leave the tables soon after.
                await database.checkpoint()
        await database.run(partial(finish, home=self._home, eras=eras))
        if left:
            await database.reopen()

    async def tend(self, database: Database) -> None:
        """See :meth:`projections.history.Cold.tend`."""
        await self._cold.tend(database)


async def eras_of(connection: Connection) -> dict[str, str]:
    """When each stream that there is was made.

    Raises:
        BusError: the server does not answer.
    """
    found: dict[str, str] = {}
    for stream in STREAMS:
        try:
            found[stream] = str((await connection.api(f"STREAM.INFO.{stream}"))["created"])
        except errors.ServerError as exc:
            if exc.code != wire.Code.STREAM_NOT_FOUND:
                raise
    return found


def restore(
    connection: duckdb.DuckDBPyConnection,
    home: Path,
    eras: Mapping[str, str],
    *,
    cold: history.Cold | None = None,
    told: Callable[[Segment], None] = lambda _one: None,
) -> int:
    """All of it, on one connection: rows folded. What was folded before is not again."""
    rows = 0
    for one in _left(connection, home, eras):
        restore_one(connection, home, one)
        if cold is not None:
            cold.move(connection)
        told(one)
        rows += one.rows
    finish(connection, home, eras)
    return rows


async def offline(files: Files, home: Path, why: str, now: Callable[[], datetime]) -> int:
    """New tables from the archive alone, while no projector runs: events folded. The next projector goes on from there.

    They lie beside the present ones, which nobody can open meanwhile, until a projector has seen that they have caught up.

    Args:
        files: the primary's.
        home: where archive and cold files are.
        why: for the event that the projector writes then.
        now: the clock.

    Raises:
        PrimaryLocked: a projector runs.
        NoRoom: the disk is full.
    """
    found = manifest.scan(home / "archive").segments if (home / "archive").is_dir() else []
    # Of a stream that was made anew the last life counts; should it be another by now, the projector begins anew.
    eras = {one.stream: one.created for one in sorted(found, key=lambda one: one.last_at)}
    primary = Primary(files, Settings(), now)
    try:
        await primary.open()
        await primary.renew(why)
        await primary.database.reopen(os.cpu_count())
        return await primary.database.run(partial(restore, home=home, eras=eras, cold=history.Cold(home)))
    finally:
        await primary.close()


def _left(connection: duckdb.DuckDBPyConnection, home: Path, eras: Mapping[str, str]) -> list[Segment]:
    """The files of the present streams that are not in the tables yet, in order, as far as they follow each other."""
    root = home / "archive"
    known = register.keys(connection)
    found = manifest.scan(root).segments if root.is_dir() else []
    wanted: list[Segment] = []
    for stream, era in eras.items():
        expected = 1
        for one in (each for each in found if (each.stream, each.created) == (stream, era)):
            if one.first != expected:
                log.error("archive_gap", stream=stream, first=expected, last=one.first - 1, action="restoring up to it")
                break
            expected = one.last + 1
            if one.key not in known:
                wanted.append(one)
    return wanted


def restore_one(connection: duckdb.DuckDBPyConnection, home: Path, one: Segment) -> None:
    """Fold one file and register it, in one transaction. A damaged one is registered with its problem, and folded by nobody."""
    root = home / "archive"
    fault = segment.check(root, one)
    problem = fault.sentence if fault is not None else ""
    if fault is not None:
        log.error("archive_damaged", file=one.key, problem=problem)
    with transaction(connection):
        if not problem:
            with batch_of(connection, root / one.key, one.stream):
                fold.apply(connection)
        register.put(connection, one, problem)
    log.info("segment_restored", segment=str(one), rows=one.rows)


@contextmanager
def batch_of(connection: duckdb.DuckDBPyConnection, file: Path, stream: str, where: str = "true") -> Iterator[None]:
    """The rows of a file for which a condition holds as the relation ``batch``."""
    body = "NULL::BLOB AS raw" if stream == _TYPED else "raw"
    names = ", ".join(body if column == "raw" else f'"{column}"' for column in LOG.names)
    # Not a table: that would take the memory of all columns, and each statement of the fold reads a few of them. As quick.
    connection.execute(
        f"CREATE OR REPLACE TEMP VIEW batch AS SELECT {names} "  # noqa: S608 (our own names)
        f"FROM read_parquet({quoted(file)}, hive_partitioning = false) WHERE {where}"
    )
    try:
        yield
    finally:
        connection.execute("DROP VIEW IF EXISTS temp.batch")


def finish(connection: duckdb.DuckDBPyConnection, home: Path, eras: Mapping[str, str]) -> None:
    """Set the positions to where the files end, and make the views over them."""
    with transaction(connection):
        positions.write(connection, dict(_ends(connection, home, eras)))
        history.publish(connection, home)


def _ends(connection: duckdb.DuckDBPyConnection, home: Path, eras: Mapping[str, str]) -> Iterable[tuple[str, Position]]:
    for stream, era in eras.items():
        entries = register.entries(connection, stream, era)
        if not entries:
            continue
        last = entries[-1]
        stored_us = int(last.segment.last_at.timestamp() * 1_000_000)
        if not last.problem:
            file = quoted(home / "archive" / last.segment.key)
            ((stored_us,),) = connection.execute(
                f"SELECT epoch_us(arg_max(stored_at, seq)) FROM read_parquet({file}, hive_partitioning = false)"  # noqa: S608
            ).fetchall()
        yield stream, Position(last.segment.last, stored_us, era)
