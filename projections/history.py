"""What was moved out of the primary file, still seen through its views."""

from __future__ import annotations

from pathlib import Path

import duckdb

from projections.archive import register
from projections.database import quoted


def publish(connection: duckdb.DuckDBPyConnection, home: Path) -> None:
    """Make the views anew that read files of the archive beside the tables, inside the caller's transaction."""
    files = ", ".join(map(quoted, register.paths(connection, home / "archive")))
    # Without hive_partitioning the folders' names would become columns.
    cold = f" UNION ALL SELECT * FROM read_parquet([{files}], hive_partitioning = false)" if files else ""  # noqa: S608 (our own files)
    connection.execute(f"CREATE OR REPLACE VIEW events AS SELECT * FROM hot.log{cold}")  # noqa: S608 (our own files)
    connection.execute("CREATE OR REPLACE VIEW invocations AS SELECT * FROM hot.invocations")
