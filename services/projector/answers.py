"""The ``projections`` micro service: SQL over NATS, answered by the projector from its own tables.

``nats req projections.sql 'SELECT count(*) FROM events'`` takes plain SQL and answers with a table of text; a JSON body
(:class:`Question`) adds parameters, limits and a format. ``projections.query.NAME`` runs a named query, ``projections.tables``
and ``projections.queries`` list what there is, ``projections.cancel.ID`` calls a question off.

An answer is one message, cut to what a message may hold, with what was cut told in it and in its headers; with
``"parts": true`` all of it comes as several messages, each with the header ``Systems-Part: 2/7``. Four statements run at the
same time, others wait. What is not promised: that somebody still listens when the answer is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
from nats.micro.request import Request

from bus import errors
from projections import formats, named
from projections.faults import PrimaryInvalidated, PrimaryUnready
from projections.formats import Format
from projections.mistakes import TablesAway
from projections.projector import Projector
from projections.query import Answer, Ask, Queries
from services.daemon import Bus
from services.micro import Handler, Micro, Reply
from services.projector.subjects import (
    CANCEL,
    CUT,
    FORMAT,
    LAG_EVENTS,
    LAG_SECONDS,
    PART,
    QUERIES,
    QUERY,
    ROWS,
    SQL,
    TABLES,
    TOOK,
)

#: Statements that run at the same time.
_THREADS = 4
#: Requests that are looked at at the same time; most wait for a statement.
_AT_ONCE = 64
#: Bytes that the protocol needs around a payload.
_HEADROOM = 4096
#: Bytes of one part of an answer.
_PART = 512 * 1024


class BadQuestion(errors.BusError):
    """A body that is no question."""


class Question(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked, as JSON."""

    #: Of ``projections.sql`` alone: a named query has its own.
    sql: str = ""
    #: By name for ``$name``, as a list for ``?``.
    parameters: dict[str, Any] | list[Any] = {}
    #: Rows; None for 10,000.
    limit: int | None = None
    #: Seconds; None for 10.
    timeout_s: float | None = None
    format: Format | None = None
    #: By which it can be called off.
    id: str = ""
    #: The whole answer, in several messages if it takes them.
    parts: bool = False


class Lag(msgspec.Struct, frozen=True):
    """How far the tables are behind the streams."""

    events: int
    seconds: float


class Answers:
    """Answers questions until it is closed."""

    def __init__(
        self,
        bus: Bus,
        queries: Queries,
        folders: tuple[Path, ...] = (),
        lag: Callable[[], Awaitable[Lag]] | None = None,
    ) -> None:
        """Nothing is answered yet.

        Args:
            bus: where questions come from.
            queries: who runs them.
            folders: with named queries beside those of the product; read at each question.
            lag: how far behind the tables are.
        """
        self._bus = bus
        self._queries = queries
        self._folders = (named.FOLDER, *folders)
        self._lag = lag
        self._micro = Micro(bus, at_once=_AT_ONCE, later=(TablesAway, PrimaryInvalidated, PrimaryUnready))
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="query")

    async def open(self) -> None:
        """Begin to answer."""
        endpoints: dict[str, tuple[str, Handler]] = {
            "sql": (SQL, self._sql),
            "query": (f"{QUERY}.*", self._query),
            "queries": (QUERIES, self._list),
            "tables": (TABLES, self._tables),
            "cancel": (f"{CANCEL}.*", self._cancel),
        }
        await self._micro.serve("projections", "Ask the tables anything: projections.sql", endpoints)

    async def close(self) -> None:
        """Answer no more; what runs is called off."""
        self._queries.cancel_all()
        await self._micro.close()
        self._threads.shutdown(wait=True, cancel_futures=True)

    async def _sql(self, request: Request) -> Reply:
        question = read(request)
        return await self._answer(request, question, lambda: self._queries.run(_ask(question, question.sql)))

    async def _query(self, request: Request) -> Reply:
        question = read(request, plain=False)
        name = request.subject.removeprefix(f"{QUERY}.")

        def run() -> Answer:
            query = named.find(named.load(self._folders), name)
            given = question.parameters
            if isinstance(given, list):
                raise BadQuestion(f"expected parameters of {name} by name, got a list")
            return self._queries.run_named(query, given, _ask(question, query.sql))

        return await self._answer(request, question, run)

    async def _list(self, request: Request) -> Reply:
        question = read(request, plain=False)
        return await self._answer(request, question, lambda: listed(named.load(self._folders)))

    async def _tables(self, request: Request) -> Reply:
        question = read(request, plain=False)
        query = named.find(named.load([named.FOLDER]), "tables")
        return await self._answer(
            request, question, lambda: self._queries.run_named(query, {}, _ask(question, query.sql))
        )

    async def _cancel(self, request: Request) -> bytes:
        id_ = request.subject.removeprefix(f"{CANCEL}.")
        return msgspec.json.encode({"id": id_, "cancelled": self._queries.cancel(id_)})

    async def _answer(self, request: Request, question: Question, run: Callable[[], Answer]) -> Reply:
        format_ = question.format or Format.JSON
        most = self._bus.connection.nc.max_payload - _HEADROOM

        def work() -> tuple[bytes, Answer]:
            answer = run()
            if question.parts:
                return formats.encode(answer, format_), answer
            return formats.fitting(answer, format_, most)

        data, answer = await asyncio.get_running_loop().run_in_executor(self._threads, work)
        headers = {ROWS: str(answer.table.num_rows), CUT: answer.cut, TOOK: f"{answer.took_ms:g}"}
        if self._lag is not None:
            lag = await self._lag()
            headers |= {LAG_EVENTS: str(lag.events), LAG_SECONDS: f"{lag.seconds:.3f}"}
        if not question.parts:
            return Reply(data, headers)
        return await _in_parts(data, headers, min(_PART, most), request.respond)


def lag_of(projector: Projector) -> Callable[[], Awaitable[Lag]]:
    """How to ask a projector how far behind its tables are."""

    async def lag() -> Lag:
        status = await projector.status()
        return Lag(status.behind, status.seconds)

    return lag


def _ask(question: Question, sql: str) -> Ask:
    return Ask(
        sql=sql, parameters=question.parameters, limit=question.limit, timeout_s=question.timeout_s, id=question.id
    )


async def _in_parts(
    data: bytes, headers: dict[str, str], size: int, send: Callable[[bytes, dict[str, str]], Awaitable[None]]
) -> Reply:
    """Send all parts but the last, which is the reply."""
    parts = [data[start : start + size] for start in range(0, len(data), size)] or [b""]
    for number, part in enumerate(parts[:-1], 1):
        await send(part, {PART: f"{number}/{len(parts)}"})
    return Reply(parts[-1], headers | {PART: f"{len(parts)}/{len(parts)}"})


def read(request: Request, *, plain: bool = True) -> Question:
    """The question of a request.

    Args:
        request: whose body is SQL, or JSON, or empty.
        plain: whether plain SQL is taken.

    Raises:
        BadQuestion: it is neither.
    """
    body = request.data.strip()
    asked = (request.headers or {}).get(FORMAT, "")
    if not body.startswith(b"{"):
        if body and not plain:
            raise BadQuestion(
                f'expected nothing, or JSON like {{"parameters": {{"since": "1h"}}}}, got: {_shown(body)}'
            )
        try:
            return Question(sql=body.decode(), format=_format(asked) or Format.TABLE)
        except UnicodeDecodeError as exc:
            raise BadQuestion(f"expected SQL as UTF-8, got: {_shown(body)}") from exc
    try:
        question = msgspec.json.decode(body, type=Question)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        known = ", ".join(Question.__struct_fields__)
        raise BadQuestion(f"expected JSON with some of {known}, got: {_shown(body)} ({exc})") from exc
    return question if question.format or not asked else msgspec.structs.replace(question, format=_format(asked))


def _format(text: str) -> Format | None:
    if not text:
        return None
    try:
        return Format(text)
    except ValueError as exc:
        raise errors.UnknownName("format", text, [format_.value for format_ in Format]) from exc


def _shown(body: bytes) -> str:
    return repr(body[:80].decode(errors="replace"))


def listed(queries: dict[str, named.Named]) -> Answer:
    """Named queries as an answer."""
    columns = {
        "name": [query.name for query in queries.values()],
        "what": [query.line for query in queries.values()],
        "parameters": [
            " ".join(named.usage(parameter) for parameter in query.parameters) for query in queries.values()
        ],
    }
    return Answer(table=pa.table(columns))
