"""The statements that the monitor asks of the tables, run by a real DuckDB over tables of the same columns."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import msgspec
import pytest

from services.fleet.spec import SANDBOX
from services.monitor import tables
from services.monitor.tables import Tables, TablesUnanswered
from services.projector import subjects
from tests.services.rig import Rig

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    """The columns that are asked for, and nothing in them."""
    with duckdb.connect() as connection:
        connection.execute(
            "CREATE TABLE events (seq UBIGINT, stored_at TIMESTAMP, noun VARCHAR, event VARCHAR, project VARCHAR, "
            "role VARCHAR, error_kind VARCHAR, error_message VARCHAR, error_fingerprint VARCHAR)"
        )
        connection.execute(
            "CREATE TABLE archive_segments (stream VARCHAR, created VARCHAR, first_seq UBIGINT, last_seq UBIGINT, problem VARCHAR)"
        )
        yield connection


def rows(database: duckdb.DuckDBPyConnection, sql: str, **parameters: Any) -> list[dict[str, Any]]:
    """What a statement gives, by column."""
    answer = database.execute(sql, parameters or None)
    names = [column[0] for column in answer.description or ()]
    return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]


def test_errors_are_counted_against_their_past(database: duckdb.DuckDBPyConnection) -> None:
    """Failures of lately are counted by fingerprint, with when it was first seen and how many came in the week before."""

    def fail(seq: int, fingerprint: str, ago: timedelta, project: str = "shop") -> None:
        values = (seq, (NOW - ago).replace(tzinfo=None), project, fingerprint)
        database.execute("INSERT INTO events VALUES (?, ?, 'invocation', 'failed', ?, 'coder', 'k', 'm', ?)", values)

    for n in range(5):
        fail(n + 1, "new", timedelta(minutes=n))
    for n in range(10):
        fail(n + 100, "old", timedelta(hours=2 * n))
    fail(900, "over", timedelta(hours=3))
    # What a drill lets fail on purpose is no error of anybody's.
    fail(901, "drilled", timedelta(minutes=1), SANDBOX)
    since, before = NOW - timedelta(hours=1), NOW - timedelta(hours=169)
    found = rows(database, tables._ERRORS_SQL, since=tables.timestamp(since), before=tables.timestamp(before))
    assert [(r["fingerprint"], r["path"], r["lately"], r["earlier"], r["last_seq"]) for r in found] == [
        ("new", "shop/coder", 5, 0, 5),
        ("old", "shop/coder", 1, 9, 109),
    ]
    assert found[1]["first_at"].replace(tzinfo=UTC) == NOW - timedelta(hours=18)
    assert found[1]["over_s"] == timedelta(hours=17).total_seconds()


def test_gaps_of_the_archive_are_found(database: duckdb.DuckDBPyConnection) -> None:
    """Sequences between two segments of one stream that neither covers are a gap; so is a segment that cannot be read."""
    segments = [
        ("A", "x", 1, 10, None),
        ("A", "x", 11, 20, None),
        ("A", "x", 25, 30, "sha-256 differs"),
        ("A", "y", 1, 4, None),
        ("B", "x", 7, 9, None),
    ]
    database.executemany("INSERT INTO archive_segments VALUES (?, ?, ?, ?, ?)", segments)
    found = [tuple(row.values()) for row in rows(database, tables._GAPS_SQL)]
    assert found == [("A", 21, 24, ""), ("A", 25, 30, "sha-256 differs")]


async def test_tables_that_do_not_answer_are_unanswered(rig: Rig) -> None:
    """Nobody there, and an answer that is none, are the same to the monitor: not seen, with the reason."""
    asked = Tables(rig.connection)
    with pytest.raises(TablesUnanswered, match="no projector answers"):
        await asked.gaps()
    answers = [b"rubbish", msgspec.json.encode({"rows": [{"stream": "A"}]})]

    async def answer(message: Any) -> None:
        await message.respond(answers.pop(0))

    await rig.connection.nc.subscribe(subjects.SQL, cb=answer)
    await rig.connection.nc.flush()
    with pytest.raises(TablesUnanswered, match="expected rows as JSON"):
        await asked.gaps()
    with pytest.raises(TablesUnanswered, match="another shape"):
        await asked.gaps()
