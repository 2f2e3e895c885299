"""``projections.status``: how the projector stands, for the panel and for ``nats req projections.status ''``."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from nats.micro.request import Request

from bus import errors
from projections.projector import Projector
from projections.standing import SUBJECT
from services.daemon import Bus
from services.micro import Handler, Micro

#: Requests that are looked at at the same time.
_AT_ONCE = 8


async def serve(bus: Bus, projector: Projector, beside: Mapping[str, tuple[str, Handler]]) -> Micro:
    """Begin to answer, also on the endpoints `beside`: the service, to be closed."""

    async def status(_request: Request) -> bytes:
        return msgspec.json.encode(await projector.status())

    # Whatever stands in the way of an answer here ends by itself.
    micro = Micro(bus, at_once=_AT_ONCE, later=(errors.BusError,))
    endpoints = {"status": (SUBJECT, status), **beside}
    await micro.serve("projector", "How far the tables are behind the streams", endpoints)
    return micro
