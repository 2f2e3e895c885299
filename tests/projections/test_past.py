"""The tables of a past moment are the tables that the log up to it makes."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from projections import fold, named
from projections.past import past
from projections.query import Ask, Queries
from tests.projections.bad_day import history
from tests.projections.written import Written

TABLES = (
    *("hot.invocations", "hot.claims", "hot.standing", "dead_letters", "freezes", "daemons", "spend", "hot.trips"),
    *("hot.findings", "ops_actions", "sweeps", "decisions", "cards"),
)


def contents(connection: duckdb.DuckDBPyConnection) -> dict[str, list[tuple[object, ...]]]:
    """Every table's rows, in an order of their own."""
    return {table: connection.execute(f"FROM {table} ORDER BY ALL").fetchall() for table in TABLES}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Written, Path]:
    """A bad day's log, and its published file: the older half of the log lies in the archive."""
    log = history()
    folder = tmp_path_factory.mktemp("home")
    file, segment = folder / "fleet.duckdb", folder / "archive" / "INVOCATIONS.parquet"
    segment.parent.mkdir()
    with duckdb.connect(str(file)) as connection:
        log.tables(connection)
        connection.execute(f"COPY (FROM hot.log WHERE stream = 'INVOCATIONS' AND seq <= 12) TO '{segment}'")
        connection.execute("DELETE FROM hot.log WHERE stream = 'INVOCATIONS' AND seq <= 12")
        fold.publish_views(connection, fold.Files(log=(segment,)))
    return log, file


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(step=st.integers(0, 45))
def test_past_tables_are_those_of_the_log_so_far(published: tuple[Written, Path], step: int) -> None:
    """Whatever the moment, and wherever the log lies, the past tables are what the log up to then folds to."""
    log, file = published
    times = sorted(delivery.stored_ns for stream in log.deliveries.values() for delivery in stream)
    at = log.moment(times[min(step, len(times) - 1)])
    wanted = log.until(at).tables()
    with past(file, at) as then:
        assert contents(then.connection) == contents(wanted)
    wanted.close()


def test_now_is_then(published: tuple[Written, Path]) -> None:
    """In a look at the past, now() and moment() are that moment, in statements, views and named queries alike."""
    log, file = published
    at = log.now() - timedelta(seconds=1)
    with past(file, at) as then:
        queries = Queries(then.connection.cursor)
        row = queries.run(Ask(sql="SELECT epoch_us(now()) AS a, epoch_us(moment()) AS b")).table.to_pylist()[0]
        assert row["a"] == row["b"] == int(at.timestamp() * 1_000_000)
        query = named.load([named.FOLDER])["last_errors"]
        assert queries.run_named(query, {"since": "1h"}, Ask(sql="")).table.num_rows == 2
        assert then.begins <= at
        assert then.ends >= then.begins
