"""DuckDB's errors as one sentence: what came, and what it should have been. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import duckdb

from bus import errors
from projections.statement import QueryError, QueryMistake, QueryRefused, syntax

_TABLE = re.compile(r"Table with name (.+?) does not exist")
_COLUMN = re.compile(r'(?:Referenced column "(.+?)" not found|does not have a column named "(.+?)")')
_FUNCTION = re.compile(r"(\w+) Function with name (\S+) does not exist!(?:\s*Did you mean \"(\w+)\")?")
_FILE = re.compile(r'Cannot access (?:file|directory) "(.+?)"')
#: Endings of files that DuckDB would read as a table.
_FILES = re.compile(r"[/\\]|\.(csv|tsv|parquet|json|jsonl|ndjson|duckdb|db|txt)(\.gz|\.zst)?$", re.IGNORECASE)


class QueryTooLarge(QueryError):
    """A statement that wants more memory than it may have."""


class QueryTooLong(QueryError):
    """A statement that was not done in its time."""


class QueryCancelled(QueryError):
    """A statement that somebody called off."""


class TablesAway(QueryError):
    """Tables that are being opened, or exchanged for newer ones: the same statement is answered in a moment."""

    def __init__(self) -> None:
        super().__init__("expected tables to ask, got: they are being opened just now; ask again in a moment")


def translate(
    exc: BaseException, sql: str, *, tables: Mapping[str, Iterable[str]], named: Iterable[str], memory: str
) -> QueryError:
    """What went wrong, for the one who asked.

    Args:
        exc: DuckDB's error.
        sql: the statement.
        tables: every table and view, with its columns.
        named: the tables that the statement names.
        memory: how much memory it may have, in words.
    """
    said = str(exc)
    first = said.split("\n", 1)[0]
    first = re.sub(r"^[A-Z]\w*( \w+)? Error: ", "", first).strip().rstrip("!.")
    match exc:
        case duckdb.ConnectionException() | duckdb.InterruptException():
            # Whoever stops a statement of his own says why himself: this one was in the way of tables that are closed.
            return TablesAway()
        case duckdb.OutOfMemoryException() | MemoryError():
            return too_large(memory)
        case duckdb.ParserException() | duckdb.SyntaxException():
            return QueryMistake(syntax(sql, said))
        case duckdb.PermissionException():
            return QueryRefused(_file(said))
        case duckdb.TransactionException() if "read-only" in said:
            return QueryRefused(
                "expected a statement that only reads, got one that writes; the tables are changed by events alone"
            )
        case duckdb.CatalogException() if (found := _TABLE.search(said)) is not None:
            name = found[1]
            if _FILES.search(name):
                return QueryRefused(_file(f'Cannot access file "{name}"'))
            return QueryMistake(f"unknown table {name!r}{errors.did_you_mean(name, tables)}; all of them: SHOW TABLES")
        case duckdb.CatalogException() if (found := _FUNCTION.search(said)) is not None:
            close = f", did you mean {found[3]!r}?" if found[3] else ""
            return QueryMistake(f"unknown function {found[2]!r}{close}")
        case duckdb.BinderException() if (found := _COLUMN.search(said)) is not None:
            name = found[1] or found[2]
            known = sorted({column for table in named for column in tables.get(table, ())})
            where = f" in {', '.join(named)}" if known else ""
            return QueryMistake(f"unknown column {name!r}{where}{errors.did_you_mean(name, known)}")
    return QueryMistake(f"the statement cannot be answered: {first[:1].lower()}{first[1:]}")


def too_large(memory: str) -> QueryTooLarge:
    """The error of a statement that wants too much memory."""
    return QueryTooLarge(
        f"expected a statement that needs at most {memory} of memory, got one that needs more; "
        "select fewer rows or columns, or ask fleet.duckdb in a process of your own"
    )


def _file(said: str) -> str:
    found = _FILE.search(said)
    name = f"the file {found[1]}" if found is not None else said.split("\n", 1)[0]
    return f"expected tables, views and files of the archive, got: {name}; ask fleet.duckdb in a process of your own to join other files"
