"""Asking the tables: the projector over NATS, or the published file when it is away, and never silently.

The projector answers out of its own tables, a moment behind the log. When it does not answer, or no server does, the last
published ``fleet.duckdb`` of the home is asked instead, and its age is told on stderr. Ctrl-C calls a running statement off.
"""

from __future__ import annotations

import asyncio
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pyarrow as pa
from nats import errors as driver
from nats.aio.client import Client
from nats.aio.msg import Msg

from bus import errors
from bus.ids import new_id
from projections import formats, named
from projections.formats import Format
from projections.past import Past, past
from projections.query import Answer, Ask, Limits, Queries
from services.cli import moment, output
from services.cli.common import Tabular, Where
from services.cli.exits import CommandFailed, Exit, UsageError, status_of_kind
from services.cli.session import operator
from services.home import Home, resolve
from services.micro import No
from services.projector import answers, subjects
from services.projector.answers import Question
from services.story import first_line

#: Seconds that a statement may take unless the command says otherwise; the projector's own default.
_STATEMENT_S = 10.0
#: Seconds beyond a statement's own limit after which nobody answers any more.
_GRACE_S = 5.0
#: Seconds that the projector may be away before the published file is asked: a restart takes about one.
AWAY_S = 2.0
#: Refusals of a projector that opens its tables just now.
_AWAY = frozenset({"TablesAway", "PrimaryInvalidated"})
#: A process of one's own may take longer, and more: nobody else waits for it.
_LIMITS = Limits(most_seconds=3600.0, memory=1 << 30, growth=8 << 30)


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a command asks."""

    #: SQL, or the name of a query, or neither for the list of queries.
    sql: str = ""
    name: str = ""
    parameters: dict[str, Any] = {}
    limit: int | None = None
    timeout_s: float | None = None
    #: A database file to ask, instead of the projector.
    file: Path | None = None


async def answer(where: Where, asked: Asked, at: str = "") -> Answer:
    """The answer, from whoever can give it.

    Args:
        where: which fleet.
        asked: what.
        at: a moment of the past, as a person writes it; empty for now.

    Raises:
        CommandFailed: it was refused, or nobody can tell.
        QueryError, UnknownName: it was refused here.
    """
    home = resolve(where.home, os.environ)
    if at:
        with looking_back(asked.file or home.tables, at) as then:
            return local(Queries(then.connection.cursor, _LIMITS), asked, home)
    if asked.file is not None:
        with opened(asked.file) as queries:
            return local(queries, asked, home)
    try:
        async with operator(where) as session:
            return await projector(session.bus.connection.nc, asked)
    except (errors.BusUnreachable, driver.NoRespondersError) as exc:
        away = isinstance(exc, driver.NoRespondersError)
        why = "the projector does not answer" if away else "no NATS server answers"
        if not asked.sql and not asked.name:
            output.note(f"systems: {why}; these are the queries of this installation and of {home.path}")
            return answers.listed(named.load([named.FOLDER, home.queries]))
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


@contextmanager
def looking_back(file: Path, text: str) -> Iterator[Past]:
    """The tables as they were, and on stderr from where and of when.

    Raises:
        UsageError: it is no moment, or one that lies ahead.
        NoSuchPast: nothing is known of it.
    """
    with past(file, moment.parse(text, datetime.now(UTC))) as then:
        late = f"; the file ends {then.ends:%Y-%m-%d %H:%M:%S} UTC" if then.ends < then.at else ""
        output.note(f"systems: as of {then.at:%Y-%m-%d %H:%M:%S} UTC, folded from {file}{late}")
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
    known = named.load([named.FOLDER, home.queries])
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


async def projector(nc: Client, asked: Asked) -> Answer:
    """Ask the projector; one that opens its tables just now is asked again, and one that is restarted is waited for."""
    until = asyncio.get_running_loop().time() + AWAY_S
    while True:
        try:
            return await _remote(nc, asked)
        except (driver.NoRespondersError, CommandFailed) as exc:
            away = isinstance(exc, driver.NoRespondersError) or exc.kind in _AWAY
            if not away or asyncio.get_running_loop().time() >= until:
                raise
        await asyncio.sleep(0.1)


async def _remote(nc: Client, asked: Asked) -> Answer:
    """Ask the projector.

    Raises:
        nats.errors.NoRespondersError: it is not there.
        CommandFailed: it refused, or did not answer.
    """
    id_ = new_id()
    question = Question(
        sql=asked.sql,
        parameters=asked.parameters,
        limit=asked.limit,
        timeout_s=asked.timeout_s,
        format=Format.ARROW,
        id=id_,
        parts=True,
    )
    subject = subjects.SQL if asked.sql else f"{subjects.QUERY}.{asked.name}" if asked.name else subjects.QUERIES
    inbox = nc.new_inbox()
    replies = await nc.subscribe(inbox)
    try:
        await nc.publish(subject, msgspec.json.encode(question), reply=inbox)
        wait = (asked.timeout_s or _STATEMENT_S) + _GRACE_S
        data, headers = bytearray(), {}
        while True:
            message = await replies.next_msg(timeout=wait)
            headers = _accepted(message)
            data += message.data
            number, _, count = headers.get(subjects.PART, "1/1").partition("/")
            if number == count:
                break
    except asyncio.CancelledError:
        # Ctrl-C: nobody waits for it any more.
        await nc.publish(f"{subjects.CANCEL}.{id_}", b"")
        await nc.flush(1)
        raise
    except driver.TimeoutError as exc:
        raise CommandFailed(
            f"expected an answer of the projector within {wait:g} s, got none; it may be busy: see `systems status`",
            Exit.LATER,
        ) from exc
    finally:
        await replies.unsubscribe()
    with pa.ipc.open_stream(io.BytesIO(data)) as stream:
        table = stream.read_all()
    return Answer(table=table, cut=headers.get(subjects.CUT, ""), took_ms=float(headers.get(subjects.TOOK, "0")))


def _accepted(message: Msg) -> dict[str, str]:
    """The headers of a part of an answer.

    Raises:
        NoRespondersError, CommandFailed: it is none.
    """
    headers = message.headers or {}
    if headers.get("Status") == "503" and not message.data:
        raise driver.NoRespondersError
    if "Nats-Service-Error-Code" in headers:
        no = msgspec.json.decode(message.data, type=No)
        raise CommandFailed(no.reason, status_of_kind(no.refused), no.refused)
    return headers


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
