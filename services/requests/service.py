"""The ``requests`` and ``fleet`` micro services: how people and agents use a fleet with nothing but NATS.

``nats req requests.shop.coder '{"input_tokens": 5, "output_tokens": 1}'`` asks a role; the answer is the invocation's id,
or a refusal. ``nats micro ls`` shows the services and ``nats micro stats`` their counts (NATS services API, ADR-32).

What is accepted is in the log before the answer goes out. An answer that gets lost means that the asker does not know:
asking again with the same ``Systems-Key`` gives the first invocation.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta

import msgspec
from nats.micro.request import Request

from bus import errors, invocation, subjects
from bus.invocation import Status
from bus.invocations import last_id
from bus.refusal import GuardRefused, Reason, Refusal
from bus.store import fold
from services.daemon import Bus
from services.fleet import schema
from services.fleet.registry import Registry
from services.micro import Handler, Micro
from services.requests.requests import Ask, Asker, RequestRefused, Requests

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


class Services:
    """The micro services of the warden."""

    def __init__(
        self, bus: Bus, registry: Registry, requests: Requests, facts: Callable[[], Awaitable[object]]
    ) -> None:
        self._bus = bus
        self._registry = registry
        self._requests = requests
        self._facts = facts
        self._micro = Micro(bus, at_once=_AT_ONCE)

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
        await self._micro.close()

    async def serve(self, name: str, description: str, endpoints: Mapping[str, tuple[str, Handler]]) -> None:
        """Begin to answer on the endpoints of one more service: name -> subject and answer."""
        await self._micro.serve(name, description, endpoints)

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
