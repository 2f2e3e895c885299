"""What a statement is, before it runs: one, that reads, by functions that touch nothing but tables. Pure, but for the parser.

The parser is DuckDB's own. A statement is refused here with a sentence that names what came and what is allowed; what gets
past is still run in a read-only transaction, on a connection that may open no file of its own choice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import duckdb
import msgspec

from bus import errors

#: What may be asked, for sentences.
ALLOWED = "SELECT, FROM, WITH, VALUES, EXPLAIN, DESCRIBE, SHOW or SUMMARIZE"

#: Table functions that give rows and change nothing. All others are refused: some write a log, some take raw pointers.
_TABLE_FUNCTIONS = frozenset(
    [
        "generate_series",
        "range",
        "repeat",
        "repeat_row",
        "unnest",
        "json_each",
        "json_tree",
        "summary",
        "icu_calendar_names",
        "pg_timezone_names",
        "parquet_scan",
        "read_parquet",
        "parquet_schema",
        "parquet_metadata",
        "parquet_file_metadata",
        "parquet_kv_metadata",
        "query_table",
        "duckdb_columns",
        "duckdb_constraints",
        "duckdb_databases",
        "duckdb_functions",
        "duckdb_indexes",
        "duckdb_keywords",
        "duckdb_memory",
        "duckdb_schemas",
        "duckdb_sequences",
        "duckdb_settings",
        "duckdb_tables",
        "duckdb_types",
        "duckdb_views",
        "pragma_database_size",
        "pragma_show",
        "pragma_storage_info",
        "pragma_table_info",
        "pragma_version",
        "read_csv",
        "read_csv_auto",
        "read_json",
        "read_json_auto",
        "read_ndjson",
    ]
)
#: Functions that do something.
_ACTING = frozenset({"write_log", "setval", "nextval", "set_config"})
#: Nodes of a parsed statement that read.
_READING = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
_EXPLAIN = re.compile(
    r"\A(?:\s|--[^\n]*\n|/\*.*?\*/)*EXPLAIN\b\s*(?:ANALYZE\b\s*)?(?:\([^)]*\)\s*)?", re.IGNORECASE | re.DOTALL
)
#: Characters of a statement that a sentence shows.
_SHOWN = 60


class QueryError(errors.BusError):
    """A statement that gave no answer."""


class QueryRefused(QueryError):
    """A statement that may not run."""


class QueryMistake(QueryError):
    """A statement that does not fit the tables, or is no SQL."""


class Statement(msgspec.Struct, frozen=True):
    """One statement that reads."""

    sql: str
    #: Tables that it names.
    tables: tuple[str, ...]
    #: Names of its parameters; ``1``, ``2``, … for those without a name.
    parameters: frozenset[str]


def check(sql: str, parser: duckdb.DuckDBPyConnection) -> Statement:
    """The one statement in a text.

    Args:
        sql: what was asked.
        parser: any connection; nothing is run on it but the parser.

    Raises:
        QueryRefused: there is none, or more than one, or it would do more than read.
        QueryMistake: it is no SQL.
    """
    try:
        found = duckdb.extract_statements(sql)
    except duckdb.Error as exc:
        raise QueryMistake(syntax(sql, str(exc))) from exc
    if len(found) != 1:
        came = "none" if not found else f"{len(found)}, the second is: {_shown(found[1].query)}"
        raise QueryRefused(f"expected one SQL statement, got: {came}; ask them one after the other")
    statement = found[0]
    kind = statement.type.name
    inner = statement.query
    if kind == "EXPLAIN":
        inner = _EXPLAIN.sub("", inner, count=1)
        explained = duckdb.extract_statements(inner)
        kind = explained[0].type.name if len(explained) == 1 else kind
    if kind == "MULTI":
        raise QueryRefused(
            "expected one statement, got a PIVOT that DuckDB runs as several; name its columns, as in "
            "PIVOT t ON status IN ('completed', 'cancelled') USING count(*)"
        )
    if kind != "SELECT":
        raise QueryRefused(_not_allowed(_word(inner)))
    tables = _walk(_tree(inner, parser))
    return Statement(sql=statement.query, tables=tables, parameters=frozenset(statement.named_parameters))


def _tree(sql: str, parser: duckdb.DuckDBPyConnection) -> Any:
    row = parser.execute("SELECT json_serialize_sql(?)", [sql]).fetchone()
    tree = msgspec.json.decode(row[0]) if row is not None else {"error": True}
    if tree["error"]:
        raise QueryRefused(
            f"expected a statement that can be looked through ({ALLOWED}), got: {_shown(sql)} "
            f"({tree.get('error_message', 'the parser does not say why')})"
        )
    return tree["statements"]


def _walk(tree: Any) -> tuple[str, ...]:
    """Names of the tables of a parsed statement, after a look at everything that it calls."""
    tables: dict[str, None] = {}
    for node in _nodes(tree):
        type_ = node.get("type", "")
        if type_ == "TABLE_FUNCTION":
            name = node["function"]["function_name"].lower()
            if name not in _TABLE_FUNCTIONS:
                raise QueryRefused(
                    f"expected a table, a view or a table function that only reads, got: {name}()"
                    f"{errors.did_you_mean(name, _TABLE_FUNCTIONS)}"
                )
        elif node.get("class") == "FUNCTION" and node["function_name"].lower() in _ACTING:
            raise QueryRefused(f"expected functions that only read, got: {node['function_name']}()")
        elif type_ == "BASE_TABLE":
            tables[node["table_name"]] = None
        elif type_.endswith("_NODE") and type_ not in _READING:
            raise QueryRefused(_not_allowed(type_.partition("_")[0]))
    return tuple(tables)


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            yield item
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item


def _not_allowed(word: str) -> str:
    return f"expected a statement that only reads ({ALLOWED}), got: {word}; the tables are changed by events alone"


def _word(sql: str) -> str:
    """What kind of statement it is, in its own first word."""
    bare = re.sub(r"--[^\n]*\n|/\*.*?\*/", " ", sql, flags=re.DOTALL).split()
    return bare[0].rstrip(";(").upper() if bare else "nothing"


def _shown(sql: str) -> str:
    line = " ".join(sql.split())
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 1]}…"


def syntax(sql: str, said: str) -> str:
    """DuckDB's syntax error as one sentence with its place."""
    what = said.split("\n", 1)[0].removeprefix("Parser Error:").strip()
    found = re.search(r"^LINE (\d+): (.*)\n(\s*)\^", said, re.MULTILINE)
    if found is None:
        return f"expected SQL, got: {_shown(sql)} ({what})"
    place = max(0, len(found[3]) - len(f"LINE {found[1]}: "))
    return f"expected SQL, got something else in line {found[1]} at {_shown(found[2][place:]) or 'its end'!r}: {what}"
