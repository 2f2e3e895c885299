"""The tables are the log: however it is cut into batches, and whoever folds it."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bus.events import invocation as ev
from bus.store import CONTROL, DEAD_LETTERS, INVOCATIONS
from bus.subjects import Ref
from bus.wire import Delivery
from projections import fold
from projections.decode import decode
from services.replay_file import read_trace
from tests.projections.histories import Stream, fleet
from tests.projections.oracle import Oracle, Row

TRACE = Path(__file__).parents[2] / "infra" / "example" / "azure-llm-2023-code.csv"
STREAMS = (INVOCATIONS, CONTROL, DEAD_LETTERS)
#: Table -> the columns that name a row.
TABLES = {
    "hot.invocations": ("project", "role", "id"),
    "hot.every_claim": ("claimed_seq",),
    "dead_letters": ("died_seq",),
    "spend": ("hour", "project", "role", "model"),
    "hot.trips": ("stream", "seq"),
    "daemons": ("seat",),
    "hot.findings": ("fingerprint", "opening"),
    "ops_actions": ("id",),
    "sweeps": ("id",),
    "decisions": ("seq",),
    "cards": ("seat", "opening"),
}


def take(connection: duckdb.DuckDBPyConnection, stream: str, deliveries: Sequence[Delivery]) -> None:
    """One batch into the log and the tables."""
    connection.register("batch", decode(stream, deliveries))
    fold.append(connection)
    fold.apply(connection)
    connection.unregister("batch")


def rows(connection: duckdb.DuckDBPyConnection, table: str) -> dict[tuple[Any, ...], Row]:
    """A table by its key."""
    cursor = connection.execute(f"FROM {table}")
    names = [column[0] for column in cursor.description]
    found = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    keyed = {tuple(row[name] for name in TABLES[table]): row for row in found}
    assert len(keyed) == len(found), f"{table} names a row twice"
    return keyed


def everything(connection: duckdb.DuckDBPyConnection) -> dict[str, dict[tuple[Any, ...], Row]]:
    """All tables that the oracle knows too."""
    return {table: rows(connection, table) for table in TABLES}


def expected(oracle: Oracle) -> dict[str, dict[tuple[Any, ...], Row]]:
    """What the oracle says that they hold."""
    found: dict[str, Iterable[Row]] = {
        "hot.invocations": oracle.invocations.values(),
        "hot.every_claim": oracle.claims.values(),
        "dead_letters": oracle.dead_letters.values(),
        "spend": oracle.spend.values(),
        "hot.trips": oracle.trips.values(),
        "daemons": oracle.daemons.values(),
        "hot.findings": oracle.care.findings.values(),
        "ops_actions": oracle.care.actions.values(),
        "sweeps": oracle.care.sweeps.values(),
        "decisions": oracle.care.decisions.values(),
        "cards": oracle.care.cards.values(),
    }
    return {table: {tuple(row[name] for name in TABLES[table]): row for row in kept} for table, kept in found.items()}


def rejected(connection: duckdb.DuckDBPyConnection) -> dict[tuple[Any, ...], str]:
    """What the tables keep as rubbish."""
    return {
        (stream, seq): why
        for stream, seq, why in connection.execute("SELECT stream, seq, problem FROM rejected").fetchall()
    }


def cut(deliveries: Sequence[Delivery], places: Iterable[int]) -> list[Sequence[Delivery]]:
    """The messages in batches that end at `places`."""
    ends = sorted({min(place, len(deliveries)) for place in places} | {0, len(deliveries)})
    return [deliveries[a:b] for a, b in itertools.pairwise(ends)]


def check(connection: duckdb.DuckDBPyConnection, streams: dict[str, list[Delivery]], chance: random.Random) -> None:
    """Fold the streams whole, and again in batches that overtake each other; all are what the oracle says."""
    oracle = Oracle()
    for stream in STREAMS:
        oracle.read(stream, streams[stream])
    said = expected(oracle)

    connection.execute("BEGIN")
    for stream in STREAMS:
        take(connection, stream, streams[stream])
    assert everything(connection) == said
    assert rejected(connection) == oracle.rejected
    connection.execute("ROLLBACK")

    batches = {name: cut(d, [chance.randint(0, len(d)) for _ in range(3)]) for name, d in streams.items()}
    connection.execute("BEGIN")
    while left := [name for name in STREAMS if batches[name]]:
        name = chance.choice(left)
        take(connection, name, batches[name].pop(0))
    got = everything(connection)
    connection.execute("ROLLBACK")
    for row in (*got["dead_letters"].values(), *said["dead_letters"].values()):
        if row["kept_seq"] is not None and row["died_at"] is None:
            row["root"] = row["reason"] = None
    assert got == said


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), steps=st.integers(1, 60))
def test_any_cut_is_the_oracle(tables: duckdb.DuckDBPyConnection, seed: int, steps: int) -> None:
    """On random histories, allowed or not, every cut into batches gives the tables that the Python fold gives."""
    check(tables, fleet(seed, steps), random.Random(seed))


@pytest.mark.slow
def test_long_histories(tables: duckdb.DuckDBPyConnection) -> None:
    """The same holds for histories of thousands of events over the same few invocations."""
    check(tables, fleet(7, 4000), random.Random(7))


def test_event_by_event(tables: duckdb.DuckDBPyConnection) -> None:
    """Batches of one event give what one batch of all gives."""
    streams = fleet(11, 25)
    for stream in STREAMS:
        take(tables, stream, streams[stream])
    whole = everything(tables)
    again = duckdb.connect(config={"threads": 1})
    fold.create(again)
    for stream in STREAMS:
        for delivery in streams[stream]:
            take(again, stream, [delivery])
    assert everything(again) == whole
    again.close()


@pytest.mark.slow
def test_the_trace(tables: duckdb.DuckDBPyConnection) -> None:
    """The recorded trace, worked through by three events for each request, is in the tables token for token."""
    trace = list(read_trace(TRACE))
    stream = Stream(INVOCATIONS, random.Random(1))
    for number, row in enumerate(trace):
        ref = Ref("shop", "coder", f"trace-{number}")
        usage = ev.Usage(input_tokens=row.input_tokens, output_tokens=row.output_tokens, model="trace")
        stream.event(ref, ev.Requested())
        stream.event(ref, ev.Claimed(holder="r1", runner="run-1@h", delivery=1, attempt=1, reply="x"))
        stream.event(ref, ev.Completed(holder="r1", delivery=1, usage=usage, duration_ms=row.output_tokens * 20.0))
    for batch in cut(stream.deliveries, range(0, len(stream.deliveries), 9973)):
        take(tables, INVOCATIONS, batch)
    oracle = Oracle()
    oracle.read(INVOCATIONS, stream.deliveries)
    assert everything(tables) == expected(oracle)
    sums = "SELECT count(*), sum(input_tokens), sum(output_tokens) FROM"
    told = (len(trace), sum(row.input_tokens for row in trace), sum(row.output_tokens for row in trace))
    for table in ("invocations WHERE state = 'completed'", "attempts"):
        assert tables.execute(f"{sums} {table}").fetchone() == told
    assert tables.execute("SELECT sum(ends), sum(input_tokens), sum(output_tokens) FROM spend").fetchone() == told


def test_absurd_numbers(tables: duckdb.DuckDBPyConnection) -> None:
    """Numbers that nobody can have meant stop no fold: what no column holds is rejected, and a sum stays at its column's end."""
    stream = Stream(INVOCATIONS, random.Random(2))
    ref = Ref("shop", "coder", "a")
    most = ev.Usage(input_tokens=2**63 - 1)
    for _ in range(3):
        stream.event(ref, ev.Completed(holder="r", delivery=1, usage=most, duration_ms=1.7e308))
    stream.event(ref, ev.Completed(holder="r", delivery=1, usage=ev.Usage(input_tokens=2**63)))
    stream.event(ref, ev.Claimed(holder="r", runner="r", delivery=2**31, attempt=1, reply="x"))
    stream.event(ref, ev.Claimed(holder="r", runner="r", delivery=2, attempt=1, reply="x", registry_revision=-1))
    take(tables, INVOCATIONS, stream.deliveries[:2])
    take(tables, INVOCATIONS, stream.deliveries[2:])
    assert tables.execute("SELECT input_tokens, attempts FROM invocations").fetchall() == [(2**63 - 1, 0)]
    assert tables.execute("SELECT input_tokens FROM spend").fetchall() == [(2**63 - 1,)]
    assert tables.execute(
        "SELECT count(*) FROM rejected WHERE problem LIKE 'a value of systems.invocation.%'"
    ).fetchone() == (3,)
    assert tables.execute("SELECT sum(cost_usd) FROM attempts").fetchone() is not None


def test_a_cold_invocation_returns(tables: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    """An invocation that lies in a cold file and gets another event is hot again, whole, and counted once."""
    stream = Stream(INVOCATIONS, random.Random(3))
    gone, stays = Ref("shop", "coder", "a"), Ref("shop", "coder", "b")
    for ref in (gone, stays):
        stream.event(ref, ev.Requested())
        stream.event(ref, ev.Claimed(holder="r", runner="r", delivery=1, attempt=1, reply="x"))
        stream.event(ref, ev.Completed(holder="r", delivery=1, usage=ev.Usage(input_tokens=3), duration_ms=1))
    take(tables, INVOCATIONS, stream.deliveries)
    file = tmp_path / "cold's.parquet"
    tables.execute("COPY hot.invocations TO '" + str(file).replace("'", "''") + "' (FORMAT parquet)")
    tables.execute("DELETE FROM hot.invocations")
    fold.publish_views(tables, fold.Files(invocations=(file,)))
    before = len(stream.deliveries)
    stream.event(gone, ev.Completed(holder="r", delivery=1, usage=ev.Usage(input_tokens=4), duration_ms=1))
    take(tables, INVOCATIONS, stream.deliveries[before:])
    assert tables.execute("SELECT id, input_tokens, attempts FROM invocations ORDER BY id").fetchall() == [
        ("a", 7, 1),
        ("b", 3, 1),
    ]
    assert tables.execute("SELECT id FROM hot.invocations").fetchall() == [("a",)]


def test_a_time_before_1970(tables: duckdb.DuckDBPyConnection) -> None:
    """Times lie in tables in UTC to the microsecond, whatever offset they were written with."""
    stream = Stream(INVOCATIONS, random.Random(4))
    east = datetime.fromisoformat("1969-12-31T23:30:00.000001+05:30")
    stream.event(Ref("shop", "coder", "a"), ev.Requested(due=east))
    take(tables, INVOCATIONS, stream.deliveries)
    due = tables.execute("SELECT due FROM invocations").fetchone()
    assert due == ((datetime(1970, 1, 1, tzinfo=UTC) - timedelta(hours=6, microseconds=-1)).replace(tzinfo=None),)
