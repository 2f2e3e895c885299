"""Tables in memory."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pytest

from projections import fold


@pytest.fixture
def tables() -> Iterator[duckdb.DuckDBPyConnection]:
    """A database with all tables and views, empty."""
    connection = duckdb.connect(config={"threads": 1})
    fold.create(connection)
    yield connection
    connection.close()
