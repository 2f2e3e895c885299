"""What people ask the tables from Slack: rows as a message, and what is long as a spreadsheet takes it.

Rows come as JSON, so that the mirror needs neither Arrow nor DuckDB.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from nats import errors as driver

from bus import errors
from bus.errors import BadAsk
from projections.separated import separated
from services.projector import remote
from services.projector.remote import Rows
from services.slack.desk import answer, words
from services.slack.desk import blocks as kit
from services.slack.desk.answer import Answer, File
from services.slack.desk.desk import Desk
from services.slack.desk.permission import Who
from services.slack.desk.words import Said
from services.wording import age

#: Rows of a question that are fetched: a message is for eyes.
_ROWS = 1000
#: Significant digits of a number in a message; a file has all of them.
_DIGITS = 6
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(\.\d{1,3})?\d*Z")


async def query(desk: Desk, said: Said, _who: Who) -> Answer:
    """A named query, or all of them."""
    pairs = [word.partition("=") for word in said.words[1:]]
    for name, equals, _ in pairs:
        if not (name and equals):
            raise BadAsk(f"expected PARAMETER=VALUE, got: {name!r}; {words.usage(said.spec)}")
    given = {name: value for name, _, value in pairs}
    return shown(await rows(desk, name=said.word(0), parameters=given), said.word(0) or "queries")


async def sql(desk: Desk, said: Said, _who: Who) -> Answer:
    """Any statement that reads."""
    return shown(await rows(desk, sql=said.word(0)), "rows")


async def rows(
    desk: Desk, *, sql: str = "", name: str = "", parameters: dict[str, Any] | None = None, limit: int = _ROWS
) -> Rows:
    """The projector's answer.

    Raises:
        BusUnreachable: the projector is away.
        Refused, Silent: it refused, or did not answer.
    """
    nc = desk.bus.connection.nc
    try:
        return await remote.rows(nc, sql=sql, name=name, parameters=parameters, limit=limit)
    except driver.NoRespondersError as exc:
        raise errors.BusUnreachable(
            desk.bus.connection.url, "the projector does not answer", "see `systems status`"
        ) from exc


def shown(found: Rows, name: str) -> Answer:
    """Rows as an answer. Pure."""
    names = [column.name for column in found.columns]
    cells = [[cell(row[column]) for column in names] for row in found.rows]
    title = f"{name}: {len(cells):,} row{'' if len(cells) == 1 else 's'} in {age(found.took_ms / 1000)}"
    right = [column.name for column in found.columns if column.number]
    made = answer.table(title, names, cells, right=right, empty=title, name=name)
    if found.cut:
        more = f"only the first {len(cells):,} rows are here, there are more (limit, or select fewer columns)"
        made = msgspec.structs.replace(made, blocks=[*made.blocks, kit.context(more)])
    if made.file is None:
        return made
    return msgspec.structs.replace(made, file=File(name=f"{name}.csv", title=title, content=as_csv(found)))


def cell(value: Any) -> str:
    """A value for eyes. Pure."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case float():
            return f"{value:.{_DIGITS}g}" if abs(value) < 10**_DIGITS else f"{value:,.2f}"
        case str():
            return _TIME.sub(lambda found: f"{found[1]} {found[2]}{found[3] or ''}", value)
        case dict() | list():
            return msgspec.json.encode(value).decode()
    return str(value)


def as_csv(found: Rows) -> bytes:
    """Rows for a spreadsheet, with every digit. Pure."""
    columns = [column.name for column in found.columns]
    values = (
        ["" if (value := row[name]) is None else value if isinstance(value, str) else _exact(value) for name in columns]
        for row in found.rows
    )
    return separated([columns, *values]).encode()


def _exact(value: Any) -> str:
    return msgspec.json.encode(value).decode()
