"""The tables as they were: what has changed since a moment is folded anew, by the same statements; all else is taken over.

What was published is opened read-only beside a database in memory. An invocation that got no event since the moment is now as it
was then, so its rows are read where they lie, through views. The others that had begun by then are folded anew from the rows
of the log that the server had stored, as are the moment's own hour of the spend, and all tables of the rest, which are
made of few events. So a look back costs what was under way at the moment, and a look through a few columns of the rest; past panels
and queries come from the same code as today's, and need no running fleet. ``now()`` in a statement is that moment.

Tables that another version made, or whose cold files are gone, are not taken over: the log is folded whole, which takes as
long as a rebuild. What does not fit into the memory that it may have goes to a folder of its own below ``TMPDIR``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import msgspec

from bus import errors
from bus.store import INVOCATIONS
from projections import fold
from projections.database import VERSION
from projections.quoting import quoted

#: Name of the published file's catalog beside the past tables.
_PUBLISHED = "published"
#: The whole log in it: what is still hot, and the files of the archive.
_LOG = f"{_PUBLISHED}.hot.all_log"
#: Rows of the log that are folded at a time.
_PART = 250_000
#: What the fold of invocations does not read.
_UNREAD = "raw, subject, problem, id, type, time, source, causation_id, version"
#: Of a row `c` of what was published: its invocation is folded anew.
_WENT_ON = "EXISTS (FROM hot.went_on AS w WHERE w.id = c.id AND w.role = c.role AND w.project = c.project)"


class NoSuchPast(errors.BusError):
    """A moment of which the published tables know nothing."""


class PastTooLarge(errors.BusError):
    """A look back that needs more memory and disk than it may have."""


class Room(msgspec.Struct, frozen=True):
    """What a look back, and the questions that it answers, may use."""

    #: Megabytes of DuckDB's memory.
    memory_mb: int = 1024
    #: Megabytes of disk for what does not fit.
    spill_mb: int = 16_384


class Past(msgspec.Struct, frozen=True):
    """Tables as they were at a moment; their connection is closed with them."""

    at: datetime
    connection: duckdb.DuckDBPyConnection
    #: When the first event of all was stored.
    begins: datetime
    #: When the last one was stored that the published file holds.
    ends: datetime
    #: Why the whole log was folded; empty: what had not changed since was taken over.
    whole: str = ""


@contextmanager
def past(file: Path, at: datetime, room: Room = Room()) -> Iterator[Past]:  # noqa: B008 (frozen)
    """The tables of a published file as they were at a moment.

    Args:
        file: the published one; those that it names are where they were.
        at: the moment.
        room: what may be used.

    Raises:
        NoSuchPast: the file is not there or cannot be opened, or its history begins later.
        PastTooLarge: it does not fit into what a look back may use.
    """
    if not file.exists():
        raise NoSuchPast(
            f"expected published tables to look back in, got none: {file} is not there; the projector makes it, or name one with --file"
        )
    with TemporaryDirectory(prefix="systems-past-") as spill:
        connection = duckdb.connect(
            config={
                "memory_limit": f"{room.memory_mb}MB",
                "temp_directory": spill,
                "max_temp_directory_size": f"{room.spill_mb}MB",
                "preserve_insertion_order": False,
                "python_enable_replacements": False,
            }
        )
        try:
            connection.execute("SET TimeZone = 'UTC'")
            yield _folded(connection, file, at, room)
        finally:
            connection.close()


def _folded(connection: duckdb.DuckDBPyConnection, file: Path, at: datetime, room: Room) -> Past:
    begins, ends = _opened(connection, file, at)
    moment = f"TIMESTAMP '{at.astimezone(UTC).replace(tzinfo=None).isoformat(sep=' ')}'"
    try:
        whole = _look_back(connection, moment)
    except duckdb.OutOfMemoryException as exc:
        raise PastTooLarge(
            f"expected the tables of {at:%Y-%m-%d %H:%M:%S} UTC to fit into {room.memory_mb:,} MB of memory and {room.spill_mb:,} MB of disk, "
            f"got: {str(exc).splitlines()[0]}; name a folder with more room in TMPDIR, or a moment with less under way"
        ) from exc
    connection.execute(f"CREATE OR REPLACE MACRO moment() AS {moment}")
    connection.execute(f"CREATE MACRO now() AS make_timestamptz(epoch_us({moment}))")
    return Past(at, connection, begins, ends, whole)


def _opened(connection: duckdb.DuckDBPyConnection, file: Path, at: datetime) -> tuple[datetime, datetime]:
    """Have the published file beside the tables: when its log begins and ends."""
    try:
        connection.execute(f"ATTACH {quoted(file.absolute())} AS {_PUBLISHED} (READ_ONLY)")
        span = connection.execute(f"SELECT min(stored_at), max(stored_at) FROM {_LOG}").fetchone()  # noqa: S608
    except duckdb.Error as exc:
        raise NoSuchPast(f"expected {file} to hold published tables, got: {str(exc).splitlines()[0]}") from exc
    begins, ends = span or (None, None)
    if begins is None or _utc(begins) > at:
        since = f"{begins:%Y-%m-%d %H:%M:%S} UTC" if begins is not None else "nowhere: it is empty"
        raise NoSuchPast(f"expected a moment within the history, which begins {since}, got: {at:%Y-%m-%d %H:%M:%S} UTC")
    return _utc(begins), _utc(ends)


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC)


def _look_back(connection: duckdb.DuckDBPyConnection, moment: str) -> str:
    """Make the tables of a moment, which is written as SQL: why nothing was taken over, empty if it was."""
    fold.create(connection)
    # The log is not copied: the past one is a look at the published one.
    connection.execute("DROP TABLE hot.log")
    connection.execute(f"CREATE VIEW hot.log AS SELECT * FROM {_LOG} WHERE stored_at <= {moment}")  # noqa: S608
    hour = f"date_trunc('hour', {moment})"
    why = _unlike(connection)
    if not why:
        last = _last(connection)
        _find(connection, moment, last)
        _fold_invocations(connection)
        _take_over(connection, last)
        connection.execute(f"INSERT INTO spend SELECT * FROM {_PUBLISHED}.spend WHERE hour < {hour}")  # noqa: S608
        _fold(connection, fold.OF_HOURS, f"stored_at >= {hour}")
    else:
        connection.execute("CREATE TEMP TABLE reread AS SELECT seq FROM hot.log WHERE noun = 'invocation'")
        _fold_invocations(connection)
        _fold(connection, fold.OF_HOURS)
    _fold(connection, fold.OF_ALL)
    return why


def _unlike(connection: duckdb.DuckDBPyConnection) -> str:
    """Why the published tables are not what these statements would have made of the log; empty: they are."""
    try:
        made = connection.execute(f"SELECT version FROM {_PUBLISHED}.hot.made").fetchall()  # noqa: S608
        if made != [(VERSION,)]:
            return "another version made its tables"
        for view in ("all_invocations", "all_claims"):
            # Binding it looks for each file behind it.
            connection.execute(f"FROM {_PUBLISHED}.hot.{view} LIMIT 0").fetchall()
    except duckdb.CatalogException:
        return "its tables do not say what made them"
    except duckdb.IOException as exc:
        return f"cold files are gone: {str(exc).splitlines()[0]}"
    return ""


def _last(connection: duckdb.DuckDBPyConnection) -> int:
    """Sequence of the last event of an invocation that was stored by the moment."""
    ((last,),) = connection.execute(
        f"SELECT coalesce(max(seq), 0) FROM hot.log WHERE stream = '{INVOCATIONS}'"  # noqa: S608
    ).fetchall()
    return int(last)


def _find(connection: duckdb.DuckDBPyConnection, moment: str, last: int) -> None:
    """Invocations that had begun and got an event since, as hot.went_on; their events until then, as ``reread``.

    The server's clock may have gone back: an event up to `last` may have been stored after the moment.
    """
    begun = f"SELECT project, role, id, first_seq FROM {_PUBLISHED}.hot.all_invocations"  # noqa: S608
    connection.execute(f"CREATE TABLE hot.went_on AS {begun} WHERE first_seq <= {last} AND last_seq > {last}")
    connection.execute(
        f"""CREATE TEMP TABLE ahead AS SELECT DISTINCT project, role, key AS id
        FROM {_LOG} WHERE noun = 'invocation' AND seq <= {last} AND stored_at > {moment}"""  # noqa: S608
    )
    if connection.execute("SELECT 1 FROM ahead LIMIT 1").fetchone() is not None:
        # Not else: the join would read all ids to find none.
        connection.execute(
            f"INSERT INTO hot.went_on {begun} SEMI JOIN ahead USING (id, role, project) WHERE last_seq <= {last}"
        )
    connection.execute("DROP TABLE temp.ahead")
    connection.execute(
        "COMMENT ON TABLE hot.went_on IS 'Invocations that got events since: folded anew up to the moment'"
    )
    ((first,),) = connection.execute("SELECT coalesce(min(first_seq), 0) FROM hot.went_on").fetchall()
    connection.execute(
        f"""CREATE TEMP TABLE reread AS SELECT seq FROM hot.log
        WHERE noun = 'invocation' AND seq >= {first} AND (key, role, project) IN (SELECT id, role, project FROM hot.went_on)"""  # noqa: S608
    )


def _fold_invocations(connection: duckdb.DuckDBPyConnection) -> None:
    """Fold the events in ``reread`` into the tables of invocations, part by part."""
    parts = connection.execute(
        f"SELECT min(seq), max(seq) FROM (SELECT seq, (row_number() OVER (ORDER BY seq) - 1) // {_PART} AS part FROM reread) "  # noqa: S608
        "GROUP BY part ORDER BY part"
    ).fetchall()
    for first, last in parts:
        # A table: a view would look the rows up anew for each statement of the fold.
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE batch AS SELECT * EXCLUDE ({_UNREAD}) FROM hot.log "  # noqa: S608
            f"WHERE stream = '{INVOCATIONS}' AND seq BETWEEN {first} AND {last} AND seq IN (FROM reread)"
        )
        fold.apply(connection, fold.OF_INVOCATIONS)
    connection.execute("DROP TABLE IF EXISTS temp.batch")
    connection.execute("DROP TABLE temp.reread")


def _take_over(connection: duckdb.DuckDBPyConnection, last: int) -> None:
    """Show the rows of all other invocations that had begun beside those that were folded anew."""
    connection.execute(
        f"INSERT INTO hot.standing SELECT * FROM {_PUBLISHED}.hot.standing AS c WHERE claimed_seq <= {last} AND NOT {_WENT_ON}"  # noqa: S608
    )
    for table, end in (("invocations", "last_seq"), ("claims", "ended_seq")):
        connection.execute(f"ALTER TABLE hot.{table} RENAME TO anew_{table}")
        connection.execute(
            f"CREATE VIEW hot.{table} AS FROM hot.anew_{table} UNION ALL BY NAME "  # noqa: S608
            f"SELECT * FROM {_PUBLISHED}.hot.all_{table} AS c WHERE {end} <= {last} AND NOT {_WENT_ON}"
        )


def _fold(connection: duckdb.DuckDBPyConnection, files: tuple[str, ...], where: str = "true") -> None:
    """Let files of the fold run, each over the rows of the past log that it reads: a view, so they stay where they are."""
    for name in files:
        connection.execute(f"CREATE OR REPLACE TEMP VIEW batch AS FROM hot.log WHERE {fold.reads(name)} AND {where}")
        fold.apply(connection, (name,))
    connection.execute("DROP VIEW temp.batch")
