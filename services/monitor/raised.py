"""Anybody on the bus may raise a concern or an ultra: checked, de-duplicated, and limited, so that nobody cries wolf.

Saying the same again (the same who, the same title) adds nothing to what is open, unless it has become worse or nobody has
said it for long. One who says ever new things is heard a few times an hour, and then refused in words; so are all together.
"""

from __future__ import annotations

import asyncio
import re
from datetime import datetime, timedelta

import msgspec
from nats.micro.request import Request

from bus import errors, subjects
from bus.events import finding as ev
from bus.events.finding import EVIDENCE_LIMIT, Evidence, Kind
from bus.subjects import Ref
from services.daemon import Bus
from services.fleet.registry import Registry
from services.fleet.spec import Monitor
from services.monitor.finding import DETAIL_LIMIT, TITLE_LIMIT, fingerprint, rank
from services.monitor.ledger import HOUR_S, Ledger
from services.monitor.raising import Raise, RaiseRefused, Taken
from services.requests.service import ACTOR, PARENT

#: How many times what one may raise all may raise together.
_ALL = 10
_AT = re.compile(r"([A-Z_]{1,64}):([0-9]{1,18})")


def read(body: bytes) -> Raise:
    """A request's body.

    Raises:
        RaiseRefused: it is none.
    """
    try:
        asked = msgspec.json.decode(body, type=Raise)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise RaiseRefused(
            'expected JSON like {"severity": "concern", "title": "the shop answers slowly"}, '
            f"with severity concern or ultra, got: {body[:80].decode(errors='replace')!r} ({exc})"
        ) from exc
    title = " ".join(asked.title.split())
    if not title:
        raise RaiseRefused("expected a title that says what is wrong, got an empty one")
    return msgspec.structs.replace(asked, title=title[:TITLE_LIMIT])


def event(asked: Raise, by: str, invocation: str = "") -> ev.Raised:
    """What was asked, as the event. Pure."""
    at = [(text, _AT.fullmatch(text)) for text in asked.evidence]
    evidence = tuple(Evidence(found[1], int(found[2])) for _, found in at if found is not None)
    detail = "\n".join([asked.detail, *(text for text, found in at if found is None)]).strip()
    return ev.Raised(
        by=by,
        severity=asked.severity,
        title=asked.title,
        detail=detail[:DETAIL_LIMIT],
        evidence=evidence[:EVIDENCE_LIMIT],
        invocation=invocation,
    )


def print_of(raised: ev.Raised) -> str:
    """The fingerprint of what is raised: who, and the title."""
    return fingerprint(Kind.RAISED, f"{raised.by}: {raised.title}")


def decide(raised: ev.Raised, ledger: Ledger, limits: Monitor, now: datetime) -> bool:
    """Whether it is worth an event: it is new, worse, or was not said for long.

    Raises:
        RaiseRefused: one has raised too much within the hour, or all together have.
    """
    before = ledger.raised.get(print_of(raised))
    if before is not None:
        if rank(raised.severity) > rank(before.data.severity):
            return True  # that can happen once
        if (now - before.at).total_seconds() < limits.raise_stands / 4:
            return False
    for who, times, most in (
        (raised.by, ledger.raises(now, raised.by), limits.raises),
        ("all together", ledger.raises(now), limits.raises * _ALL),
    ):
        if len(times) >= most:
            until = times[-most] + timedelta(seconds=HOUR_S)
            raise RaiseRefused(
                f"expected at most {most} findings raised by {who} within an hour, got one more: {raised.title!r}; what was "
                f"raised stays open (`systems findings`), and from {until:%H:%M:%S} UTC on the next one is taken"
            )
    return True


class Raises:
    """Takes what is raised over NATS."""

    def __init__(self, bus: Bus, registry: Registry, ledger: Ledger) -> None:
        self._bus = bus
        self._registry = registry
        self._ledger = ledger
        #: Two who say the same at the same time are one.
        self._turn = asyncio.Lock()

    async def answer(self, request: Request) -> bytes:
        """``monitor.raise``: the fingerprint, or a refusal."""
        headers = request.headers or {}
        asked = read(request.data)
        invocation = headers.get(PARENT, "")
        by = headers.get(ACTOR, "") or "anonymous"
        if invocation:
            by = await self._role_of(invocation)
        return msgspec.json.encode(await self.take(event(asked, by[:100], invocation)))

    async def _role_of(self, invocation: str) -> str:
        ref: Ref | None = await self._bus.store.find(subjects.check_token("an invocation id", invocation))
        if ref is None:
            raise errors.UnknownName("invocation", invocation, ())
        return f"{ref.project}/{ref.role}"

    async def take(self, raised: ev.Raised) -> Taken:
        """Write it, if that is worth it."""
        print_ = print_of(raised)
        async with self._turn:
            await self._ledger.catch_up()
            if not decide(raised, self._ledger, self._registry.monitor, self._bus.author.now()):
                return Taken(fingerprint=print_, deduplicated=True)
            await self._bus.store.append(self._bus.author.control(print_, raised))
            await self._ledger.catch_up()
        return Taken(fingerprint=print_)
