"""One invocation in a runner's hands: the claim it holds, and what its handler reports.

Times are the event loop's own (monotonic) seconds. Whoever wants the handler to end says so with :meth:`stop`; the reason
decides what is written afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from typing import Protocol

import msgspec
from nats.errors import Error as DriverError

from bus import subjects, wire
from bus.artifacts import Artifacts
from bus.author import traceparent
from bus.connection import Connection
from bus.events.invocation import ArtifactRef, Hold, Usage
from bus.invocation import Invocation
from bus.refusal import Refusal
from bus.spend import TOKENS, USD
from services.fleet.registry import RegisteredRole
from services.monitor import raising
from services.monitor.raising import Raise
from services.requests.requests import Ask, Asker, Requests
from services.requests.service import PARENT
from services.runner.handler import Handler
from services.runner.quota import Quota


class Facilities(Protocol):
    """What a running invocation uses of its runner; :class:`services.runner.desk.Desk` gives it."""

    connection: Connection
    requests: Requests
    artifacts: Artifacts
    environment: Mapping[str, str]
    quota: Quota

    def monotonic(self) -> float:
        """Seconds, as the event loop counts them."""
        ...

    def call_soon(self, function: Callable[..., None], *arguments: object) -> None:
        """Call something on the runner's loop; from any thread."""
        ...

    def announce(self, running: Running) -> None:
        """Publish the progress note for people who watch."""
        ...


class Stop(StrEnum):
    """Why a handler is told to end before it is done."""

    TIMEOUT = "timeout"
    HUNG = "hung"
    CANCELLED = "cancelled"
    DRAIN = "drain"
    FREEZE = "freeze"
    OVER = "over"
    LOST = "lost"


#: Reasons to stop that also say that the claim is over.
_NOT_OURS = frozenset({Stop.CANCELLED, Stop.LOST})


class Running:
    """A claimed invocation while its handler runs."""

    __slots__ = (
        "_desk",
        "cause",
        "delivery",
        "frozen_by",
        "handler",
        "note",
        "progress_at",
        "prompt",
        "ref",
        "renewed_at",
        "role",
        "settling",
        "started_at",
        "state",
        "stop_reason",
        "stopped_at",
        "task",
        "told_at",
    )

    def __init__(
        self,
        desk: Facilities,
        ref: subjects.Ref,
        role: RegisteredRole,
        delivery: wire.Delivery,
        state: Invocation,
        cause: str,
        now: float,
    ) -> None:
        self._desk = desk
        self.ref = ref
        self.role = role
        self.delivery = delivery
        #: The state after our claim: the fence of the result.
        self.state = state
        #: What does the work, and the prompt's text, as they were registered when it was claimed.
        self.handler: Handler | None = None
        self.prompt = ""
        #: Id of the ``claimed`` event.
        self.cause = cause
        self.started_at = now
        #: When the handler last gave a sign of progress.
        self.progress_at = now
        #: When the claim was last renewed at the server.
        self.renewed_at = now
        #: What the handler last said of its progress.
        self.note = ""
        self.stop_reason: Stop | None = None
        #: The freeze that came while the handler ran.
        self.frozen_by: Refusal | None = None
        #: The handler is done, and its result is being written.
        self.settling = False
        #: When the handler was first told to end, and when last.
        self.stopped_at = 0.0
        self.told_at = 0.0
        #: The task that runs the handler.
        self.task: asyncio.Task[None] | None = None

    def stop(self, reason: Stop, now: float) -> None:
        """Tell the handler to end; the first reason stands. Too late for one whose result is being written."""
        if self.settling:
            return
        if self.stop_reason is None:
            self.stop_reason = reason
            self.stopped_at = now
        self.told_at = now
        if self.task is not None:
            self.task.cancel()

    def holds(self, now: float) -> bool:
        """Whether the claim is ours to keep: the handler works, ends within its grace, or its result is being written.

        What was cancelled or taken from us is not: a renewal would count for whoever has it now.
        """
        if self.stop_reason is None or self.settling:
            return True
        return self.stop_reason not in _NOT_OURS and now - self.stopped_at <= self.role.role.grace + 1

    def progress(self, note: str) -> None:
        """Called by the handler, from any thread."""
        self.progress_at = self._desk.monotonic()
        if note:
            self.note = note[:500]
            self._desk.announce(self)

    @property
    def hold(self) -> Hold | None:
        """What the claim has reserved; None where no cap covers it."""
        return self.state.claim.hold if self.state.claim is not None else None

    def metered(self, usage: Usage) -> None:
        """Called by the handler, from any thread, with all that it has used: more than was reserved ends it."""
        if self.over(usage):
            self._desk.call_soon(self.stop, Stop.OVER, self._desk.monotonic())

    def over(self, usage: Usage) -> str:
        """How a use passes what the claim reserved, in the units that its caps count; empty: it does not."""
        hold = self.hold
        if hold is None:
            return ""
        tokens = usage.input_tokens + usage.output_tokens
        if tokens > hold.tokens and any(f".{TOKENS}." in key for key in hold.keys):
            return f"expected at most {hold.tokens:,} tokens, as reserved, got: {tokens:,}"
        cost = self._desk.quota.cost(self.role, usage, hold).usd_micros
        if cost > hold.usd_micros and any(f".{USD}." in key for key in hold.keys):
            return f"expected at most {hold.usd_micros / 1e6:,.6f} USD, as reserved, got: {cost / 1e6:,.6f}"
        return ""

    async def request(self, role: str, input: object = None, *, key: str = "") -> str:
        """Ask another role on behalf of this invocation: the new invocation's id."""
        self.progress("")
        raw = input if isinstance(input, msgspec.Raw) else msgspec.Raw(msgspec.json.encode(input))
        accepted = await self._desk.requests.submit(Ask(role=role, input=raw, idempotency_key=key, asker=self.asker))
        return accepted.id

    async def raise_concern(self, asked: Raise) -> str:
        """Say on behalf of this invocation that something is wrong: the finding's fingerprint."""
        self.progress("")
        return (await raising.ask(self._desk.connection, asked, {PARENT: self.ref.id})).fingerprint

    async def artifact(self, name: str, content: bytes, media_type: str) -> ArtifactRef:
        """Keep something too large for an event."""
        self.progress("")
        return await self._desk.artifacts.put(self.ref, name, content, media_type)

    @property
    def asker(self) -> Asker:
        """This invocation as the one that asks others."""
        request = self.state.request
        return Asker(ref=self.ref, root=request.root or self.ref.id, depth=request.depth, cause=self.cause)

    @property
    def traceparent(self) -> str:
        """W3C trace context of the claim."""
        return traceparent(self.state.request.root or self.ref.id, self.cause)

    def renew(self, now: float) -> None:
        """Tell the server that the work goes on: the claim's clock starts again."""
        self.renewed_at = now
        try:
            self._desk.connection.nc.send(self.delivery.reply, wire.IN_PROGRESS)
        except DriverError:
            # The server is away; the next round tries again, and the fence protects the log meanwhile.
            self.renewed_at = 0.0


class Environment(Mapping[str, str]):
    """What a child process needs to ask other roles, made only when somebody looks."""

    __slots__ = ("_desk", "_made", "_running")

    def __init__(self, desk: Facilities, running: Running) -> None:
        self._desk = desk
        self._running = running
        self._made: dict[str, str] | None = None

    def _make(self) -> dict[str, str]:
        if self._made is None:
            running = self._running
            request = running.state.request
            self._made = {
                **self._desk.environment,
                "SYSTEMS_PARENT": running.ref.id,
                "SYSTEMS_ROLE": running.role.path,
                "SYSTEMS_ROOT": request.root or running.ref.id,
                "SYSTEMS_DEPTH": str(request.depth),
                "SYSTEMS_ATTEMPT": str(running.state.claim.attempt if running.state.claim else 1),
                "TRACEPARENT": running.traceparent,
            }
        return self._made

    def __getitem__(self, key: str) -> str:
        return self._make()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._make())

    def __len__(self) -> int:
        return len(self._make())
