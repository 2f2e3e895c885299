"""Rows that tie: whatever order they are come upon in, all columns that speak of one of them speak of the same one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import duckdb
import pytest

from bus.events import invocation as ev
from projections import named
from tests.projections.written import START, Written, claimed, failed

#: What threads decide, if the query does not: which of the rows that tie is come upon first.
ORDERS = ("seq", "seq DESC")
_SQL = {
    "backlog": "SELECT role, oldest_queued_id, oldest_queued_seq FROM v_backlog WHERE queued > 0",
    "health": "SELECT what, seq FROM v_health WHERE looked_at = 'rubbish of the last day'",
    "tree": "SELECT asked, actor FROM v_cost_by_tree WHERE root = 'tree'",
    "bill": "SELECT error_kind, error_fingerprint FROM v_failure_bill WHERE root = 'tree'",
}
#: Named queries of which the one shows a row of several, and the others the first few of more.
_NAMED = ("waits", "cost_by_tree", "failure_bills", "oldest_queued", "slowest")


@pytest.fixture(scope="module")
def day() -> Iterator[duckdb.DuckDBPyConnection]:
    """Pairs of rows that nothing but their names and sequences tells apart."""
    log = Written()

    def together(*subjects: str) -> None:
        for subject in subjects:
            log.raw(subject, b"{")
            log.wait(seconds=-1)

    together("inv.shop.coder.x.claimed", "inv.shop.coder.y.claimed")
    for name, kind in (("coder", "exit_1"), ("writer", "timeout")):
        ref = log.asked(f"shop/{name}", root="tree", depth=1)
        log.invocation(ref, claimed(), root="tree")
        log.invocation(ref, failed(kind), ev.DeadLettered(reason=ev.DeathReason.ATTEMPTS_SPENT), root="tree")
        log.wait(seconds=-4)
    for _ in ORDERS:
        log.asked("ledger/clerk")
        log.invocation(log.asked("ledger/reader"), claimed())
        log.invocation(log.asked("ledger/writer"), claimed(), failed())
        log.wait(seconds=-6)
    connection = log.tables()
    connection.execute(f"CREATE OR REPLACE MACRO moment() AS TIMESTAMP '{log.now():%Y-%m-%d %H:%M:%S}'")
    yield connection
    connection.close()


def _come_upon(day: duckdb.DuckDBPyConnection, order: str) -> None:
    """Have the rows lie in an order."""
    for table, key in (("log", "seq"), ("invocations", "last_seq"), ("claims", "claimed_seq")):
        day.execute(f"CREATE OR REPLACE TEMP TABLE lies AS FROM hot.{table}")
        day.execute(f"TRUNCATE hot.{table}")
        day.execute(f"INSERT INTO hot.{table} FROM lies ORDER BY {order.replace('seq', key)}")


def _asked_for(day: duckdb.DuckDBPyConnection, sql: str, given: dict[str, object] | None = None) -> list[list[Any]]:
    """The rows of a statement, for each order in which they may be come upon."""
    found = []
    for order in ORDERS:
        _come_upon(day, order)
        found.append(day.execute(sql, given).fetchall())
    return found


@pytest.mark.parametrize("what", sorted(_SQL))
def test_of_rows_that_tie_one_is_named(day: duckdb.DuckDBPyConnection, what: str) -> None:
    """Of rows that tie the same one is named in whatever order they lie, and by each column."""
    first, second = _asked_for(day, _SQL[what])
    assert first == second
    assert first


@pytest.mark.parametrize("name", _NAMED)
def test_of_rows_that_tie_a_named_query_shows_the_same(day: duckdb.DuckDBPyConnection, name: str) -> None:
    """A named query that shows some of the rows that tie shows the same of them, in the same order, however they lie."""
    query = named.load([named.FOLDER])[name]
    values = {"since": START.replace(tzinfo=None), "role": "", "most": 2}
    given = {parameter.name: values[parameter.name] for parameter in query.parameters}
    first, second = _asked_for(day, query.sql, given)
    assert first == second
    assert first
