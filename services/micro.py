"""Micro services over NATS (ADR-32): endpoints that answer side by side, refuse in one shape, and count.

A refusal is an error of the service: its code, one sentence, and :class:`No` as its body. ``nats micro ls`` shows the
services and ``nats micro stats`` their counts.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version

import msgspec
import structlog
from nats import errors as driver
from nats.micro import add_service
from nats.micro.request import Request
from nats.micro.service import EndpointConfig, EndpointStats, Service, ServiceConfig

from bus import errors
from bus.invocation import Refused
from bus.refusal import GuardRefused, Refusal
from services.daemon import Bus

log = structlog.get_logger()

#: Seconds that the server gets to confirm new endpoints.
_HEARD_S = 2
#: Refusals that end by themselves: the same request may be answered in a moment.
LATER = (errors.BusUnreachable, errors.StreamFrozen, GuardRefused)


class No(msgspec.Struct, frozen=True, kw_only=True):
    """The body of an answer that says no."""

    #: Class of the error: ``UnknownName``, ``RequestRefused``, ``GuardRefused``, …
    refused: str
    #: One sentence: what was expected, what came, what to do.
    reason: str
    #: The whole refusal, where a guard says no.
    refusal: Refusal | None = None


class Reply(msgspec.Struct, frozen=True):
    """An answer with headers of its own."""

    data: bytes
    headers: dict[str, str] = {}


#: What an endpoint does with a request: the answer.
Handler = Callable[[Request], Awaitable[bytes | Reply]]


class Micro:
    """The micro services of one daemon."""

    def __init__(self, bus: Bus, *, at_once: int, later: tuple[type[errors.BusError], ...] = ()) -> None:
        """Nothing is answered yet.

        Args:
            bus: the connection, and the gate whose refusals are told.
            at_once: requests handled at the same time; others wait.
            later: the daemon's own refusals that end by themselves.
        """
        self._bus = bus
        self._later = (*LATER, *later)
        self._gate = asyncio.Semaphore(at_once)
        self._tasks: set[asyncio.Task[None]] = set()
        self._services: list[Service] = []
        #: (endpoint, answered or refused) -> how often. The driver's own counts end when an answer begins to be made.
        self._counts: Counter[tuple[str, str]] = Counter()

    async def close(self) -> None:
        """Answer no more, after what is under way."""
        for service in self._services:
            await service.stop()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)

    async def serve(self, name: str, description: str, endpoints: Mapping[str, tuple[str, Handler]]) -> None:
        """Begin to answer on the endpoints of one more service: name -> subject and answer."""
        service = await add_service(
            self._bus.connection.nc,
            ServiceConfig(name=name, version=version("systems"), description=description, stats_handler=self._stats),
        )
        for endpoint, (subject, handler) in endpoints.items():
            await service.add_endpoint(
                EndpointConfig(name=endpoint, subject=subject, handler=self._spawner(endpoint, handler))
            )
        self._services.append(service)
        await self._heard()

    async def _heard(self) -> None:
        """Wait until the server knows the endpoints: who is told that we answer, and asks, shall not hear that nobody is there."""
        if not self._bus.connection.is_up:
            return  # it hears of them when it is back
        try:
            await self._bus.connection.nc.flush(_HEARD_S)
        except driver.Error as exc:
            log.info("endpoints_unconfirmed", error=repr(exc))

    def _stats(self, stats: EndpointStats) -> dict[str, int]:
        """What `nats micro stats` shows as an endpoint's own data."""
        return {what: self._counts[stats.name, what] for what in ("answered", "refused")}

    def _spawner(self, endpoint: str, handler: Handler) -> Callable[[Request], Awaitable[None]]:
        """Answers side by side: the driver hands an endpoint one request after the other."""

        async def spawn(request: Request) -> None:
            await self._gate.acquire()
            task = asyncio.create_task(self._answer(request, endpoint, handler))
            self._tasks.add(task)
            task.add_done_callback(self._done)

        return spawn

    def _done(self, task: asyncio.Task[None]) -> None:
        self._gate.release()
        self._tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            log.error("answer_failed", error=repr(exc), exc_info=exc)

    async def _answer(self, request: Request, endpoint: str, handler: Handler) -> None:
        try:
            answer = await handler(request)
        except (errors.BusError, Refused) as exc:
            refusal = exc.refusal if isinstance(exc, GuardRefused) else None
            if isinstance(exc, errors.StreamFrozen):
                refusal = self._bus.gate.refusal()  # the server was quicker than our own gate, or slower to thaw
            code = "503" if isinstance(exc, self._later) else "400"
            body = msgspec.json.encode(No(refused=type(exc).__name__, reason=str(exc), refusal=refusal))
            self._counts[endpoint, "refused"] += 1
            log.info("request_refused", subject=request.subject, reason=str(exc))
            if _is_awaited(request):
                await request.respond_error(code, str(exc).splitlines()[0][:500], data=body)
        else:
            self._counts[endpoint, "answered"] += 1
            if _is_awaited(request):
                reply = answer if isinstance(answer, Reply) else Reply(answer)
                await request.respond(reply.data, headers=reply.headers or None)


def _is_awaited(request: Request) -> bool:
    """Whether anybody waits for the answer: a plain ``nats pub`` asks as well, and hears nothing."""
    return bool(request._msg.reply)  # noqa: SLF001 (the driver's request does not show it)
