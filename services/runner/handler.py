"""The port between a runner and the five kinds of handler.

A handler gets a :class:`Context` and returns a :class:`Result`, or raises. What it raises is told apart by
:func:`services.runner.failure.classify`: :class:`Permanent` and programming errors of the role's configuration can never
succeed, :class:`RetryAfter` names its own delay, everything else is transient.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeVar

import msgspec

from bus.events.finding import Severity
from bus.events.invocation import EMPTY, ArtifactRef, Usage
from bus.subjects import Ref
from services.monitor.raising import Raise

_T = TypeVar("_T")


#: Requests that a completion may carry: a batch holds 1,000 messages, and the completion is one of them.
FOLLOW_UP_LIMIT = 900
#: More tokens than any model has ever used in one call: a number above it is a unit error, and would trip every quota.
TOKEN_LIMIT = 10**12


class Permanent(Exception):
    """No retry can help: the work goes to the dead letters at once."""


class BadUsage(Permanent):
    """A report of use that cannot be counted: below zero, absurd, or no number."""

    kind = "bad_usage"


class RetryAfter(Exception):
    """Try again, but not before `seconds` from now (a provider's Retry-After)."""

    def __init__(self, seconds: float, why: str) -> None:
        self.seconds = seconds
        super().__init__(why)


class FollowUp(msgspec.Struct, frozen=True, kw_only=True):
    """A request that is made in the same atomic batch as the completion: whole or not at all."""

    #: ``project/role``.
    role: str
    input: msgspec.Raw = EMPTY
    idempotency_key: str = ""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What a handler hands in."""

    output: msgspec.Raw = EMPTY
    usage: Usage = Usage()
    follow_ups: tuple[FollowUp, ...] = ()
    artifacts: tuple[ArtifactRef, ...] = ()
    #: The end of what it logged, for people; at most 4,000 characters.
    tail: str = ""


def countable(usage: Usage, where: str) -> Usage:
    """A use, if it can be counted: Structs check their types only when they are decoded.

    Raises:
        BadUsage: a count is below zero, no integer, or above :data:`TOKEN_LIMIT`.
    """
    counts = (usage.input_tokens, usage.output_tokens)
    if all(type(count) is int and 0 <= count <= TOKEN_LIMIT for count in counts) and isinstance(usage.model, str):
        return usage
    raise BadUsage(f"expected the usage {where} to be token counts from 0 to {TOKEN_LIMIT:,}, got: {usage!r:.200}")


class Context:
    """What a handler may know and do while it runs one invocation.

    `progress` says that the work is alive; without it (or one of the things that imply it) for the role's
    ``progress_timeout`` the handler counts as hung and is stopped.
    """

    __slots__ = (
        "_artifact", "_gate", "_metered", "_progress", "_raise", "_request", "attempt", "cancelled", "environment", "input", "kept", "loop", "prompt", "ref",
        "spent",
    )  # fmt: skip

    def __init__(
        self,
        *,
        ref: Ref,
        input: msgspec.Raw,
        attempt: int,
        prompt: str,
        environment: Mapping[str, str],
        progress: Callable[[str], None],
        request: Callable[..., Awaitable[str]],
        artifact: Callable[[str, bytes, str], Awaitable[ArtifactRef]],
        metered: Callable[[Usage], None] = lambda _usage: None,
        gate: Callable[[], None] = lambda: None,
        raise_concern: Callable[[Raise], Awaitable[str]] | None = None,
    ) -> None:
        self.ref = ref
        #: The input as JSON bytes.
        self.input = input
        #: From 1.
        self.attempt = attempt
        #: Text of the role's prompt; empty without one.
        self.prompt = prompt
        #: What a child process needs to ask other roles: server, credentials, parent, root, depth, trace context.
        self.environment = environment
        #: Use reported so far by :meth:`meter`; kept also when the attempt fails.
        self.spent = Usage()
        #: What :meth:`artifact` has kept so far; holds also when the attempt fails.
        self.kept: list[ArtifactRef] = []
        #: True: stop. A function in a thread cannot be stopped from outside, so a long one looks here now and then.
        self.cancelled = False
        #: The runner's loop, for calls from a thread; None while nothing runs in a thread.
        self.loop: asyncio.AbstractEventLoop | None = None
        self._metered = metered
        self._gate = gate
        self._progress = progress
        self._request = request
        self._artifact = artifact
        self._raise = raise_concern

    @property
    def traceparent(self) -> str:
        """W3C trace context of the claim."""
        return self.environment.get("TRACEPARENT", "")

    def json(self) -> Any:
        """The input as plain Python values."""
        return msgspec.json.decode(self.input)

    def progress(self, note: str = "") -> None:
        """Say that the work goes on; `note` is shown to people who watch. Also from a thread."""
        if self.loop is None:
            self._progress(note)
        else:
            self.loop.call_soon_threadsafe(self._progress, note)

    def meter(self, usage: Usage) -> None:
        """Add to what this attempt has used; counts as progress.

        Raises:
            BadUsage: it cannot be counted. The attempt has failed with it, and all that it reserved counts as used.
        """
        self.spent = self.spent + countable(usage, "that was reported")
        self._metered(self.spent)
        self.progress()

    async def request(self, role: str, input: Any = None, *, key: str = "") -> str:
        """Ask another role now, and go on: the new invocation's id. Counts as progress.

        A retry of this handler asks again: give a `key` to get the first invocation instead.

        Raises:
            services.requests.requests.RequestRefused: unknown role, bad input, or not allowed to ask it.
        """
        return await self._request(role, input, key=key)

    async def artifact(self, name: str, content: bytes, media_type: str = "application/octet-stream") -> ArtifactRef:
        """Keep something too large for an event: its reference. Counts as progress."""
        reference = await self._artifact(name, content, media_type)
        self.kept.append(reference)
        return reference

    async def raise_concern(
        self,
        title: str,
        *,
        severity: Literal["concern", "ultra"] = "concern",
        detail: str = "",
        evidence: Sequence[str] = (),
    ) -> str:
        """Say that something is wrong that people should know: the finding's fingerprint. Counts as progress.

        The same title from the same role is the same finding, however often it is said. The work itself is not touched: it may
        go on, or fail for itself.

        Args:
            title: what is wrong, in one line.
            severity: a concern waits for a person, ultra calls one.
            detail: more about it.
            evidence: messages that show it, as ``STREAM:SEQUENCE``, or any text.

        Raises:
            services.monitor.raising.RaiseRefused: the role has raised too much within the hour.
            bus.errors.BusUnreachable: nobody takes it just now.
        """
        if self._raise is None:
            raise RuntimeError("expected a context that a runner has made: nobody hears a concern here")
        asked = Raise(severity=Severity(severity), title=title, detail=detail, evidence=tuple(evidence))
        return await self._raise(asked)

    async def gate(self) -> None:
        """Ask before doing something outside the bus that a freeze, a cap or a stopped run tree must stop.

        Raises:
            bus.refusal.GuardRefused: not now; let it pass through, and the work goes back to the queue at nobody's cost.
        """
        self._gate()

    def gate_sync(self) -> None:
        """:meth:`gate` for a function that runs in a thread."""
        self._gate()

    def request_sync(self, role: str, input: Any = None, *, key: str = "") -> str:
        """:meth:`request` for a function that runs in a thread: blocks the thread until it is answered.

        Raises:
            RuntimeError: called on the loop's own thread, or after the work was called off.
        """
        return self._from_thread("request", self.request(role, input, key=key))

    def raise_concern_sync(
        self,
        title: str,
        *,
        severity: Literal["concern", "ultra"] = "concern",
        detail: str = "",
        evidence: Sequence[str] = (),
    ) -> str:
        """:meth:`raise_concern` for a function that runs in a thread: blocks the thread until it is answered."""
        return self._from_thread(
            "raise_concern", self.raise_concern(title, severity=severity, detail=detail, evidence=evidence)
        )

    def artifact_sync(self, name: str, content: bytes, media_type: str = "application/octet-stream") -> ArtifactRef:
        """:meth:`artifact` for a function that runs in a thread: blocks the thread until it is kept."""
        return self._from_thread("artifact", self.artifact(name, content, media_type))

    def _from_thread(self, name: str, call: Coroutine[Any, Any, _T]) -> _T:
        if self.loop is None or self.cancelled:
            call.close()
            why = f"use `await ctx.{name}(…)` in an async function" if self.loop is None else "the work was called off"
            raise RuntimeError(f"expected ctx.{name}_sync to be called in the thread of a running function; {why}")
        return asyncio.run_coroutine_threadsafe(call, self.loop).result()


class Handler(Protocol):
    """One role's way to do work. Built once per registry revision, called for each invocation."""

    async def __call__(self, context: Context) -> Result:
        """Do the work. Cancellation means: stop now, within the role's grace."""
        ...

    async def close(self) -> None:
        """Give back what it holds (connections, pools)."""
        ...
