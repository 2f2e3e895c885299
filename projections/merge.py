"""One file for everybody out of the published copies of several projectors: :mod:`projections.partition`.

Each table is the union of theirs; the views over them are the same statements as everywhere. How far the whole is, the slowest part
says. Takes about 0.2 s for each million rows that are hot, and reads nothing but the copies, so it may run anywhere at any pace.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import duckdb

from bus import errors
from projections import fold
from projections.database import POSITIONS, STORAGE_VERSION, transaction
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


class Unmergeable(errors.BusError):
    """Files that are no parts of one whole."""


def merge(sources: Sequence[Path], target: Path) -> None:
    """Replace `target` by the union of the published files of all partitions.

    Raises:
        Unmergeable: one is of another version, names files of its own, or is not there.
    """
    draft = target.with_name(f".{target.name}.draft")
    draft.unlink(missing_ok=True)
    spill = target.with_name(f".{target.name}.spill")
    with duckdb.connect(config={"temp_directory": str(spill)}) as connection:
        try:
            connection.execute(f"ATTACH {quoted(draft)} AS merged (STORAGE_VERSION '{STORAGE_VERSION}')")
            parts = [_attach(connection, number, source) for number, source in enumerate(sources)]
            connection.execute("USE merged")
            with transaction(connection):
                fold.create(connection)
                connection.execute(POSITIONS)
                _fill(connection, parts)
            connection.execute("CHECKPOINT merged")
        except duckdb.Error as exc:
            raise Unmergeable(f"expected published tables in {', '.join(map(str, sources))}, got: {exc}") from exc
        finally:
            connection.execute("USE memory")
    draft.replace(target)
    shutil.rmtree(spill, ignore_errors=True)


def _attach(connection: duckdb.DuckDBPyConnection, number: int, source: Path) -> str:
    name = f"part{number}"
    connection.execute(f"ATTACH {quoted(source.absolute())} AS {name} (READ_ONLY)")
    for table in _FILES:
        if connection.execute(f"SELECT count(*) FROM {name}.{table}").fetchall() != [(0,)]:  # noqa: S608 (our own names)
            raise Unmergeable(
                f"expected {source} to hold all of its rows itself, got: some are in files of {table}; partitions keep neither archive nor cold files"
            )
    return name


def _fill(connection: duckdb.DuckDBPyConnection, parts: Sequence[str]) -> None:
    tables = connection.execute(
        "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = 'merged' ORDER BY ALL"
    ).fetchall()
    for schema, table in tables:
        name = f"{schema}.{table}"
        union = " UNION ALL BY NAME ".join(f"FROM {part}.{name}" for part in parts)
        made = _MADE_OF.get(name, "FROM ({})").format(union)
        connection.execute(f"INSERT INTO merged.{name} BY NAME {made}")
