"""The quota breaker: it decides from the log when a cap has tripped, and keeps counters, events and standing trips in step.

What was spent is folded in :mod:`services.warden.account`, what is to be done is decided in :mod:`services.quota.breaker`,
counters are kept by :mod:`services.warden.auditor`. Here it is done: once for each thing, also over restarts, because trips
stand in their bucket and steps are looked up in CONTROL before they are written again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path

import msgspec
import structlog
from nats.micro.request import Request

from bus import errors, trips
from bus.events import quota as ev
from bus.events.invocation import Usage
from bus.ids import key_id
from bus.refusal import Reason, Refusal
from bus.spend import ALWAYS, Calendar, Key, scope_text, tree_token
from bus.store import CONTROL
from services.daemon import Bus
from services.fleet.registry import Registry
from services.fleet.spec import Window
from services.quota import breaker, caps, lines, prices
from services.quota.asking import ASK, VERIFY, Question
from services.quota.breaker import Action, Clear, Line, Standing, Step, Trip, Why
from services.quota.caps import Cover
from services.quota.lines import QuotaLine
from services.quota.spend import scopes
from services.requests.requests import RequestRefused
from services.warden import past
from services.warden.account import Account
from services.warden.auditor import Auditor

log = structlog.get_logger()

#: Subject of the numbers.
STATUS = "quota.status"
#: Seconds between two comparisons of all counters with the log.
AUDIT_S = 60.0
#: Seconds between two looks without news.
_LOOK_S = 1.0
#: Keys of standing trips of run trees begin so.
_TREE_TRIP = "tree."


class Treasurer:
    """Looks after all caps."""

    def __init__(self, bus: Bus, registry: Registry, folder: Path, archive: Path) -> None:
        """Make it.

        Args:
            bus: everything on the bus.
            registry: caps and prices.
            folder: where the checkpoint is kept.
            archive: where the log's trimmed beginning is, if it is on this machine.
        """
        self._bus = bus
        self._registry = registry
        self._archive = archive
        self._file = folder / "warden.spend"
        self._auditor = Auditor(bus)
        self._calendar = Calendar(registry.quota.time_zone)
        self._account = self._open_account()
        #: Steps that were written, by counter; and what did not fit when a cap tripped.
        self._told: dict[str, set[int]] = {}
        self._needed: dict[str, int] = {}
        self._turn = asyncio.Lock()
        self._audited_at = 0.0
        self._problem = "the log is being read"

    def _open_account(self) -> Account:
        zone = self._registry.quota.time_zone
        return Account(self._bus.connection, self._file, self._calendar.ids, self.price, zone, self._earlier)

    async def _earlier(self, created: str, first: int) -> past.Past:
        now = self._bus.author.now()
        return await past.spend(self._archive, created, first, past.since(self._calendar, now))

    def price(self, usage: Usage) -> int:
        """What a use costs at present prices, in millionths of a US dollar; 0 for a model without a price."""
        return prices.counted(usage, self._registry.quota.prices)

    @property
    def endpoints(self) -> dict[str, tuple[str, Callable[[Request], Awaitable[bytes]]]]:
        """The micro service ``quota``."""
        return {"ask": (ASK, self._ask), "verify": (VERIFY, self._verify), "status": (STATUS, self._status)}

    def changed(self) -> None:
        """A cap, a role or a price has changed: look again now."""
        self._account.news.set()

    async def run(self) -> None:
        """For ever; another time zone makes other windows, and so another account."""
        while True:
            zone = self._registry.quota.time_zone
            following = asyncio.create_task(self._account.run(), name="account")
            try:
                await self._account.read.wait()
                while self._registry.quota.time_zone == zone:
                    await self._look_once(following)
            finally:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
            self._calendar = Calendar(self._registry.quota.time_zone)
            self._account = self._open_account()

    async def _look_once(self, following: asyncio.Task[None]) -> None:
        if following.done():
            following.result()  # it ends only by failing
        self._account.news.clear()
        try:
            await self.look()
            self._problem = ""
        except errors.BusError as exc:
            self._problem = str(exc)
            log.warning("caps_unverified", error=str(exc), again_s=_LOOK_S)
            await asyncio.sleep(_LOOK_S)
        try:
            async with asyncio.timeout(_LOOK_S):
                await self._account.news.wait()
        except TimeoutError:
            return

    async def look(self) -> None:
        """Look at every cap once, and do what is to be done."""
        now = self._bus.author.now()
        covers = caps.all_covers(self._registry, now)
        found = {line.key: line for cover in covers if (line := self._line(cover, now)) is not None}
        await self._count(covers, now)
        async with self._turn:
            for line in found.values():
                await self._do(
                    breaker.decide(line, await self._standing(line.key, line.until), await self._steps(line))
                )
            await self._end_old(found, now)

    def _line(self, cover: Cover, now: datetime, root: str = "") -> Line | None:
        """A cap in its present window, and what the log says of it; None for a tree's cap without its tree."""
        return lines.line_of(cover, self._account.spend, self._calendar, now, root)

    async def _count(self, covers: tuple[Cover, ...], now: datetime) -> None:
        """Have the counters of all present windows, and of the next ones, and compare them with the log now and then."""
        keys: set[str] = set()
        for cover in covers:
            if cover.window != Window.TREE.value:
                end = self._calendar.span(cover.window, now).end
                keys |= {cover.key(self._calendar, now), cover.key(self._calendar, end)}
        missing = keys - self._auditor.verified
        if missing:
            await self._auditor.seed(self._account, sorted(missing))
        loop_time = asyncio.get_running_loop().time()
        if loop_time - self._audited_at >= AUDIT_S:
            self._audited_at = loop_time
            # The account forgets windows that are over: their counters would seem too high.
            await self._auditor.audit(self._account, sorted(self._auditor.verified - self._ended(now)))
            await self._auditor.forget(sorted(self._over(now)))

    def _ended(self, now: datetime) -> set[str]:
        """Counters of windows that are over: nobody reserves on them any more."""
        spans = {key: self._calendar.parse(Key.parse(key).window) for key in self._auditor.verified}
        return {key for key, span in spans.items() if span is not None and span.end <= now}

    def _over(self, now: datetime) -> set[str]:
        """Counters of windows that ended a whole window ago: late settlements have long come."""
        over: set[str] = set()
        for key in self._auditor.verified:
            span = self._calendar.parse(Key.parse(key).window)
            if span is not None and span.end + (span.end - span.start) < now:
                over.add(key)
        return over

    async def _standing(self, key: str, until: datetime | None) -> Standing | None:
        refusal = self._bus.gate.trips.get(caps.trip_key(key))
        if refusal is None:
            return None
        if key not in self._needed:
            # Tripped before this warden began: the record says what did not fit.
            last = None
            scope = key.partition(".")[0]
            async for record in self._bus.store.read(CONTROL, f"ctl.quota.{scope}.tripped"):
                if record.data is not None and record.data.key == key:
                    last = record.data
            self._needed[key] = last.needed if last is not None else 0
        return Standing(key=key, needed=self._needed[key], until=refusal.until or until)

    async def _steps(self, line: Line) -> frozenset[int]:
        told = self._told.get(line.key)
        if told is None:
            scope = line.key.partition(".")[0]
            told = {
                record.data.percent
                async for record in self._bus.store.read(CONTROL, f"ctl.quota.{scope}.stepped")
                if record.data is not None and record.data.key == line.key
            }
            self._told[line.key] = told
        return frozenset(told)

    async def _end_old(self, found: dict[str, Line], now: datetime) -> None:
        """End trips whose window is over or whose cap is gone."""
        for name, refusal in list(self._bus.gate.trips.items()):
            if name.startswith(_TREE_TRIP) and refusal.reason is Reason.CAPPED:
                await self._end_tree(name.removeprefix(_TREE_TRIP))
            key = name.removeprefix("quota.")
            if key == name or key in found:
                continue
            standing = await self._standing(key, None)
            clear = breaker.over(standing, now, capped=False) if standing is not None else None
            if clear is not None:
                await self._do([clear])
        for key in [key for key in self._told if key not in found]:
            del self._told[key]

    async def _end_tree(self, root: str) -> None:
        """End the trip of a run tree once its cap has room for what did not fit, or is no more."""
        last = await self._bus.store.last(CONTROL, f"ctl.quota.{tree_token(root)}.tripped")
        tripped = last.data if last is not None else None
        if not isinstance(tripped, ev.Tripped):
            # The warden died between the refusal and its record: the next claim asks again.
            await self._bus.trips.clear(trips.tree_key(root))
            return
        line = self._asked(Question(key=tripped.key, needed=tripped.needed, role=tripped.role))
        if line is None:
            await self._do([Clear(key=tripped.key, why=Why.CAP_REMOVED)])
            return
        standing = Standing(key=tripped.key, needed=tripped.needed)
        await self._do(breaker.decide(line, standing, frozenset(breaker.STEPS)))

    async def _do(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Step(line=line, percent=percent):
                    event = ev.Stepped(key=line.key, percent=percent, used=line.used, held=line.held, cap=line.cap)
                    await self._write(line.key, event, key_id("quota.stepped", f"{line.key}/{percent}/{line.cap}"))
                    self._told.setdefault(line.key, set()).add(percent)
                    log.warning("cap_neared", key=line.key, percent=percent)
                case Trip():
                    await self._trip(action)
                case Clear(key=key, why=why, cap=cap):
                    await self._bus.trips.clear(caps.trip_key(key))
                    self._bus.gate.know(caps.trip_key(key), None)
                    self._needed.pop(key, None)
                    if cap:
                        self._told.pop(key, None)
                    await self._write(key, ev.Reset(key=key, why=why.value, cap=cap))
                    log.warning("cap_free_again", key=key, why=why.value)

    async def _trip(self, trip: Trip) -> Refusal:
        line = trip.line
        refusal = breaker.refusal(trip, self._bus.author.now())
        self._needed[line.key] = trip.needed
        await self._bus.trips.put(caps.trip_key(line.key), refusal)
        self._bus.gate.know(caps.trip_key(line.key), refusal)  # the next look must not trip again
        event = ev.Tripped(
            key=line.key,
            used=line.used,
            held=line.held,
            cap=line.cap,
            needed=trip.needed,
            role=trip.role,
            until=line.until,
        )
        await self._write(line.key, event)
        log.warning("cap_reached", key=line.key, used=line.used, cap=line.cap, why=trip.why.value)
        return refusal

    async def _write(self, key: str, event: msgspec.Struct, event_id: str = "") -> None:
        await self._bus.store.append(self._bus.author.control(key.partition(".")[0], event, event_id=event_id))

    async def _ask(self, request: Request) -> bytes:
        """A claim does not fit: whether its cap has tripped, or what is held may come back."""
        question = _question(request)
        await self._account.up_to_now()
        async with self._turn:
            line = self._asked(question)
            if line is None:
                return b'{"wait":true}'
            standing = self._bus.gate.trips.get(caps.trip_key(line.key))
            if standing is not None:
                return msgspec.json.encode(standing)
            actions = breaker.decide(line, None, await self._steps(line), needed=question.needed, role=question.role)
            await self._do([action for action in actions if not isinstance(action, Trip)])
            for action in actions:
                if isinstance(action, Trip):
                    return msgspec.json.encode(await self._trip(action))
        return b'{"wait":true}'

    def _asked(self, question: Question) -> Line | None:
        """The cap that a question is about; None when there is none (any more)."""
        now = self._bus.author.now()
        scope = question.key.partition(".")[0]
        root = scope_text(scope).removeprefix(lines.TREE) if scope.startswith("tree_") else ""
        project, _, role = question.role.partition("/")
        covers = caps.covers_of(self._registry, project, role, now)
        found = [line for cover in covers if (line := self._line(cover, now, root if cover.window == "tree" else ""))]
        return min((line for line in found if line.key == question.key), key=lambda line: line.cap, default=None)

    async def _verify(self, request: Request) -> bytes:
        """A counter is missing: count it from the log."""
        question = _question(request)
        if self._asked(question) is None:
            raise RequestRefused(f"expected a counter of a cap over {question.role}, got: {question.key}")
        self._auditor.verified.discard(question.key)
        left = await self._auditor.seed(self._account, [question.key])
        return msgspec.json.encode({"verified": not left})

    async def _status(self, _request: Request) -> bytes:
        return msgspec.json.encode(self.lines())

    def lines(self) -> tuple[QuotaLine, ...]:
        """Every cap in its present window, as people see it."""
        now = self._bus.author.now()
        zone = self._calendar.time_zone
        shown: list[QuotaLine] = []
        for cover in caps.all_covers(self._registry, now):
            root = self._fullest(cover) if cover.window == Window.TREE.value else ""
            line = self._line(cover, now, root)
            if line is None:
                shown.append(lines.idle(cover.scope, cover.text, cover.unit, cover.cap, self._problem, zone))
                continue
            burn = 0.0 if root else self._account.spend.burn(cover.scope, cover.unit, now)
            unverified = "" if root or line.key in self._auditor.verified else "its counter is being made"
            tripped = caps.trip_key(line.key) in self._bus.gate.trips
            problem = self._problem or unverified or self._account.gap
            shown.append(lines.shown(line, burn, now, tripped=tripped, problem=problem, tree=root, zone=zone))
        return tuple(shown)

    def _fullest(self, cover: Cover) -> str:
        """Root of the run tree that has used the most, of those that work under a cap now or are stopped; empty for none."""
        spend = self._account.spend
        covered = {claim.root for claim in spend.claims.values() if cover.scope in scopes(claim.project, claim.role)}
        stopped = {name.removeprefix(_TREE_TRIP) for name, trip in self._bus.gate.trips.items() if _by(trip, cover)}
        totals = {root: spend.get(f"{tree_token(root)}.{cover.unit}.{ALWAYS}").total for root in covered | stopped}
        return max(sorted(totals), key=lambda root: totals[root], default="")


def _by(trip: Refusal, cover: Cover) -> bool:
    """Whether a cap over run trees has stopped one with this refusal."""
    return (
        trip.reason is Reason.CAPPED and trip.scope.startswith(lines.TREE) and f" raise {cover.text} " in trip.command
    )


def _question(request: Request) -> Question:
    try:
        question = msgspec.json.decode(request.data, type=Question)
        Key.parse(question.key)
    except (msgspec.DecodeError, ValueError) as exc:
        raise RequestRefused(f"expected JSON with the key of a counter, got: {request.data[:80]!r} ({exc})") from exc
    return question
