"""Batches of the log into tables.

The fold is SQL: the files of ``schema/`` make the tables and views, the files of ``fold/`` read the relation ``batch`` (rows
of the log) and change them. The same statements fold one event, a rebuild's millions, and the log up to a past moment. What
they keep of each row is enough to go on from, so folding a history in parts is folding it whole, however it is cut.

One stream's rows must come in the order of their sequences, each once; streams may overtake each other. A connection is
used by one thread at a time. Nothing here begins or ends a transaction.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from importlib.resources import files as package_files
from pathlib import Path

import duckdb
import msgspec

from projections import decode
from projections.quoting import quoted

#: In the order in which they are made.
_TABLES = (
    "macros",
    "log",
    "invocations",
    "claims",
    "spend",
    "dead_letters",
    "guards",
    "fleet",
    "findings",
    "care",
    "lag",
    "archive",
    "cold",
)
_VIEWS = ("views", "oncall", "bills", "incidents", "health")
#: In the order in which they run.
_FOLD = (
    "change",
    "folded",
    "recall",
    "invocations",
    "claims",
    "spend",
    "dead_letters",
    "schedules",
    "guards",
    "daemons",
    "registry",
    "findings",
    "ops",
    "sweeps",
    "decisions",
    "cards",
)
#: Those that fold each invocation from its own events, whatever happens to all others.
OF_INVOCATIONS = ("change", "folded", "recall", "invocations", "claims")
#: Those that fold each hour from the events that were stored in it.
OF_HOURS = ("spend",)
#: All others: each of their rows may come from any moment.
OF_ALL = tuple(name for name in _FOLD if name not in OF_INVOCATIONS + OF_HOURS)
#: How a file of the fold names the events that it has to run for.
_READS = "-- reads: "


def _read(folder: str, names: tuple[str, ...]) -> dict[str, str]:
    root = package_files("projections").joinpath(folder)
    return {name: root.joinpath(f"{name}.sql").read_text(encoding="utf-8") for name in names}


_tables = _read("schema", _TABLES)
_views = _read("schema", _VIEWS)
_fold = _read("fold", _FOLD)


def _events(text: str) -> frozenset[str]:
    """The events that a file reads: ``<noun>.<event>``, or ``<noun>.*`` for all of a noun."""
    first = text.partition("\n")[0]
    assert first.startswith(_READS), text
    return frozenset(first.removeprefix(_READS).split(", "))


_reads = {name: _events(text) for name, text in _fold.items()}


def _version() -> str:
    digest = hashlib.sha256(str(decode.VERSION).encode())
    for text in (*_tables.values(), *_views.values(), *_fold.values()):
        digest.update(text.encode())
    return digest.hexdigest()[:12]


#: Names what the tables hold: a file of another version is rebuilt and not gone on with.
VERSION = _version()


class Files(msgspec.Struct, frozen=True, kw_only=True):
    """Parquet files beside the primary: what is in them is in no hot table, but for what was recalled."""

    #: The archive's segments; columns of hot.log.
    log: tuple[Path, ...] = ()
    #: Cold rows of hot.invocations and hot.claims.
    invocations: tuple[Path, ...] = ()
    claims: tuple[Path, ...] = ()


#: A cold row that is out of date: the invocation got another event since, and is hot again, or in a later file.
_OUTDATED = """NOT EXISTS (
    FROM hot.recalled AS r WHERE r.id = c.id AND r.role = c.role AND r.project = c.project AND c.last_seq <= r.last_seq
)"""

#: View -> where the comments of its columns come from, if it has none of its own.
_TAKEN_FROM = {
    "hot.all_log": "hot.log",
    "hot.all_invocations": "hot.invocations",
    "hot.cold_invocations": "hot.invocations",
    "hot.all_claims": "hot.claims",
    "hot.every_claim": "hot.claims",
    "main.events": "hot.log",
    "main.rejected": "hot.log",
    "main.invocations": "hot.invocations",
    "main.claims": "hot.claims",
    "main.attempts": "hot.claims",
    "main.v_spend": "main.spend",
    "main.guard_trips": "hot.trips",
    "main.findings": "hot.findings",
    "main.v_backlog": "hot.invocations",
    "main.v_last_errors": "hot.claims",
    "main.v_slow": "hot.claims",
    "main.v_cost_by_tree": "hot.invocations",
    "main.v_failure_bill": "hot.invocations",
    "main.v_claims_overdue": "hot.claims",
    "main.v_deaf_consumers": "main.v_backlog",
}


def create(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the tables that are not there yet, and the views over them, in the connection's present database.

    The views know of no file yet: :func:`publish_views` names them.
    """
    for text in _tables.values():
        connection.execute(text)
    publish_views(connection, Files())
    for text in _views.values():
        connection.execute(text)
    _describe(connection)


def publish_views(connection: duckdb.DuckDBPyConnection, files: Files) -> None:
    """Make the views anew over what is hot and what lies in `files`, named by their absolute paths.

    Raises:
        duckdb.IOException: a file is not there, or no Parquet file.
    """
    whole = {
        "all_log": ("FROM hot.log", files.log, "FROM {} AS c"),
        "cold_invocations": (
            "FROM hot.invocations WHERE false",
            files.invocations,
            f"FROM {{}} AS c WHERE {_OUTDATED}",
        ),
        "all_invocations": ("FROM hot.invocations", files.invocations, f"FROM {{}} AS c WHERE {_OUTDATED}"),
        "all_claims": ("FROM hot.claims", files.claims, "FROM {} AS c"),
    }
    for view, (hot, paths, cold) in whole.items():
        body = f"{hot} UNION ALL BY NAME {cold.format(_parquet(paths))}" if paths else hot
        connection.execute(f"CREATE OR REPLACE VIEW hot.{view} AS {body}")
        connection.execute(f"COMMENT ON VIEW hot.{view} IS '{_WHOLE[view]}'")
    _describe(connection, tuple(whole))


_WHOLE = {
    "all_log": "Every message, good or bad: hot.log and the archive",
    "cold_invocations": "Invocations in cold files, without those that are out of date",
    "all_invocations": "Every invocation, hot or cold",
    "all_claims": "Every claim that has ended, hot or cold",
}


def _parquet(paths: tuple[Path, ...]) -> str:
    listed = ", ".join(quoted(path.absolute()) for path in paths)
    return f"read_parquet([{listed}], hive_partitioning = false)"


def _describe(connection: duckdb.DuckDBPyConnection, views: tuple[str, ...] | None = None) -> None:
    """Give the columns of views the comments of the columns that they are taken from."""
    rows = connection.execute(
        "SELECT schema_name, table_name, column_name, comment FROM duckdb_columns() WHERE database_name = current_database()"
    ).fetchall()
    comments = {
        (f"{schema}.{table}", column): comment for schema, table, column, comment in rows if comment is not None
    }
    for schema, table, column, comment in rows:
        source = _TAKEN_FROM.get(f"{schema}.{table}")
        if source is None or comment is not None or (views is not None and table not in views):
            continue
        taken = comments.get((source, column))
        if taken is not None:
            comments[f"{schema}.{table}", column] = taken
            connection.execute(f"COMMENT ON COLUMN {schema}.{table}.{column} IS {quoted(taken)}")


def append(connection: duckdb.DuckDBPyConnection) -> None:
    """Put the rows of the relation ``batch`` into hot.log."""
    connection.execute("INSERT INTO hot.log SELECT * FROM batch")


def reads(name: str) -> str:
    """The rows of the log that a file of the fold reads, as SQL over its columns: all of them, and perhaps some more."""
    pairs = [tuple(pair.split(".")) for pair in sorted(_reads[name])]
    nouns, events = sorted({noun for noun, _ in pairs}), sorted({event for _, event in pairs})
    found = f"noun IN ({', '.join(map(quoted, nouns))})"
    return found if "*" in events else f"{found} AND event IN ({', '.join(map(quoted, events))})"


def apply(connection: duckdb.DuckDBPyConnection, files: Collection[str] = _FOLD) -> None:
    """Fold the rows of the relation ``batch`` into the tables, inside the caller's transaction.

    Args:
        connection: has the tables, and the relation.
        files: which of the fold run; the others' tables stay as they are.
    """
    found = connection.execute("SELECT DISTINCT noun, event FROM batch WHERE noun IS NOT NULL").fetchall()
    there = {f"{noun}.{event}" for noun, event in found} | {f"{noun}.*" for noun, _ in found}
    for name, text in _fold.items():
        if name not in files or there.isdisjoint(_reads[name]):
            continue
        if name == "recall":
            _recall(connection, text)
        else:
            connection.execute(text)


def _recall(connection: duckdb.DuckDBPyConnection, text: str) -> None:
    """Bring back cold invocations that got another event. They are looked for only when some in the batch have no beginning."""
    if connection.execute("SELECT 1 FROM folded WHERE stranger LIMIT 1").fetchone() is None:
        return
    connection.execute(text)
    if connection.execute("SELECT 1 FROM coming_back LIMIT 1").fetchone() is not None:
        connection.execute(_fold["folded"])
