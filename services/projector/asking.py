"""Asking the projector for rows as Arrow: what the command line does for a person."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
from nats.aio.client import Client

from projections.formats import Format
from projections.query import Answer
from services.projector import remote, subjects


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
    """The projector's answer.

    Raises:
        nats.errors.NoRespondersError: it is not there.
        Refused, Silent: it refused, or did not answer.
    """
    body = {
        "sql": asked.sql,
        "parameters": asked.parameters,
        "limit": asked.limit,
        "timeout_s": asked.timeout_s,
        "format": Format.ARROW,
    }
    data, headers = await remote.ask(nc, body, name=asked.name, seconds=asked.timeout_s)
    with pa.ipc.open_stream(io.BytesIO(data)) as stream:
        table = stream.read_all()
    return Answer(table=table, cut=headers.get(subjects.CUT, ""), took_ms=float(headers.get(subjects.TOOK, "0")))
