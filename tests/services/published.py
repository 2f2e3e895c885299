"""A fleet.duckdb of a live bus: its streams read to their ends, decoded and folded as the projector does it."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa

from bus.connection import Connection
from bus.follower import Follower
from bus.store import CONTROL, DEAD_LETTERS, INVOCATIONS
from projections import decode, fold
from tests.projections.looked_back import stamp


async def publish(connection: Connection, file: Path) -> Path:
    """The tables of everything that is in the streams now, as a file."""
    tables = []
    for stream in (INVOCATIONS, CONTROL, DEAD_LETTERS):
        info = await connection.api(f"STREAM.INFO.{stream}")
        last = info["state"]["last_seq"]
        if not info["state"]["messages"]:
            continue
        async for batch in Follower(connection, stream, []).batches():
            tables.append(decode.decode(stream, batch))
            if batch[-1].seq >= last or batch[-1].pending == 0:
                break
    with duckdb.connect(str(file)) as database:
        fold.create(database)
        stamp(database)
        database.register("batch", pa.concat_tables(tables))
        fold.apply(database)
        fold.append(database)
    return file
