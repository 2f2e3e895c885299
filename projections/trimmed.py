"""What a part does about messages that the stream does not hold any more: :class:`projections.projector.History` of a part.

A part keeps no archive and reads no files in its views, because whoever has the merged file has none of its files. So its log is
what the streams still hold: rows of INVOCATIONS leave it when their messages have left the stream, which the fleet's archiver lets
happen only to what is archived. Its other tables are of everything, so what left the stream before the part could read it is folded
from the files of the fleet's archive, which must be at hand then.

Each file is folded in one transaction with the position that it leads to, and put into the primary file before the next one: a part
that is killed goes on where it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import duckdb
import structlog

from bus import errors
from bus.connection import Connection
from bus.store import INVOCATIONS
from projections import fold, positions, rebuild
from projections.archive import reader, segment
from projections.archive.manifest import Segment
from projections.database import Database, transaction
from projections.log import STREAMS
from projections.positions import Position
from projections.primary import Primary
from projections.quoting import quoted
from projections.unbroken import Skipped, Unbroken

log = structlog.get_logger()


class HistoryGone(errors.BusError):
    """What a part has not read has left the stream, and no file at hand holds it."""


class Trimmed:
    """The history of a part."""

    def __init__(self, connection: Connection, part: Unbroken, archive: Path | None) -> None:
        """Make it.

        Args:
            connection: to the server.
            part: whose rows are folded, and how far it has read.
            archive: the fleet's archive, or a copy of it; None where there is none at hand.
        """
        self._connection = connection
        self._part = part
        self._archive = archive
        #: When INVOCATIONS was made, and where it began when the log was last cut.
        self._era, self._begins = "", 0

    async def begin(self, primary: Primary) -> None:
        """Open the tables, and bring them to where the streams begin, if they are not that far.

        Raises:
            PrimaryError: see :mod:`projections.faults`; above all another process has them open.
            HistoryGone: see :meth:`restore`.
        """
        await primary.open()
        await self.restore(primary.database)

    async def restore(self, database: Database) -> None:
        """Fold what the streams do not hold any more and the tables do not have yet.

        Raises:
            HistoryGone: some of it is in no file that is at hand, or in a damaged one.
            BusError: the server does not answer.
        """
        for stream in STREAMS:
            if self._part.reads(stream):
                await self._fill(database, stream)
        era, _ = await self._life(INVOCATIONS)
        if era != self._era:
            # What was deleted from a stream that is gone may be there in the one that took its name.
            self._era, self._begins = era, 0
            self._part.reached.absent.clear()
        position = (await database.positions()).get(INVOCATIONS)
        self._part.reached.seq = position.seq if position is not None else 0

    async def tend(self, database: Database) -> None:
        """Drop rows of the log whose messages have left the stream."""
        _, first = await self._life(INVOCATIONS)
        if first == self._begins:
            return

        def work(connection: duckdb.DuckDBPyConnection) -> int:
            with transaction(connection):
                ((count,),) = connection.execute(
                    "DELETE FROM hot.log WHERE stream = ? AND seq < ?", [INVOCATIONS, first]
                ).fetchall()
            return int(count)

        dropped = await database.run(work)
        self._begins = first
        if dropped:
            log.info("log_trimmed_with_the_stream", rows=dropped, begins=first)

    async def meet(self, skipped: Skipped) -> None:
        """Find out about messages that the reader did not get: what the stream spans and does not hold was deleted by a person.

        All such gaps are noted at once: whoever deletes the messages of one project makes many.
        """
        info = await self._connection.api(f"STREAM.INFO.{INVOCATIONS}", {"deleted_details": True})
        gaps = set(ranges(info["state"].get("deleted") or ()))
        if (skipped.first, skipped.last) in gaps:
            log.warning("messages_deleted", stream=INVOCATIONS, first=skipped.first, last=skipped.last, gaps=len(gaps))
        self._part.reached.absent |= gaps

    async def _life(self, stream: str) -> tuple[str, int]:
        """When a stream was made, and its first sequence."""
        info = await self._connection.api(f"STREAM.INFO.{stream}")
        return str(info["created"]), int(info["state"]["first_seq"])

    async def _fill(self, database: Database, stream: str) -> None:
        while True:
            position = (await database.positions()).get(stream)
            era, first = await self._life(stream)
            if position is not None and position.era != era:
                return  # another history: the projector finds it, and begins anew
            at = position.seq if position is not None else 0
            if first <= at + 1 or not await self._fold(database, stream, era, at + 1, first - 1):
                return

    async def _fold(self, database: Database, stream: str, era: str, first: int, last: int) -> bool:
        """Fold files from one sequence to another; False if they do not reach it and need not."""
        root = self._archive
        found = await asyncio.to_thread(reader.segments, root, stream, era) if root is not None else []
        reached = first - 1
        for one in found:
            if root is None or one.last <= reached or one.first > reached + 1 or reached >= last:
                continue
            fault = await asyncio.to_thread(segment.check, root, one)
            if fault is not None:
                raise HistoryGone(f"{fault.sentence}; a part can repair nothing: `systems archive verify --repair` can")
            until = min(one.last, last)
            await database.run(partial(_fold_one, root, one, self._part, reached + 1, until))
            # What no checkpoint has put into the file is gone when it is opened again, and is in no stream.
            await database.checkpoint()
            log.info("segment_folded", segment=str(one), part=str(self._part))
            reached = until
        if reached < last and stream == INVOCATIONS:
            raise HistoryGone(
                f"expected message {reached + 1:,} of {stream}, got: the stream begins at {last + 1:,} and "
                + (f"{root} reaches up to {reached:,}" if root is not None else "no archive is at hand")
                + "; name the fleet's archive (HOME/archive, or a copy of it) with --archive, after `systems archive now` if need be"
            )
        # What expires in other streams may have done so before anybody archived it.
        return reached >= last


def _fold_one(
    root: Path, one: Segment, part: Unbroken, first: int, last: int, connection: duckdb.DuckDBPyConnection
) -> None:
    file, span = root.absolute() / one.key, f"seq BETWEEN {first} AND {last}"
    rows = f"FROM read_parquet({quoted(file)}, hive_partitioning = false) WHERE {span}"
    ((stored_us,),) = connection.execute(f"SELECT epoch_us(max_by(stored_at, seq)) {rows}").fetchall()
    mine = span + _own(connection, part, one.stream, rows)
    with transaction(connection):
        with rebuild.batch_of(connection, file, one.stream, mine):
            fold.apply(connection)
        positions.write(connection, {one.stream: Position(last, int(stored_us or 0), one.created)})


def _own(connection: duckdb.DuckDBPyConnection, part: Unbroken, stream: str, rows: str) -> str:
    """The condition that a row is the part's."""
    if not part.divides(stream):
        return "" if part.reads(stream) else " AND false"
    projects = [p for (p,) in connection.execute(f"SELECT DISTINCT split_part(subject, '.', 2) {rows}").fetchall()]
    mine = ", ".join(quoted(project) for project in projects if part.of_project(project) == part.number)
    return f" AND split_part(subject, '.', 2) IN ({mine})" if mine else " AND false"


def ranges(seqs: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Sequences as (first, last) of those that follow each other. Pure."""
    first = last = 0
    for seq in sorted(seqs):
        if first and seq != last + 1:
            yield first, last
        first = seq if not first or seq != last + 1 else first
        last = seq
    if first:
        yield first, last
