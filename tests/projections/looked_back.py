"""A home as a projector leaves it after a history: a published file, parts of the log in an archive, ended work in cold files."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb

from bus.wire import Delivery
from projections import fold, history
from projections.archive import register, segment
from projections.database import POSITIONS, VERSION, transaction
from projections.decode import decode
from tests.projections.test_fold import cut, take

ERA = "2026-01-01T00:00:00Z"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def stamp(connection: duckdb.DuckDBPyConnection, version: str = VERSION) -> None:
    """Let tables say which they are, as the projector's do."""
    connection.execute(POSITIONS)
    connection.execute(
        "INSERT INTO hot.made VALUES (?, ?, '', '', true)", [version, datetime.now(UTC).replace(tzinfo=None)]
    )


def publish(
    home: Path, streams: dict[str, list[Delivery]], chance: random.Random, cold_rows: int | None = None
) -> Path:
    """The file: streams overtake each other, and now and then something leaves it for files beside it."""
    file = home / "fleet.duckdb"
    cold = history.Cold(home, rows=chance.choice([0, 1, 3]) if cold_rows is None else cold_rows)
    batches = {name: cut(found, [chance.randint(0, len(found)) for _ in range(3)]) for name, found in streams.items()}
    with duckdb.connect(str(file)) as connection:
        # Each transaction waits for the disk.
        with transaction(connection):
            fold.create(connection)
            stamp(connection)
        while left := [name for name in batches if batches[name]]:
            name = chance.choice(left)
            with transaction(connection):
                take(connection, name, batches[name].pop(0))
            if chance.random() < 0.3:
                archive(connection, home, name)
            if chance.random() < 0.5 or cold_rows is not None:
                cold.move(connection)
    return file


def archive(connection: duckdb.DuckDBPyConnection, home: Path, stream: str) -> None:
    """Move what is there of a stream into the archive."""
    ((first, last),) = connection.execute(
        "SELECT min(seq), max(seq) FROM hot.log WHERE stream = ?", [stream]
    ).fetchall()
    if first is not None:
        one = segment.write(connection, home / "archive", stream=stream, created=ERA, first=first, last=last)
        register.add(connection, [one], lambda con: history.publish(con, home))


def moment(stored_ns: int) -> datetime:
    """The server's time of a message."""
    return _EPOCH + timedelta(microseconds=stored_ns // 1000)


def fill(connection: duckdb.DuckDBPyConnection, streams: dict[str, list[Delivery]], at: datetime) -> None:
    """Fold all that was stored by a moment, whole, and look from there."""
    for name, found in streams.items():
        so_far = [delivery for delivery in found if moment(delivery.stored_ns) <= at]
        connection.register("batch", decode(name, so_far))
        fold.append(connection)
        fold.apply(connection)
        connection.unregister("batch")
    connection.execute(f"CREATE OR REPLACE MACRO moment() AS TIMESTAMP '{at.replace(tzinfo=None).isoformat(sep=' ')}'")
