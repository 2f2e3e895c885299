"""``projections.status``: how the projector stands, for the panel and for ``nats req projections.status ''``."""

from __future__ import annotations

from importlib.metadata import version

import msgspec
import structlog
from nats.micro import add_service
from nats.micro.request import Request
from nats.micro.service import EndpointConfig, Service, ServiceConfig

from bus import errors
from projections.projector import Projector
from projections.standing import SUBJECT
from services.daemon import Bus

log = structlog.get_logger()


async def serve(bus: Bus, projector: Projector) -> Service:
    """Begin to answer: the service, to be stopped."""

    async def status(request: Request) -> None:
        try:
            answer = msgspec.json.encode(await projector.status())
        except errors.BusError as exc:
            log.warning("status_untold", error=str(exc))
            await request.respond_error("503", str(exc).splitlines()[0][:500])
        else:
            await request.respond(answer)

    config = ServiceConfig(
        name="projector", version=version("systems"), description="How far the tables are behind the streams"
    )
    service = await add_service(bus.connection.nc, config)
    await service.add_endpoint(EndpointConfig(name="status", subject=SUBJECT, handler=status))
    return service
