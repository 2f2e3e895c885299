"""How far each stream is in the tables: a table of its own, changed in the same transaction as they."""

from __future__ import annotations

from collections.abc import Mapping

import duckdb
import msgspec


class Position(msgspec.Struct, frozen=True):
    """How far a stream is in the tables."""

    #: Sequence of the last message applied.
    seq: int
    #: When the server stored that message, in microseconds since 1970: tells it from one of the same number in another history.
    stored_us: int
    #: When the stream was made, in the server's words: one that was made anew counts from 1 again and is another.
    era: str


def read(connection: duckdb.DuckDBPyConnection) -> dict[str, Position]:
    """How far each stream is, as the connection sees it."""
    rows = connection.execute("SELECT stream, seq, stored_us, era FROM hot.positions").fetchall()
    return {stream: Position(seq, stored_us, era) for stream, seq, stored_us, era in rows}


def write(connection: duckdb.DuckDBPyConnection, positions: Mapping[str, Position]) -> None:
    """Set positions, within the caller's transaction."""
    for stream, position in positions.items():
        # Not an UPDATE: those are in the way of a checkpoint for as long as somebody reads.
        connection.execute("DELETE FROM hot.positions WHERE stream = ?", [stream])
        connection.execute(
            "INSERT INTO hot.positions VALUES (?, ?, ?, ?)", [stream, position.seq, position.stored_us, position.era]
        )
