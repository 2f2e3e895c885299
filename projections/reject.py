"""A row that no table can hold: found by halving the batch that it is in, and kept in the log as rejected.

The decoder lets nothing through that it knows to be wrong, so this is for what nobody thought of: one event must not stop
all others for ever.
"""

from __future__ import annotations

from collections.abc import Mapping

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import structlog

from projections.database import Database
from projections.log import LOG
from projections.positions import Position

log = structlog.get_logger()

#: What is known of a message without reading it.
_PLACE = ("stream", "seq", "stored_at", "subject", "raw")


async def divide(database: Database, rows: pa.Table, eras: Mapping[str, str], exc: duckdb.Error) -> None:
    """Apply a batch that was refused in ever smaller pieces, and reject the rows that are to blame.

    Args:
        database: where to.
        rows: the batch.
        eras: of each stream that has rows in it, when it was made.
        exc: why it was refused.

    Raises:
        duckdb.Error: a row is refused even as rubbish, or there is no memory for a single one.
    """
    rows = rows.sort_by([("stream", "ascending"), ("seq", "ascending")])
    if rows.num_rows == 1 and isinstance(exc, duckdb.OutOfMemoryException):
        raise exc  # no row is to blame for that
    if rows.num_rows == 1:
        place = {name: rows.column(name) for name in _PLACE}
        reason = pa.array([f"no table takes it: {exc}"], pa.string())
        log.error("event_rejected", stream=place["stream"][0].as_py(), seq=place["seq"][0].as_py(), error=str(exc))
        columns = [
            place.get(field.name, reason if field.name == "problem" else pa.nulls(1, field.type)) for field in LOG
        ]
        await database.apply(pa.table(columns, schema=LOG), _positions(rows, eras))
        return
    half = rows.num_rows // 2
    for part in (rows.slice(0, half), rows.slice(half)):
        try:
            await database.apply(part, _positions(part, eras))
        except duckdb.Error as cause:
            await divide(database, part, eras, cause)


def _positions(rows: pa.Table, eras: Mapping[str, str]) -> dict[str, Position]:
    """Where sorted rows lead."""
    found: dict[str, Position] = {}
    for stream, era in eras.items():
        mine = rows.filter(pc.equal(rows.column("stream"), stream))
        if mine.num_rows:
            last = mine.slice(mine.num_rows - 1)
            stored_us = last.column("stored_at").cast(pa.int64())[0].as_py()
            found[stream] = Position(last.column("seq")[0].as_py(), stored_us, era)
    return found
