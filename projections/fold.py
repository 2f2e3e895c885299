"""Batches of the log into tables.

The fold is SQL: the files of ``schema/`` make the tables and views, the files of ``fold/`` read the relation ``batch`` (rows
of the log) and change them. The same statements fold one event, a rebuild's millions, and the log up to a past moment. What
they keep of each row is enough to go on from, so folding a history in parts is folding it whole, however it is cut.

One stream's rows must come in the order of their sequences, each once; streams may overtake each other. A connection is
used by one thread at a time. Nothing here begins or ends a transaction.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files as package_files

import duckdb

from projections import decode

#: In the order in which they are made.
_SCHEMA = ("macros", "log", "invocations", "claims", "spend", "dead_letters", "guards", "fleet")
#: In the order in which they run.
_FOLD = (
    "invocations",
    "invocations_kept",
    "claims",
    "spend",
    "dead_letters",
    "schedules",
    "guards",
    "daemons",
    "registry",
)
#: How a file of the fold names the events that it has to run for.
_READS = "-- reads: "


def _read(folder: str, names: tuple[str, ...]) -> dict[str, str]:
    root = package_files("projections").joinpath(folder)
    return {name: root.joinpath(f"{name}.sql").read_text(encoding="utf-8") for name in names}


_schema = _read("schema", _SCHEMA)
_fold = _read("fold", _FOLD)


def _events(text: str) -> frozenset[str]:
    """The events that a file reads: ``<noun>.<event>``, or ``<noun>.*`` for all of a noun."""
    first = text.partition("\n")[0]
    assert first.startswith(_READS), text
    return frozenset(first.removeprefix(_READS).split(", "))


_reads = {name: _events(text) for name, text in _fold.items()}


def _version() -> str:
    digest = hashlib.sha256(str(decode.VERSION).encode())
    for text in (*_schema.values(), *_fold.values()):
        digest.update(text.encode())
    return digest.hexdigest()[:12]


#: Names what the tables hold: a file of another version is rebuilt and not gone on with.
VERSION = _version()


def create(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the tables that are not there yet, in the connection's present database."""
    for text in _schema.values():
        connection.execute(text)


def apply(connection: duckdb.DuckDBPyConnection) -> None:
    """Fold the rows of the relation ``batch`` into the tables, inside the caller's transaction."""
    found = connection.execute("SELECT DISTINCT noun, event FROM batch WHERE noun IS NOT NULL").fetchall()
    there = {f"{noun}.{event}" for noun, event in found} | {f"{noun}.*" for noun, _ in found}
    for name, text in _fold.items():
        if not there.isdisjoint(_reads[name]):
            connection.execute(text)
