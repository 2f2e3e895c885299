"""Answers to SQL, with a limit on everything."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from projections.mistakes import QueryCancelled, QueryTooLarge, QueryTooLong, TablesAway
from projections.query import Answer, Ask, Limits, Queries, confine
from projections.statement import QueryMistake, QueryRefused
from tests.projections.written import Written

#: A statement that never ends by itself.
ENDLESS = "WITH RECURSIVE a AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM a) SELECT * FROM a WHERE x < 0"
_MB = 1 << 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the files are."""
    return tmp_path_factory.mktemp("tables")


@pytest.fixture(scope="module")
def connection(folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Tables of three invocations in a file, on a connection that is confined as the projector's is."""
    written = Written()
    for _ in range(3):
        written.done()
    spill = {"temp_directory": str(folder / "spill"), "max_temp_directory_size": "64MB"}
    connection = duckdb.connect(config={"memory_limit": "256MB", **spill})
    connection.execute(f"ATTACH '{folder}/primary.duckdb' AS tables (STORAGE_VERSION 'v1.5.0')")
    connection.execute("USE tables")
    written.tables(connection)
    (folder / "archive").mkdir()
    connection.execute(f"COPY (SELECT 7 AS seven) TO '{folder}/archive/1.parquet'")
    (folder / "secret.csv").write_text("a,b\n1,2\n")
    confine(connection, [folder / "archive"])
    yield connection
    connection.close()


@pytest.fixture
def queries(connection: duckdb.DuckDBPyConnection) -> Queries:
    """Who runs statements on them."""
    return on(connection)


def on(connection: duckdb.DuckDBPyConnection, **limits: Any) -> Queries:
    """Who runs statements on a connection's tables."""

    def cursor() -> duckdb.DuckDBPyConnection:
        made = connection.cursor()
        made.execute("USE tables")
        return made

    return Queries(cursor, Limits(**({"memory": 64 * _MB} | limits)))


def rows(answer: Answer) -> list[dict[str, Any]]:
    """An answer as plain rows."""
    return list(answer.table.to_pylist())


def test_an_answer_has_all_rows(queries: Queries) -> None:
    """A statement is answered with its rows, its column types, and how long it took."""
    answer = queries.run(Ask(sql="SELECT state, count(*) AS n FROM hot.invocations GROUP BY state"))
    assert rows(answer) == [{"state": "completed", "n": 3}]
    assert (answer.cut, answer.took_ms > 0) == ("", True)


@pytest.mark.parametrize(
    "ask",
    [
        Ask(sql="SELECT $a::INT + $b::INT AS sum", parameters={"a": 2, "b": 3}),
        Ask(sql="SELECT ?::INT + ?::INT AS sum", parameters=[2, 3]),
    ],
)
def test_parameters(queries: Queries, ask: Ask) -> None:
    """Parameters are given by name or by place, and never become SQL."""
    assert rows(queries.run(ask)) == [{"sum": 5}]


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (Ask(sql="SELECT $since"), "got none for: since"),
        (Ask(sql="SELECT 1", parameters={"since": 1}), "got also: since"),
        (Ask(sql="FROM hot.invocation"), "unknown table 'invocation'"),
        (Ask(sql="SELECT stat FROM hot.invocations"), "unknown column 'stat'"),
        (Ask(sql="SELECT cuont(*)"), "unknown function 'cuont', did you mean 'count'?"),
        (Ask(sql="SELECT 'x'::INT"), "could not convert string 'x' to INT32"),
        (Ask(sql="SELECT 1", limit=0), "expected a limit from 1 to"),
        (Ask(sql="SELECT 1", limit=10**9), "expected a limit from 1 to 1,000,000 rows, got: 1,000,000,000"),
        (Ask(sql="SELECT 1", timeout_s=-1), "expected a time limit above 0"),
    ],
)
def test_mistakes_are_sentences(queries: Queries, ask: Ask, said: str) -> None:
    """What does not fit the tables is told in one line, with the name that was meant where there is one."""
    with pytest.raises(QueryMistake) as mistake:
        queries.run(ask)
    assert said in str(mistake.value)
    assert "\n" not in str(mistake.value)


def test_names_are_suggested(connection: duckdb.DuckDBPyConnection, queries: Queries) -> None:
    """An unknown table or column is answered with the one that was meant."""
    connection.execute("CREATE OR REPLACE VIEW work AS SELECT id, state FROM hot.invocations")
    with pytest.raises(QueryMistake, match="unknown table 'wrok', did you mean 'work'"):
        queries.run(Ask(sql="FROM wrok"))
    with pytest.raises(QueryMistake, match="unknown column 'sate' in work, did you mean 'state'"):
        queries.run(Ask(sql="SELECT sate FROM work"))


def test_rows_are_cut_and_it_is_told(queries: Queries) -> None:
    """Of a huge result the first rows come at once, and that there are more."""
    answer = queries.run(Ask(sql="FROM range(100_000_000_000)"))
    assert (answer.table.num_rows, answer.cut) == (10_000, "rows")
    few = queries.run(Ask(sql="FROM range(100)", limit=100))
    assert (few.table.num_rows, few.cut) == (100, "")


def test_bytes_are_cut_and_it_is_told(connection: duckdb.DuckDBPyConnection) -> None:
    """A result of few and large rows is cut by its bytes."""
    answer = on(connection, size=_MB).run(Ask(sql="SELECT repeat('x', 100_000) AS x FROM range(1000)"))
    assert answer.cut == "size"
    assert 0 < answer.table.num_rows < 20


@pytest.mark.parametrize(
    "sql",
    [
        ENDLESS,
        "SELECT sleep_ms(60_000)",
        "SELECT count(*) FROM range(10_000_000) a, range(10_000_000) b WHERE hash(a.range + b.range) = 1",
    ],
)
def test_time_is_limited(queries: Queries, sql: str) -> None:
    """A statement that does not end is stopped when its time is over, and the next one is answered."""
    with pytest.raises(QueryTooLong, match=r"expected an answer within 0.2 s"):
        queries.run(Ask(sql=sql, timeout_s=0.2))
    assert rows(queries.run(Ask(sql="SELECT 1 AS one"))) == [{"one": 1}]


def test_a_running_statement_is_called_off(queries: Queries) -> None:
    """A statement with an id ends when it is called off; another id calls off nothing."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            queries.run(Ask(sql=ENDLESS, id="mine", timeout_s=50))
        except QueryCancelled as exc:
            raised.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    while not queries.cancel("mine"):
        assert not queries.cancel("another")
    thread.join()
    assert "called off" in str(raised[0])


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT list(i) FROM range(2_000_000_000) r(i)",
        "SELECT i, count(*) FROM range(2_000_000_000) r(i) GROUP BY i ORDER BY i",
        "SELECT string_agg(i::VARCHAR, ',') FROM range(2_000_000_000) r(i)",
    ],
)
def test_memory_is_limited(connection: duckdb.DuckDBPyConnection, queries: Queries, sql: str) -> None:
    """A statement that asks for 10 GB fails with a sentence, and the tables are read and written as before."""
    with pytest.raises(QueryTooLarge, match="expected a statement that needs at most 64 MB of memory"):
        queries.run(Ask(sql=sql, timeout_s=50))
    connection.execute("CREATE OR REPLACE TABLE after AS SELECT 1 AS one")
    assert rows(queries.run(Ask(sql="FROM after"))) == [{"one": 1}]


@pytest.mark.slow
def test_one_huge_allocation_does_not_take_the_process_down(tmp_path: Path) -> None:
    """In a process with a bound on its memory even one call that makes gigabytes fails with a sentence, and the process goes on."""
    code = """
import duckdb
from projections.query import Ask, Queries, bound_memory
from projections.mistakes import QueryTooLarge
bound_memory(1 << 30)
connection = duckdb.connect(config={"memory_limit": "128MB"})
queries = Queries(connection.cursor)
for sql in ("SELECT repeat('x', 1_000_000_000) FROM range(2048)", "SELECT repeat('x', 4_000_000_000)"):
    try:
        queries.run(Ask(sql=sql))
    except QueryTooLarge as exc:
        print(exc)
print(queries.run(Ask(sql="SELECT 1 AS one")).table.to_pylist())
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())}, cwd=tmp_path,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert [line[:21] for line in lines[:2]] == ["expected a statement "] * 2
    assert lines[2] == "[{'one': 1}]"


@pytest.mark.parametrize(
    "sql",
    [
        "FROM '/etc/passwd'",
        "FROM read_csv('/etc/passwd')",
        "FROM '{folder}/secret.csv'",
        "FROM read_csv('{folder}/archive/../secret.csv')",
        "FROM 's3://bucket/x.parquet'",
        "FROM 'https://example.com/x.csv'",
    ],
)
def test_no_other_file_is_read(queries: Queries, folder: Path, sql: str) -> None:
    """Files outside the archive cannot be read, by whatever road."""
    with pytest.raises((QueryRefused, QueryMistake)) as refused:
        queries.run(Ask(sql=sql.format(folder=folder)))
    assert "file" in str(refused.value)


def test_the_archive_is_read_and_written(connection: duckdb.DuckDBPyConnection, queries: Queries, folder: Path) -> None:
    """Files of the archive answer questions, and the projector goes on to write them on its confined connection."""
    assert rows(queries.run(Ask(sql=f"FROM '{folder}/archive/*.parquet'"))) == [{"seven": 7}]
    connection.execute(f"COPY (SELECT 8 AS seven) TO '{folder}/archive/2.parquet'")
    connection.execute("CHECKPOINT tables")
    assert queries.run(Ask(sql=f"FROM '{folder}/archive/*.parquet'")).table.num_rows == 2


def test_python_is_no_table(queries: Queries) -> None:
    """Objects of the process cannot be read as tables."""
    secret = [1, 2, 3]
    with pytest.raises(QueryMistake, match="unknown table 'secret'"):
        queries.run(Ask(sql="FROM secret"))
    assert secret


def test_the_configuration_stays(connection: duckdb.DuckDBPyConnection) -> None:
    """What confines a connection cannot be undone on it."""
    for setting in ("SET enable_external_access = true", "SET allowed_directories = ['/']", "SET threads = 8"):
        with pytest.raises(duckdb.Error):
            connection.execute(setting)


def test_a_statement_sees_one_moment(connection: duckdb.DuckDBPyConnection, queries: Queries) -> None:
    """A statement reads the tables as they were when it began, and holds up neither a write nor a checkpoint meanwhile."""
    connection.execute("CREATE OR REPLACE TABLE steps AS SELECT 1 AS n")
    found: list[Answer] = []
    sql = "SELECT (SELECT max(n) FROM steps) AS n, sleep_ms(700) AS slept"
    thread = threading.Thread(target=lambda: found.append(queries.run(Ask(sql=sql))))
    thread.start()
    while not queries._running:
        pass
    connection.execute("INSERT INTO steps VALUES (2)")
    connection.execute("CHECKPOINT tables")
    thread.join()
    assert found[0].table.column("n").to_pylist()[0] in (1, 2)
    assert rows(queries.run(Ask(sql="SELECT max(n) AS n FROM steps"))) == [{"n": 2}]


def test_tables_that_are_closed_under_a_statement_are_asked_again() -> None:
    """A statement that is broken off because its tables are closed is refused for now, and is no mistake of the one who asks."""
    connection = duckdb.connect()
    sessions: list[duckdb.DuckDBPyConnection] = []

    def cursor() -> duckdb.DuckDBPyConnection:
        sessions.append(connection.cursor())
        return sessions[-1]

    over = threading.Event()

    def close() -> None:
        while not over.wait(0.01):
            for session in sessions:
                session.interrupt()

    closing = threading.Thread(target=close)
    closing.start()
    try:
        with pytest.raises(TablesAway):
            Queries(cursor).run(Ask(sql="SELECT count(*) FROM range(10000000000) AS a(x) WHERE x % 7 = 3"))
    finally:
        over.set()
        closing.join()
        connection.close()
