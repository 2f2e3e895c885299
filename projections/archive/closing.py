"""When rows of the log become a file: enough of them, a day that is over, or a person who wants it now. Changes nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import duckdb
import msgspec

from bus import errors
from bus.connection import Connection
from bus.store import Store

#: Rows of a file, unless the fleet file says otherwise: about 30 MB.
SEGMENT_ROWS = 250_000
#: How long after midnight a day without newer messages counts as over: clocks of two machines differ.
_GRACE = timedelta(minutes=10)
_DAY = timedelta(days=1)


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of one stream that are in no file yet."""

    stream: str
    rows: int
    #: Sequences of the first and the last row.
    first: int
    last: int
    #: When the first row was stored.
    first_at: datetime

    @property
    def day_end(self) -> datetime:
        """Midnight after the first row, UTC."""
        return self.first_at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + _DAY


def waiting(connection: duckdb.DuckDBPyConnection) -> list[Waiting]:
    """What is in no file yet, by stream."""
    rows = connection.execute(
        "SELECT stream, count(*), min(seq), max(seq), arg_min(stored_at, seq) FROM hot.log GROUP BY stream ORDER BY stream"
    ).fetchall()
    return [
        Waiting(stream=stream, rows=count, first=first, last=last, first_at=at.replace(tzinfo=UTC))
        for stream, count, first, last, at in rows
    ]


class Edges(msgspec.Struct, frozen=True, kw_only=True):
    """Where the rows of a stream could be cut."""

    #: Sequence of the row that makes a file full; 0 for not so many.
    full: int = 0
    #: Sequence of the last row before the first one of a later day; 0 for none of a later day.
    day: int = 0


def edges(connection: duckdb.DuckDBPyConnection, rows: Waiting, limit: int) -> Edges:
    """Look them up."""
    full = day = None
    if rows.rows >= limit:
        full = connection.execute(
            "SELECT seq FROM hot.log WHERE stream = ? ORDER BY seq LIMIT 1 OFFSET ?", [rows.stream, limit - 1]
        ).fetchone()
    later = connection.execute(
        "SELECT min(seq) FROM hot.log WHERE stream = ? AND stored_at >= ?",
        [rows.stream, rows.day_end.replace(tzinfo=None)],
    ).fetchone()
    if later is not None and later[0] is not None:
        day = connection.execute(
            "SELECT max(seq) FROM hot.log WHERE stream = ? AND seq < ?", [rows.stream, later[0]]
        ).fetchone()
    return Edges(full=full[0] if full else 0, day=day[0] if day else 0)


def decide(rows: Waiting, edges: Edges, now: datetime, *, wanted: int = 0) -> int:
    """The sequence to close a file with; 0 for not yet. What is up to `wanted` is to be in files at once.

    A server's clock that goes back puts earlier times behind later ones: they stay in the file of the day that their
    neighbours are in. A local clock that is wrong closes a file early or late, and nothing else.
    """
    found = [seq for seq in (edges.full, edges.day) if seq]
    if found:
        return min(found)
    if now >= rows.day_end + _GRACE:
        return rows.last
    return min(rows.last, wanted) if rows.first <= wanted else 0


async def confirm(connection: Connection, store: Store, stream: str, era: str, gap: tuple[int, int]) -> None:
    """Make sure that the stream does not hold what the tables lack.

    Raises:
        Conflict: it does, or it is another stream by now.
    """
    first, last = gap
    created = (await connection.api(f"STREAM.INFO.{stream}"))["created"]
    if created != era:
        raise errors.Conflict(
            f"expected the stream {stream} that was made at {era}, got: one of {created}; its rows are kept until the "
            "projector has seen it"
        )
    async for message in store.messages(stream, ">", start=first, limit=1):
        if message.seq <= last:
            raise errors.Conflict(
                f"expected {stream} to hold nothing in {first:,}-{last:,}, which the tables lack, got: sequence {message.seq:,}; "
                "no file is written over it; make the tables again with `systems rebuild`"
            )
