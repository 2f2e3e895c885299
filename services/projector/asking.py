"""Asking the projector over NATS, the whole answer in parts: what the command line and Slack do for a person."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
from nats import errors as driver
from nats.aio.client import Client
from nats.aio.msg import Msg

from bus import errors
from bus.ids import new_id
from projections.formats import Format
from projections.query import Answer
from services.micro import No
from services.projector import subjects
from services.projector.answers import Question

#: Seconds that a statement may take unless the command says otherwise; the projector's own default.
_STATEMENT_S = 10.0
#: Seconds beyond a statement's own limit after which nobody answers any more.
_GRACE_S = 5.0
#: Seconds that the projector may be away before the published file is asked: a restart takes about one.
AWAY_S = 2.0
#: Refusals of a projector that opens its tables just now.
_AWAY = frozenset({"TablesAway", "PrimaryInvalidated"})


class Refused(errors.BusError):
    """The projector said no."""

    def __init__(self, no: No) -> None:
        self.no = no
        super().__init__(no.reason)


class Silent(errors.BusError):
    """The projector did not answer in time."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a person asks."""

    #: SQL, or the name of a query, or neither for the list of queries.
    sql: str = ""
    name: str = ""
    parameters: dict[str, Any] = {}
    limit: int | None = None
    timeout_s: float | None = None
    #: A database file to ask, instead of the projector.
    file: Path | None = None


async def projector(nc: Client, asked: Asked) -> Answer:
    """Ask the projector; one that opens its tables just now is asked again, and one that is restarted is waited for."""
    until = asyncio.get_running_loop().time() + AWAY_S
    while True:
        try:
            return await _remote(nc, asked)
        except (driver.NoRespondersError, Refused) as exc:
            away = isinstance(exc, driver.NoRespondersError) or exc.no.refused in _AWAY
            if not away or asyncio.get_running_loop().time() >= until:
                raise
        await asyncio.sleep(0.1)


async def _remote(nc: Client, asked: Asked) -> Answer:
    """Ask the projector.

    Raises:
        nats.errors.NoRespondersError: it is not there.
        Refused, Silent: it refused, or did not answer.
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
        raise Silent(
            f"expected an answer of the projector within {wait:g} s, got none; it may be busy: see `systems status`"
        ) from exc
    finally:
        await replies.unsubscribe()
    with pa.ipc.open_stream(io.BytesIO(data)) as stream:
        table = stream.read_all()
    return Answer(table=table, cut=headers.get(subjects.CUT, ""), took_ms=float(headers.get(subjects.TOOK, "0")))


def _accepted(message: Msg) -> dict[str, str]:
    """The headers of a part of an answer.

    Raises:
        NoRespondersError, Refused: it is none.
    """
    headers = message.headers or {}
    if headers.get("Status") == "503" and not message.data:
        raise driver.NoRespondersError
    if "Nats-Service-Error-Code" in headers:
        no = msgspec.json.decode(message.data, type=No)
        raise Refused(no)
    return headers
