"""A question to the projector as bytes over NATS, whatever the format: in parts, waited for, called off when nobody waits.

Knows neither Arrow nor DuckDB, which cost a daemon 60 MB: who wants rows as Arrow asks :mod:`services.projector.asking`.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

import msgspec
from nats import errors as driver
from nats.aio.client import Client
from nats.aio.msg import Msg

from bus import errors
from bus.ids import new_id
from services.micro import No
from services.projector import subjects

#: Seconds that a statement may take unless the command says otherwise; the projector's own default.
STATEMENT_S = 10.0
#: Seconds beyond a statement's own limit after which nobody answers any more.
_GRACE_S = 5.0
#: Seconds that the projector may be away before who asks gives up: a restart takes about one.
AWAY_S = 2.0
#: Refusals of a projector that opens its tables just now.
_AWAY = frozenset({"TablesAway", "PrimaryInvalidated", "PrimaryUnready"})


_NAME = re.compile(r"[A-Za-z0-9_-]+")


class Refused(errors.BusError):
    """The projector said no."""

    def __init__(self, no: No) -> None:
        self.no = no
        super().__init__(no.reason)


class Silent(errors.BusError):
    """The projector did not answer in time."""


class Column(msgspec.Struct, frozen=True):
    """A column of an answer: its type is Arrow's word for it."""

    name: str
    type: str

    @property
    def number(self) -> bool:
        """It holds numbers."""
        return self.type.startswith(("int", "uint", "float", "double", "decimal"))


class Rows(msgspec.Struct, frozen=True):
    """An answer as JSON has it: times are texts in RFC 3339."""

    columns: list[Column]
    rows: list[dict[str, Any]]
    cut: str = ""
    took_ms: float = 0.0


async def rows(
    nc: Client, *, sql: str = "", name: str = "", parameters: dict[str, Any] | None = None, limit: int | None = None
) -> Rows:
    """Rows of SQL or of a named query; of neither, the list of queries.

    Raises:
        nats.errors.NoRespondersError: the projector is not there.
        Refused, Silent: it refused, or did not answer.
    """
    body = {"sql": sql, "parameters": parameters or {}, "limit": limit, "format": "json"}
    data, _ = await ask(nc, body, name=name)
    return msgspec.json.decode(data, type=Rows)


async def ask(
    nc: Client, body: dict[str, Any], *, name: str = "", seconds: float | None = None
) -> tuple[bytes, dict[str, str]]:
    """The whole answer and its headers; a projector that opens its tables just now is asked again, and one that restarts is waited for.

    Args:
        nc: over which connection.
        body: the question's fields; its id and that it is answered in parts are added.
        name: of a named query.
        seconds: that the statement may take; None for the projector's own limit.

    Raises:
        nats.errors.NoRespondersError: it is not there.
        Refused, Silent: it refused, or did not answer.
    """
    until = asyncio.get_running_loop().time() + AWAY_S
    while True:
        try:
            return await _once(nc, body, name, seconds or STATEMENT_S)
        except (driver.NoRespondersError, Refused) as exc:
            away = isinstance(exc, driver.NoRespondersError) or exc.no.refused in _AWAY
            if not away or asyncio.get_running_loop().time() >= until:
                raise
        await asyncio.sleep(0.1)


async def _once(nc: Client, body: dict[str, Any], name: str, seconds: float) -> tuple[bytes, dict[str, str]]:
    if name and not _NAME.fullmatch(name):
        raise errors.UnknownName("query", name, ())  # a subject has no room for it
    id_ = new_id()
    subject = subjects.SQL if body.get("sql") else f"{subjects.QUERY}.{name}" if name else subjects.QUERIES
    inbox = nc.new_inbox()
    replies = await nc.subscribe(inbox)
    wait = seconds + _GRACE_S
    try:
        await nc.publish(subject, msgspec.json.encode(body | {"id": id_, "parts": True}), reply=inbox)
        data, headers = bytearray(), {}
        while True:
            message = await replies.next_msg(timeout=wait)
            headers = _accepted(message)
            data += message.data
            number, _, count = headers.get(subjects.PART, "1/1").partition("/")
            if number == count:
                return bytes(data), headers
    except asyncio.CancelledError:
        # Ctrl-C: nobody waits for it any more.
        await nc.publish(f"{subjects.CANCEL}.{id_}", b"")
        await nc.flush(1)
        raise
    except driver.TimeoutError as exc:
        raise Silent(
            f"expected an answer of the projector within {wait:g} s, got none; it may be busy: see `systems status`"
        ) from exc
    finally:
        await replies.unsubscribe()


def _accepted(message: Msg) -> dict[str, str]:
    """The headers of a part of an answer.

    Raises:
        NoRespondersError, Refused: it is none.
    """
    headers = message.headers or {}
    if headers.get("Status") == "503" and not message.data:
        raise driver.NoRespondersError
    if "Nats-Service-Error-Code" in headers:
        raise Refused(msgspec.json.decode(message.data, type=No))
    return headers
