"""The ``requests`` and ``fleet`` micro services: how people and agents use a fleet with nothing but NATS.

``nats req requests.shop.coder '{"input_tokens": 5, "output_tokens": 1}'`` asks a role; the answer is the invocation's id,
or a refusal. ``nats micro ls`` shows the services and ``nats micro stats`` their counts (NATS services API, ADR-32).

What is accepted is in the log before the answer goes out. An answer that gets lost means that the asker does not know:
asking again with the same ``Systems-Key`` gives the first invocation.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from importlib.metadata import version

import msgspec
import structlog
from nats.micro import add_service
from nats.micro.request import Request
from nats.micro.service import EndpointConfig, EndpointStats, Service, ServiceConfig

from bus import errors, invocation, subjects
from bus.invocation import Refused, Status
from bus.invocations import last_id
from bus.refusal import GuardRefused, Reason, Refusal
from bus.store import fold
from services.daemon import Bus
from services.fleet import schema
from services.fleet.registry import Registry
from services.requests.requests import Ask, Asker, RequestRefused, Requests

log = structlog.get_logger()

#: Headers of a request; all are optional.
KEY = "Systems-Key"
PARENT = "Systems-Parent"
ACTOR = "Systems-Actor"
#: RFC 3339, or seconds from now as ``+90``.
DUE = "Systems-Due"

#: Who asks when nobody says so.
_ANONYMOUS = "anonymous"
#: Requests handled at the same time.
_AT_ONCE = 256


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What ``gate.check`` is asked: for whom."""

    #: ``project/role``; empty for the system as a whole.
    role: str = ""
    #: Root of the run tree.
    root: str = ""


class No(msgspec.Struct, frozen=True, kw_only=True):
    """The body of an answer that says no."""

    #: Class of the error: ``UnknownName``, ``RequestRefused``, ``GuardRefused``, …
    refused: str
    #: One sentence: what was expected, what came, what to do.
    reason: str
    #: The whole refusal, where a guard says no.
    refusal: Refusal | None = None


class Services:
    """The micro services of the warden."""

    def __init__(
        self, bus: Bus, registry: Registry, requests: Requests, facts: Callable[[], Awaitable[object]]
    ) -> None:
        self._bus = bus
        self._registry = registry
        self._requests = requests
        self._facts = facts
        self._gate = asyncio.Semaphore(_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._services: list[Service] = []
        #: (endpoint, answered or refused) -> how often. The driver's own counts end when an answer begins to be made.
        self._counts: Counter[tuple[str, str]] = Counter()

    async def open(self) -> None:
        """Begin to answer."""
        await self.serve(
            "requests", "Ask a role for work: requests.<project>.<role>", {"ask": ("requests.*.*", self._ask)}
        )
        await self.serve(
            "fleet",
            "Facts about the fleet, and cancelling",
            {"status": ("fleet.status", self._status), "cancel": ("fleet.cancel.*", self._cancel)},
        )
        await self.serve(
            "gate", "Whether writes may go out right now: gate.check", {"check": ("gate.check", self._check)}
        )

    async def _check(self, request: Request) -> bytes:
        """Whether writes may go out, and work of a role or a run tree may go on."""
        try:
            asked = msgspec.json.decode(request.data, type=Question) if request.data.strip() else Question()
        except msgspec.DecodeError as exc:
            raise RequestRefused(
                f'expected nothing, or JSON like {{"role": "shop/coder"}}, got: {request.data[:80]!r} ({exc})'
            ) from exc
        refusal = self._bus.gate.refusal(role=asked.role, root=asked.root)
        if refusal is not None:
            raise GuardRefused(refusal)
        return b'{"allowed":true}'

    async def close(self) -> None:
        """Answer no more, after what is under way."""
        for service in self._services:
            await service.stop()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)

    async def serve(
        self, name: str, description: str, endpoints: dict[str, tuple[str, Callable[[Request], Awaitable[bytes]]]]
    ) -> None:
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

    def _stats(self, stats: EndpointStats) -> dict[str, int]:
        """What `nats micro stats` shows as an endpoint's own data."""
        return {what: self._counts[stats.name, what] for what in ("answered", "refused")}

    def _spawner(
        self, endpoint: str, handler: Callable[[Request], Awaitable[bytes]]
    ) -> Callable[[Request], Awaitable[None]]:
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

    async def _answer(self, request: Request, endpoint: str, handler: Callable[[Request], Awaitable[bytes]]) -> None:
        try:
            answer = await handler(request)
        except (errors.BusError, Refused) as exc:
            refusal = exc.refusal if isinstance(exc, GuardRefused) else None
            if isinstance(exc, errors.StreamFrozen):
                refusal = self._bus.gate.refusal()  # the server was quicker than our own gate, or slower to thaw
            later = isinstance(exc, errors.BusUnreachable | errors.StreamFrozen | GuardRefused)
            code = "503" if later else "400"
            body = msgspec.json.encode(No(refused=type(exc).__name__, reason=str(exc), refusal=refusal))
            self._counts[endpoint, "refused"] += 1
            log.info("request_refused", subject=request.subject, reason=str(exc))
            if _is_awaited(request):
                await request.respond_error(code, str(exc).splitlines()[0][:500], data=body)
        else:
            self._counts[endpoint, "answered"] += 1
            if _is_awaited(request):
                await request.respond(answer)

    async def _ask(self, request: Request) -> bytes:
        _, project, role = request.subject.split(".")
        headers = request.headers or {}
        if request.data:
            # Bytes from anybody: what is kept in an event must be JSON, also for a role without a schema.
            schema.read(request.data)
        asker = await self._asker(headers.get(PARENT, ""))
        ask = Ask(
            role=f"{project}/{role}",
            input=msgspec.Raw(request.data or b"null"),
            idempotency_key=headers.get(KEY, ""),
            due=_due(headers.get(DUE, ""), self._bus.author.now()),
            asker=asker,
            actor=headers.get(ACTOR, "") or (_ANONYMOUS if asker is None else ""),
        )
        return msgspec.json.encode(await self._requests.submit(ask))

    async def _asker(self, parent: str) -> Asker | None:
        """The asking invocation, which must be running: a child that outlived its claim speaks for nobody."""
        if not parent:
            return None
        ref = await self._bus.store.find(subjects.check_token("a parent", parent))
        records = await self._bus.store.history(ref) if ref is not None else []
        state = fold(records)
        if ref is None or state is None or state.status is not Status.RUNNING:
            where = f"it is {state.status}" if state is not None else "there is no such invocation"
            raise GuardRefused(
                Refusal(
                    reason=Reason.STALE_CLAIM,
                    scope=f"invocation {parent}",
                    because=f"expected {PARENT} to name a running invocation, got: {parent} ({where})",
                    clears="nobody",
                    allowed="asking without a parent, as somebody else",
                )
            )
        return Asker(ref=ref, root=state.request.root or ref.id, depth=state.request.depth, cause=last_id(records))

    async def _cancel(self, request: Request) -> bytes:
        id_ = subjects.check_token("an invocation id", request.subject.split(".")[2])
        ref = await self._bus.store.find(id_)
        if ref is None:
            raise errors.UnknownName("invocation", id_, ())
        limits = self._registry.limits(ref.project, ref.role)
        command = invocation.Cancel(reason=request.data.decode(errors="replace")[:500])
        actor = (request.headers or {}).get(ACTOR, "")
        outcome = await self._bus.invocations.carry_out(ref, command, limits, actor=actor)
        return msgspec.json.encode({"id": ref.id, "was": outcome.before.status, "is": outcome.after.status})

    async def _status(self, _request: Request) -> bytes:
        return msgspec.json.encode(await self._facts())


def _is_awaited(request: Request) -> bool:
    """Whether anybody waits for the answer: a plain ``nats pub`` asks as well, and hears nothing."""
    return bool(request._msg.reply)  # noqa: SLF001 (the driver's request does not show it)


def _due(text: str, now: datetime) -> datetime | None:
    if not text:
        return None
    try:
        if text.startswith("+"):
            return now + timedelta(seconds=float(text[1:]))
        due = msgspec.convert(text, datetime)
    except (ValueError, OverflowError, msgspec.ValidationError) as exc:
        raise RequestRefused(f"expected {DUE} to be RFC 3339 or +SECONDS, got: {text!r}") from exc
    if due.tzinfo is None:
        raise RequestRefused(f"expected {DUE} with a time zone, got: {text!r}")
    return due.astimezone(UTC)
