"""Asking the tables: the projector over NATS, or the published file when it is away, and never silently.

The projector answers out of its own tables, a moment behind the log. When it does not answer, or no server does, the last
published ``fleet.duckdb`` of the home is asked instead, and its age is told on stderr. Ctrl-C calls a running statement off.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import msgspec
from nats import errors as driver
from nats.aio.client import Client

from bus import errors
from projections import formats, named
from projections.formats import Format
from projections.past import Past, past
from projections.query import Answer, Ask, Limits, Queries
from services.cli import moment, output
from services.cli.common import Tabular, Where
from services.cli.exits import CommandFailed, Exit, UsageError, status_of_kind
from services.cli.session import operator
from services.home import Home, resolve
from services.projector import answers
from services.projector.asking import Asked, projector
from services.projector.remote import Refused
from services.story import first_line

#: A process of one's own may take longer, and more: nobody else waits for it.
_LIMITS = Limits(most_seconds=3600.0, memory=1 << 30, growth=8 << 30)


async def answer(where: Where, asked: Asked, at: str = "") -> Answer:
    """The answer, from whoever can give it.

    Args:
        where: which fleet.
        asked: what.
        at: a moment of the past, as a person writes it; empty for now.

    Raises:
        CommandFailed: it was refused, or nobody can tell.
        QueryError, UnknownName: it was refused here.
        UsageError: `at` is no moment, or one that lies ahead.
    """
    home = resolve(where.home, os.environ)
    if at:
        with looking_back(asked.file or home.tables, moment.parse(at, datetime.now(UTC))) as then:
            return local(Queries(then.connection.cursor, _LIMITS), asked, home)
    if asked.file is not None:
        with opened(asked.file) as queries:
            return local(queries, asked, home)
    try:
        async with operator(where) as session:
            return await remote(session.bus.connection.nc, asked)
    except (errors.BusUnreachable, driver.NoRespondersError) as exc:
        away = isinstance(exc, driver.NoRespondersError)
        why = "the projector does not answer" if away else "no NATS server answers"
        if not asked.sql and not asked.name:
            output.note(f"systems: {why}; these are the queries of this installation and of {home.path}")
            return answers.listed(named.load([named.FOLDER, *home.query_folders]))
        file = home.tables
        # Another server's tables are not this home's.
        if where.server is not None or where.context is not None or not file.exists():
            raise CommandFailed(
                f"expected the projector to answer, got: {why}, and there is no {file} to ask instead; see `systems status`",
                Exit.UNREACHABLE,
                "BusUnreachable",
            ) from exc
        with opened(file) as queries:
            output.note(f"systems: {why}; this is from {file}, {published(queries)}")
            return local(queries, asked, home)


async def remote(nc: Client, asked: Asked) -> Answer:
    """The projector's answer; what it refuses ends the command as it would end it here.

    Raises:
        CommandFailed: it refused.
        nats.errors.NoRespondersError, Silent: it is not there, or did not answer in time.
    """
    try:
        return await projector(nc, asked)
    except Refused as exc:
        raise CommandFailed(exc.no.reason, status_of_kind(exc.no.refused), exc.no.refused) from exc


@contextmanager
def looking_back(file: Path, at: datetime) -> Iterator[Past]:
    """The tables as they were at a moment, and on stderr from where and of when.

    Raises:
        NoSuchPast: nothing is known of it.
    """
    with past(file, at) as then:
        late = f"; the file ends {then.ends:%Y-%m-%d %H:%M:%S} UTC" if then.ends < then.at else ""
        whole = f"; all of it was folded: {then.whole}" if then.whole else ""
        output.note(f"systems: as of {then.at:%Y-%m-%d %H:%M:%S} UTC, folded from {file}{late}{whole}")
        yield then


@contextmanager
def opened(file: Path) -> Iterator[Queries]:
    """A database file, opened read-only.

    Raises:
        UsageError: it is no database that can be opened.
    """
    if not file.exists():
        raise UsageError(f"expected a DuckDB file to ask, got: {file}, which is not there")
    try:
        connection = duckdb.connect(str(file), read_only=True)
    except duckdb.Error as exc:
        raise UsageError(f"expected a DuckDB file that can be opened, got: {file} ({first_line(str(exc))})") from exc
    try:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET python_enable_replacements = false")
        yield Queries(connection.cursor, _LIMITS)
    finally:
        connection.close()


def local(queries: Queries, asked: Asked, home: Home) -> Answer:
    """The answer of a file that is open."""
    ask = Ask(sql=asked.sql, parameters=asked.parameters, limit=asked.limit, timeout_s=asked.timeout_s)
    if asked.sql:
        return queries.run(ask)
    known = named.load([named.FOLDER, *home.query_folders])
    if not asked.name:
        return answers.listed(known)
    return queries.run_named(named.find(known, asked.name), asked.parameters, ask)


def published(queries: Queries) -> str:
    """How old a published file is, in words."""
    row = queries.run(Ask(sql="SELECT max(published_at) FROM snapshot")).table.column(0).to_pylist()[0]
    if row is None:
        return "which does not say when it was published"
    age = (datetime.now(UTC).replace(tzinfo=None) - row).total_seconds()
    return f"published {output.age(max(0.0, age))} ago ({row:%Y-%m-%d %H:%M:%S} UTC)"


def show(found: Answer, printed: Tabular) -> None:
    """Print an answer, and on stderr that some of it is missing."""
    format_ = Format(printed.output)
    if format_ is Format.TABLE and output.is_terminal(sys.stdout) and found.table.column_names != formats.PLAN:
        names = formats.unique(found.table.column_names)
        right = [names[place] for place in formats.numeric(found.table)]
        output.table(names, [[formats.cell(value) for value in row] for row in formats.rows(found.table)], right=right)
    else:
        whole = msgspec.structs.replace(found, cut="") if format_ is Format.TABLE else found
        sys.stdout.flush()
        sys.stdout.buffer.write(formats.encode(whole, format_))
        sys.stdout.buffer.write(b"\n" if format_ is Format.JSON else b"")
        sys.stdout.buffer.flush()
    if found.cut:
        output.note(f"systems: {formats.cut(found)}")
