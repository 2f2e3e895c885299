"""The tables as they were: the log up to a moment, folded by the same statements as the present one.

What was published is opened read-only beside a database in memory; the rows of its log that the server had stored by then
are folded anew. So a past panel and a past query come from the same code as today's, and need no running fleet. ``now()`` in
a statement is that moment. It takes as long as a rebuild of that much history, and room in the memory for its tables; the log
itself is read where it lies.
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
from projections import fold
from projections.quoting import quoted

#: Name of the published file's catalog beside the past tables.
_PUBLISHED = "published"
#: The whole log in it: what is still hot, and the files of the archive.
_LOG = f"{_PUBLISHED}.hot.all_log"


class NoSuchPast(errors.BusError):
    """A moment of which the published tables know nothing."""


class Past(msgspec.Struct, frozen=True):
    """Tables as they were at a moment; their connection is closed with them."""

    at: datetime
    connection: duckdb.DuckDBPyConnection
    #: When the first event of all was stored.
    begins: datetime
    #: When the last one was stored that the published file holds.
    ends: datetime


@contextmanager
def past(file: Path, at: datetime) -> Iterator[Past]:
    """The tables of a published file as they were at a moment.

    Raises:
        NoSuchPast: the file is not there or cannot be opened, or its history begins later.
    """
    if not file.exists():
        raise NoSuchPast(
            f"expected published tables to look back in, got none: {file} is not there; the projector makes it, or name one with --file"
        )
    with TemporaryDirectory(prefix="systems-past-") as spill:
        connection = duckdb.connect(config={"temp_directory": spill, "python_enable_replacements": False})
        try:
            connection.execute("SET TimeZone = 'UTC'")
            yield _folded(connection, file, at)
        finally:
            connection.close()


def _folded(connection: duckdb.DuckDBPyConnection, file: Path, at: datetime) -> Past:
    try:
        connection.execute(f"ATTACH {quoted(file.absolute())} AS {_PUBLISHED} (READ_ONLY)")
        span = connection.execute(f"SELECT min(stored_at), max(stored_at) FROM {_LOG}").fetchone()  # noqa: S608
    except duckdb.Error as exc:
        raise NoSuchPast(f"expected {file} to hold published tables, got: {str(exc).splitlines()[0]}") from exc
    begins, ends = span or (None, None)
    if begins is None or _utc(begins) > at:
        since = f"{begins:%Y-%m-%d %H:%M:%S} UTC" if begins is not None else "nowhere: it is empty"
        raise NoSuchPast(f"expected a moment within the history, which begins {since}, got: {at:%Y-%m-%d %H:%M:%S} UTC")
    moment = at.astimezone(UTC).replace(tzinfo=None).isoformat(sep=" ")
    fold.create(connection)
    # The log is not copied: the past one is a look at the published one.
    connection.execute("DROP TABLE hot.log")
    connection.execute(f"CREATE VIEW hot.log AS SELECT * FROM {_LOG} WHERE stored_at <= TIMESTAMP '{moment}'")  # noqa: S608
    connection.execute("CREATE TEMP VIEW batch AS FROM hot.log")
    fold.apply(connection)
    connection.execute("DROP VIEW batch")
    connection.execute(f"CREATE OR REPLACE MACRO moment() AS TIMESTAMP '{moment}'")
    connection.execute(f"CREATE MACRO now() AS TIMESTAMPTZ '{moment}+00'")
    return Past(at, connection, _utc(begins), _utc(ends))


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC)
