"""Answers to SQL: one statement, read-only, with a limit on its rows, bytes, time and memory.

A statement runs on a cursor of its own, in a read-only transaction: it sees the tables as they were when it began, holds
nobody up, and leaves nothing behind. It is looked through before (:mod:`projections.statement`), watched while it runs, and
interrupted when its time is over, when its process grows too much, or when somebody calls it off. A result is read as a
stream and cut, never gathered whole: ``FROM range(100000000000)`` gives its first rows at once.

Blocking: :meth:`Queries.run` keeps its thread until there is an answer. Not promised: that one allocation by a single
function call is noticed in time; the daemon's own bound on memory (:func:`confine`) makes it fail instead.
"""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pyarrow as pa

from bus import errors
from projections.mistakes import QueryCancelled, QueryTooLong, TablesAway, too_large, translate
from projections.named import Named, bind
from projections.quoting import quoted
from projections.statement import QueryMistake, Statement, check

#: Rows in one batch of a result's stream.
_BATCH = 2048
#: Seconds between two looks at a running statement.
_LOOK_S = 0.02
_MB = 1 << 20
#: The one setting that a connection with a locked configuration may still change: each statement's memory.
_OPERATORS = "operator_memory_limit"


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The most that a statement may have."""

    rows: int = 10_000
    most_rows: int = 1_000_000
    #: Bytes of the answer, as Arrow.
    size: int = 32 * _MB
    seconds: float = 10.0
    most_seconds: float = 60.0
    #: Bytes for sorts and hash tables; beyond that it uses the disk, as far as it may.
    memory: int = 256 * _MB
    #: Bytes by which the process may grow meanwhile.
    growth: int = 1024 * _MB


def bounded(memory_mb: int) -> Limits:
    """The limits where DuckDB may have so many megabytes in all: a third is a statement's, so that the tables keep theirs."""
    return Limits(memory=max(32, memory_mb // 3) * _MB, growth=3 * memory_mb * _MB)


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One question."""

    sql: str
    #: By name for ``$name``, as a list for ``?``.
    parameters: dict[str, Any] | list[Any] = msgspec.field(default_factory=dict)
    #: None: as many as there are by default.
    limit: int | None = None
    timeout_s: float | None = None
    #: By which it can be called off; empty for none.
    id: str = ""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    table: pa.Table
    #: Why there are not all rows: ``rows`` or ``size``; empty: there are all.
    cut: str = ""
    took_ms: float = 0.0


def confine(connection: duckdb.DuckDBPyConnection, folders: Iterable[Path]) -> None:
    """Let a connection, and every cursor of it, open no files but its own and those in `folders`; once, and for good.

    Its own writes into these folders go on. Python objects can be read as tables no more. The configuration is locked.

    Args:
        connection: with everything attached that it needs, and its settings made.
        folders: the archive, the history.
    """
    listed = ", ".join(quoted(folder.absolute()) for folder in folders)
    connection.execute(f"SET allowed_directories = [{listed}]")
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET python_enable_replacements = false")
    connection.execute(f"SET allowed_configs = ['{_OPERATORS}']")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def bound_memory(size: int) -> None:
    """Let this process have at most so many bytes of data: one allocation above it fails, instead of the whole machine.

    For a process of its own only. Nothing happens where the system has no such bound, or has a smaller one.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = size if hard == resource.RLIM_INFINITY else min(size, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


class Queries:
    """Runs statements, each on a cursor of its own; from several threads at once."""

    def __init__(self, cursor: Callable[[], duckdb.DuckDBPyConnection], limits: Limits | None = None) -> None:
        """Nothing runs yet.

        Args:
            cursor: makes a new session on the tables, which is closed here.
            limits: the most that a statement may have.
        """
        self._cursor = cursor
        self._limits = limits or Limits()
        self._lock = threading.Lock()
        #: By id of the question: how to call it off.
        self._running: dict[str, Callable[[], None]] = {}

    def run(self, ask: Ask) -> Answer:
        """The answer to a question.

        Raises:
            QueryRefused: it is not one statement that only reads.
            QueryMistake: it does not fit the tables.
            QueryTooLong, QueryTooLarge, QueryCancelled: it was stopped.
            TablesAway: there are none just now; ask again.
        """
        return self._run(ask, lambda _cursor: ask.parameters)

    def run_named(self, query: Named, given: Mapping[str, Any], ask: Ask) -> Answer:
        """The answer of a named query; the limits and the id are the question's.

        Raises:
            UnknownName: it has no such parameter.
            and what :meth:`run` raises.
        """
        return self._run(msgspec.structs.replace(ask, sql=query.sql), lambda cursor: bind(query, given, cursor))

    def _run(self, ask: Ask, bound: Callable[[duckdb.DuckDBPyConnection], dict[str, Any] | list[Any]]) -> Answer:
        limits = self._allowed(ask)
        begun = time.monotonic()
        cursor = self._session()
        try:
            statement = check(ask.sql, cursor)
            ask = msgspec.structs.replace(ask, parameters=bound(cursor))
            fitting(statement, ask.parameters)
            cursor.execute(f"SET {_OPERATORS} = '{limits.memory // _MB}MiB'")
            table, cut = self._watched(cursor, statement, ask, limits)
        except (duckdb.ConnectionException, duckdb.InterruptException) as exc:
            raise TablesAway from exc
        finally:
            cursor.close()
        return Answer(table=table, cut=cut, took_ms=round((time.monotonic() - begun) * 1000, 3))

    def _session(self) -> duckdb.DuckDBPyConnection:
        try:
            with self._lock:
                return self._cursor()
        except duckdb.Error as exc:
            # The connection behind it was closed between two looks.
            raise TablesAway from exc

    def cancel(self, id_: str) -> bool:
        """Call a question off; False when none of this id runs."""
        stop = self._running.get(id_)
        if stop is None:
            return False
        stop()
        return True

    def cancel_all(self) -> None:
        """Call off whatever runs, with an id or without."""
        for stop in list(self._running.values()):
            stop()

    def _allowed(self, ask: Ask) -> Limits:
        """The limits of one question: what it asks for, within what may be asked for."""
        rows, seconds = ask.limit, ask.timeout_s
        most_rows, most_seconds = self._limits.most_rows, self._limits.most_seconds
        if rows is not None and not 1 <= rows <= most_rows:
            raise QueryMistake(f"expected a limit from 1 to {most_rows:,} rows, got: {rows:,}")
        if seconds is not None and not 0 < seconds <= most_seconds:
            raise QueryMistake(f"expected a time limit above 0 and up to {most_seconds:g} s, got: {seconds:g} s")
        return msgspec.structs.replace(
            self._limits,
            rows=self._limits.rows if rows is None else rows,
            seconds=self._limits.seconds if seconds is None else seconds,
        )

    def _watched(
        self, cursor: duckdb.DuckDBPyConnection, statement: Statement, ask: Ask, limits: Limits
    ) -> tuple[pa.Table, str]:
        watch = Watch(cursor, limits)
        # Without an id of its own it can still be called off with all others.
        id_ = ask.id or f"#{id(watch)}"
        self._running[id_] = watch.cancel
        try:
            with watch:
                return _read(cursor, statement, ask.parameters, limits)
        except (duckdb.Error, MemoryError, pa.ArrowException) as exc:
            error = watch.error() or translate(
                _cause(exc),
                ask.sql,
                tables=_tables(cursor),
                named=statement.tables,
                memory=f"{limits.memory // _MB} MB",
            )
            raise error from exc
        finally:
            self._running.pop(id_, None)


def fitting(statement: Statement, parameters: Mapping[str, Any] | list[Any]) -> None:
    """See that each parameter has its value, and each value its parameter. Pure.

    Raises:
        QueryMistake: one has not.
    """
    given = {str(place) for place in range(1, len(parameters) + 1)} if isinstance(parameters, list) else set(parameters)
    missing, idle = sorted(statement.parameters - given), sorted(given - statement.parameters)
    if missing:
        raise QueryMistake(f"expected a value for each parameter of the statement, got none for: {', '.join(missing)}")
    if idle:
        known = errors.did_you_mean(idle[0], statement.parameters)
        raise QueryMistake(f"expected only the statement's own parameters, got also: {', '.join(idle)}{known}")


class Watch:
    """Stops a statement whose time is over, that lets the process grow too much, or that is called off."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, limits: Limits) -> None:
        self._cursor = cursor
        self._limits = limits
        self._over = threading.Event()
        self._cancelled = threading.Event()
        self._why: Callable[[], Exception] | None = None
        self._thread = threading.Thread(target=self._run, name="query-watch", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def cancel(self) -> None:
        """Stop it because somebody wants so."""
        self._cancelled.set()

    def error(self) -> Exception | None:
        """Why it was stopped; None when it was not."""
        return self._why() if self._why is not None else None

    def _run(self) -> None:
        until = time.monotonic() + self._limits.seconds
        base = resident()
        while not self._over.wait(_LOOK_S):
            if self._why is None:
                self._why = self._look(until, base)
            if self._why is not None:
                # Again at each look: an interrupt before the statement has begun is lost.
                self._cursor.interrupt()

    def _look(self, until: float, base: int) -> Callable[[], Exception] | None:
        limits = self._limits
        if self._cancelled.is_set():
            return lambda: QueryCancelled("the statement was called off before it had its answer")
        if time.monotonic() >= until:
            return lambda: QueryTooLong(
                f"expected an answer within {limits.seconds:g} s, got none: the statement was stopped; "
                "select fewer rows, or give it more time (--timeout, timeout_s)"
            )
        if resident() - base > limits.growth:
            return lambda: too_large(f"{limits.growth // _MB} MB")
        return None


def resident() -> int:
    """Bytes of memory that this process has; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return 0


def _read(
    cursor: duckdb.DuckDBPyConnection, statement: Statement, parameters: Mapping[str, Any] | list[Any], limits: Limits
) -> tuple[pa.Table, str]:
    cursor.execute("BEGIN TRANSACTION READ ONLY")
    # A relation and not `execute`, which gathers the whole result before it gives the first row.
    relation = cursor.sql(statement.sql, params=parameters) if parameters else cursor.sql(statement.sql)
    with relation.to_arrow_reader(_BATCH) as reader:
        batches: list[pa.RecordBatch] = []
        rows = size = 0
        cut = ""
        for batch in reader:
            take = min(batch.num_rows, limits.rows - rows)
            if size + batch.nbytes > limits.size:
                take = min(take, int(batch.num_rows * (limits.size - size) / batch.nbytes))
                cut = "size"
            if take < batch.num_rows:
                cut = cut or "rows"
                batches.append(batch.slice(0, take))
                break
            batches.append(batch)
            rows += batch.num_rows
            size += batch.nbytes
        return pa.Table.from_batches(batches, reader.schema), cut


def _cause(exc: BaseException) -> BaseException:
    """The error itself: Arrow tells DuckDB's as one of its own, in the same words."""
    if isinstance(exc, duckdb.Error | MemoryError):
        return exc
    text = str(exc)
    if "INTERRUPT" in text:
        return duckdb.InterruptException(text)
    return duckdb.OutOfMemoryException(text) if "Out of Memory" in text or "allocat" in text else duckdb.Error(text)


def _tables(cursor: duckdb.DuckDBPyConnection) -> dict[str, list[str]]:
    """Every table and view that can be named without a schema, with its columns."""
    with suppress(duckdb.Error):
        cursor.execute("ROLLBACK")
    found: dict[str, list[str]] = {}
    with suppress(duckdb.Error):
        rows = cursor.execute(
            "SELECT table_name, column_name FROM duckdb_columns() "
            "WHERE database_name = current_database() AND schema_name = 'main' AND NOT internal"
        ).fetchall()
        for table, column in rows:
            found.setdefault(table, []).append(column)
    return found
