"""The tables of a past moment are the tables that the log up to it makes."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bus.events import invocation as ev
from bus.store import INVOCATIONS
from bus.subjects import Ref
from bus.wire import Delivery
from projections import named
from projections.past import PastTooLarge, Room, past
from projections.query import Ask, Queries
from tests.projections.bad_day import history
from tests.projections.histories import Stream, fleet
from tests.projections.looked_back import fill, moment, publish
from tests.projections.written import Written

TABLES = (
    *(
        "hot.invocations",
        "hot.claims",
        "hot.standing",
        "hot.trips",
        "hot.findings",
        "dead_letters",
        "freezes",
        "drills",
    ),
    *("daemons", "spend", "prices", "registry_versions", "schedules", "ops_actions", "sweeps", "decisions", "cards"),
    *("projection_lag", "archive_segments", "cold_files"),
)
VIEWS = (
    *("rejected", "invocations", "claims", "attempts", "v_spend", "guard_trips", "findings", "incidents", "v_backlog"),
    *(
        "v_last_errors",
        "v_slow",
        "v_claims_overdue",
        "v_deaf_consumers",
        "v_cost_by_tree",
        "v_failure_bill",
        "v_health",
    ),
    *("hot.every_claim", "hot.all_invocations", "hot.all_claims", "hot.roles", "hot.last_claim"),
)
#: Columns of which a view may say any of several that are as good, or a sum whose last digits depend on the order.
ANY = {
    "v_failure_bill": "EXCLUDE (run_s)",
    "v_health": "EXCLUDE (what)",
}


def contents(connection: duckdb.DuckDBPyConnection) -> dict[str, list[tuple[object, ...]]]:
    """Every table's and view's rows, in an order of their own."""
    found = {
        name: connection.execute(f"SELECT * {ANY.get(name, '')} FROM {name} ORDER BY ALL").fetchall()  # noqa: S608
        for name in TABLES + VIEWS
    }
    log = connection.execute("SELECT stream, seq FROM events ORDER BY ALL").fetchall()
    return found | {"events": log}


def check(
    file: Path, tables: duckdb.DuckDBPyConnection, at: datetime, streams: dict[str, list[Delivery]], whole: str = ""
) -> None:
    """A look back shows what the log up to then folds to; why it took nothing over is said."""
    tables.execute("BEGIN")
    fill(tables, streams, at)
    wanted = contents(tables)
    tables.execute("ROLLBACK")
    with past(file, at) as then:
        assert contents(then.connection) == wanted
        assert then.whole.startswith(whole)
        assert bool(then.whole) == bool(whole)


@pytest.mark.soak
@pytest.mark.timeout(900)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), steps=st.integers(1, 120), places=st.lists(st.floats(0, 1), min_size=2, max_size=2))
def test_any_past_is_the_log_so_far(
    tables: duckdb.DuckDBPyConnection, seed: int, steps: int, places: list[float]
) -> None:
    """On random histories, whose clock may go back, with parts archived and cold, any past is the fold of the log up to it."""
    chance = random.Random(seed)
    streams = {name: found for name, found in fleet(seed, steps).items() if found}
    times = sorted(delivery.stored_ns for found in streams.values() for delivery in found)
    with TemporaryDirectory() as folder:
        file = publish(Path(folder), streams, chance)
        for place in places:
            check(file, tables, moment(times[int(place * (len(times) - 1))]), streams)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Written, Path]:
    """A bad day's log, and its published file: parts of the log are archived, ended work is cold."""
    log = history()
    return log, publish(tmp_path_factory.mktemp("home"), log.deliveries, random.Random(1))


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1))
def test_past_tables_are_those_of_the_log_so_far(
    published: tuple[Written, Path], tables: duckdb.DuckDBPyConnection, place: float
) -> None:
    """Whatever the moment of a bad day, tables and views are what the log up to then makes of them."""
    log, file = published
    times = sorted(delivery.stored_ns for stream in log.deliveries.values() for delivery in stream)
    check(file, tables, moment(times[int(place * (len(times) - 1))]), log.deliveries)


def lives(stream: Stream, *ids: str) -> None:
    """Invocations one after the other: asked for, claimed, completed."""
    for id_ in ids:
        ref = Ref("shop", "coder", id_)
        stream.event(ref, ev.Requested())
        stream.event(ref, ev.Claimed(holder="r", runner="r", delivery=1, attempt=1, reply="x"))
        stream.event(ref, ev.Completed(holder="r", delivery=1, usage=ev.Usage(input_tokens=3), duration_ms=1))


def names(connection: duckdb.DuckDBPyConnection, table: str) -> list[str]:
    """The invocations in a table."""
    return [id_ for (id_,) in connection.execute(f"SELECT id FROM {table} ORDER BY id").fetchall()]  # noqa: S608


def test_only_what_went_on_is_folded_anew(tmp_path: Path) -> None:
    """An invocation that got no event after the moment is read where it lies; one that had not begun is nowhere."""
    stream = Stream(INVOCATIONS, random.Random(1), (1_000_000,))
    claim = ev.Claimed(holder="r", runner="r", delivery=1, attempt=1, reply="x")
    lives(stream, "a", "b")
    stream.event(Ref("shop", "coder", "c"), ev.Requested())
    stream.event(Ref("shop", "coder", "s"), claim)
    at = stream.at
    lives(stream, "c", "d")
    stream.event(Ref("shop", "coder", "t"), claim)
    file = publish(tmp_path, {INVOCATIONS: stream.deliveries}, random.Random(1))
    with past(file, at) as then:
        assert names(then.connection, "hot.anew_invocations") == ["c"]
        assert names(then.connection, "invocations") == ["a", "b", "c", "s"]
        assert names(then.connection, "hot.standing") == ["s"]


def test_a_clock_that_went_back(tmp_path: Path) -> None:
    """What the server stored after the moment counts as later, also where its sequence is a smaller one."""
    stream = Stream(INVOCATIONS, random.Random(1), (1_000_000,))
    lives(stream, "a")
    stream.event(Ref("shop", "coder", "b"), ev.Requested())
    at = stream.at + timedelta(seconds=10)
    stream.at += timedelta(hours=1)
    stream.event(Ref("shop", "coder", "b"), ev.Cancelled())
    stream.event(Ref("shop", "coder", "c"), ev.Requested())
    stream.at = at - timedelta(seconds=5)
    lives(stream, "d")
    file = publish(tmp_path, {INVOCATIONS: stream.deliveries}, random.Random(1))
    with past(file, at) as then:
        assert then.connection.execute("SELECT id, state FROM invocations ORDER BY id").fetchall() == [
            ("a", "completed"),
            ("b", "queued"),
            ("d", "completed"),
        ]


def _of_another_version(file: Path) -> str:
    with duckdb.connect(str(file)) as connection:
        connection.execute("UPDATE hot.made SET version = 'another'")
        connection.execute("DELETE FROM hot.invocations")
    return "another version made its tables"


def _without_cold_files(file: Path) -> str:
    for cold in (file.parent / "history").glob("*/claims/*.parquet"):
        cold.unlink()
    return "cold files are gone: IO Error: "


@pytest.mark.parametrize("spoil", [_of_another_version, _without_cold_files])
def test_tables_that_cannot_be_taken_over(
    tables: duckdb.DuckDBPyConnection, tmp_path: Path, spoil: Callable[[Path], str]
) -> None:
    """Of tables of another version, or with cold files that are gone, nothing is believed but the log."""
    stream = Stream(INVOCATIONS, random.Random(1), (1_000_000,))
    lives(stream, "a", "b", "c")
    streams = {INVOCATIONS: stream.deliveries}
    file = publish(tmp_path, streams, random.Random(1), cold_rows=0)
    assert list((tmp_path / "history").glob("*/claims/*.parquet"))
    why = spoil(file)
    check(file, tables, stream.at, streams, why)


def test_too_little_room_is_a_sentence(published: tuple[Written, Path]) -> None:
    """A look back that needs more than it may use ends, and says what it needed."""
    log, file = published
    with (
        pytest.raises(PastTooLarge, match=r"to fit into 1 MB of memory and 0 MB of disk, got: .*TMPDIR"),
        past(file, log.now(), Room(memory_mb=1, spill_mb=0)),
    ):
        pass


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
