"""Rows that tie: whatever order they are come upon in, all columns that speak of one of them speak of the same one."""

from __future__ import annotations

from collections.abc import Iterator

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
    "waits": named.load([named.FOLDER])["waits"].sql.replace("$since", f"TIMESTAMP '{START:%Y-%m-%d}'"),
}


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
        log.wait(seconds=-3)
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


@pytest.mark.parametrize("what", sorted(_SQL))
def test_of_rows_that_tie_one_is_named(day: duckdb.DuckDBPyConnection, what: str) -> None:
    """Of rows that tie the same one is named in whatever order they lie, and by each column."""
    said = []
    for order in ORDERS:
        _come_upon(day, order)
        said.append(sorted(day.execute(_SQL[what]).fetchall()))
    assert said[0] == said[1]
    assert said[0]
