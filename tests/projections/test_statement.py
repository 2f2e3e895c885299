"""What may be asked: one statement, that reads."""

from __future__ import annotations

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from projections.statement import QueryError, QueryMistake, QueryRefused, check

PARSER = duckdb.connect()

READS = [
    "SELECT 1",
    "SELECT 1;",
    "/* why */ SELECT 1 -- so",
    "FROM events",
    "VALUES (1), (2)",
    "TABLE events",
    "WITH a AS (SELECT 1) FROM a",
    "WITH RECURSIVE a AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM a WHERE n < 5) FROM a",
    "SELECT 1 UNION ALL SELECT 2",
    "DESCRIBE events",
    "SHOW TABLES",
    "SHOW ALL TABLES",
    "SUMMARIZE events",
    "EXPLAIN SELECT 1",
    "EXPLAIN ANALYZE SELECT 1",
    "EXPLAIN (FORMAT json) SELECT 1",
    "-- first\nEXPLAIN SELECT 1",
    "SELECT * FROM range(3), generate_series(1, 2), unnest([1])",
    "SELECT data->>'$.reason' FROM events, json_each(data)",
    "PIVOT events ON type IN ('a', 'b') USING count(*)",
    "FROM read_parquet('/archive/1.parquet')",
    "SELECT list_transform([1], lambda x: x + 1)",
]

ACTS = {
    "INSERT INTO events VALUES (1)": "INSERT",
    "UPDATE events SET seq = 1": "UPDATE",
    "DELETE FROM events": "DELETE",
    "TRUNCATE events": "TRUNCATE",
    "MERGE INTO events USING x ON true WHEN MATCHED THEN DELETE": "MERGE",
    "CREATE TABLE t(i INT)": "CREATE",
    "CREATE TEMP TABLE t AS SELECT 1": "CREATE",
    "CREATE MACRO f() AS 1": "CREATE",
    "DROP TABLE events": "DROP",
    "ALTER TABLE events ADD COLUMN x INT": "ALTER",
    "COPY events TO '/tmp/x.csv'": "COPY",
    "COPY events FROM '/etc/passwd'": "COPY",
    "EXPORT DATABASE '/tmp/x'": "EXPORT",
    "IMPORT DATABASE '/tmp/x'": "IMPORT",
    "ATTACH '/tmp/x.duckdb'": "ATTACH",
    "DETACH x": "DETACH",
    "USE memory": "USE",
    "INSTALL httpfs": "INSTALL",
    "LOAD httpfs": "LOAD",
    "SET threads = 1": "SET",
    "RESET threads": "RESET",
    "PRAGMA version": "PRAGMA",
    "CALL pragma_version()": "CALL",
    "CHECKPOINT": "CHECKPOINT",
    "VACUUM": "VACUUM",
    "BEGIN": "BEGIN",
    "COMMIT": "COMMIT",
    "PREPARE p AS SELECT 1": "PREPARE",
    "EXECUTE p": "EXECUTE",
    "EXPLAIN DELETE FROM events": "DELETE",
    "EXPLAIN ANALYZE INSERT INTO events VALUES (1)": "INSERT",
    "EXPLAIN ANALYZE COPY events TO '/tmp/x'": "COPY",
    "WITH a AS (INSERT INTO events VALUES (1) RETURNING 1) FROM a": "INSERT",
    "WITH a AS (DELETE FROM events RETURNING 1) SELECT 1": "DELETE",
    "SELECT write_log('x')": "write_log()",
    "SELECT 1 WHERE (SELECT nextval('s')) > 0": "nextval()",
    "FROM force_checkpoint()": "force_checkpoint()",
    "SELECT (SELECT count(*) FROM enable_logging())": "enable_logging()",
    "FROM query('DELETE FROM events')": "query()",
    "FROM arrow_scan(1, 2, 3)": "arrow_scan()",
    "FROM json_execute_serialized_sql('{}')": "json_execute_serialized_sql()",
    "WITH a AS (FROM checkpoint()) FROM a": "checkpoint()",
    "FROM read_text('/etc/passwd')": "read_text()",
    "FROM read_blob('/etc/passwd')": "read_blob()",
    "FROM glob('/etc/*')": "glob()",
}


@pytest.mark.parametrize("sql", READS)
def test_reading_passes(sql: str) -> None:
    """A statement that only reads passes, in every form that SQL has for it."""
    assert check(sql, PARSER).sql.strip().rstrip(";") in sql


@pytest.mark.parametrize(("sql", "named"), ACTS.items())
def test_acting_is_refused(sql: str, named: str) -> None:
    """A statement that would do more than read is refused by its own word, and the sentence says what is allowed."""
    with pytest.raises(QueryRefused) as refused:
        check(sql, PARSER)
    assert f"got: {named}" in str(refused.value)
    assert str(refused.value).startswith("expected")


@pytest.mark.parametrize(
    ("sql", "came"),
    [
        ("", "got: none"),
        ("  -- nothing\n", "got: none"),
        ("SELECT 1; SELECT 2", "got: 2, the second is: SELECT 2"),
        ("SELECT 1; DROP TABLE events", "the second is: DROP TABLE events"),
    ],
)
def test_one_statement(sql: str, came: str) -> None:
    """Anything but exactly one statement is refused, and what came is named."""
    with pytest.raises(QueryRefused, match="expected one SQL statement") as refused:
        check(sql, PARSER)
    assert came in str(refused.value)


def test_pivot_of_unknown_columns_names_the_way_out() -> None:
    """A PIVOT that needs several statements is refused with the form of it that needs one."""
    with pytest.raises(QueryRefused, match="IN \\('completed', 'cancelled'\\)"):
        check("PIVOT events ON type USING count(*)", PARSER)


@pytest.mark.parametrize(
    ("sql", "where"),
    [
        ("SELECT * FRM events", "line 1 at 'events'"),
        ("SELECT *\nFROM events\nWHRE seq = 1", "line 3 at 'seq = 1'"),
        ("SELECT * FROM", "line 1 at 'FROM'"),
    ],
)
def test_syntax_errors_have_a_place(sql: str, where: str) -> None:
    """What is no SQL is told with its line and its place in it."""
    with pytest.raises(QueryMistake) as mistake:
        check(sql, PARSER)
    assert where in str(mistake.value)


def test_tables_and_parameters_are_known() -> None:
    """A statement's tables and parameters are known before it runs."""
    found = check("SELECT $since, (SELECT max(seq) FROM claims) FROM events JOIN invocations USING (seq)", PARSER)
    assert set(found.tables) == {"events", "claims", "invocations"}
    assert found.parameters == {"since"}


@given(st.text(max_size=60) | st.sampled_from([*READS, *ACTS]).flatmap(lambda s: st.text(max_size=8).map(s.__add__)))
def test_nothing_but_a_sentence(text: str) -> None:
    """Whatever is asked is a statement or a sentence, and never another error."""
    try:
        check(text, PARSER)
    except QueryError as exc:
        assert str(exc)  # noqa: PT017 (either outcome is fine)
