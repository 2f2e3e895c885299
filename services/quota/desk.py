"""Where a runner reserves before it claims, waits while there is no room, and settles afterwards.

A claim that finds no room is nobody's fault: it waits, and nothing is written of it. First come, first served, for each
role and counter: while one waits for room on a counter, those of its role behind it that need the same counter do not ask
at all. It asks again when something came back, a trip or a cap changed, or a second is over, and once a second it asks
the warden whether the cap is spent rather than held.

A tripped cap is waited for without asking anything: its refusal stands in the gate until it is cleared.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime

import msgspec
import structlog

from bus import errors
from bus.author import Author
from bus.events import quota as ev
from bus.events.invocation import ArtifactRef, Hold, Requested, Settlement, Usage
from bus.gate import Gate
from bus.invocation import Cost
from bus.refusal import GuardRefused, Refusal
from bus.spend import Calendar, Grant, Ledger, Limit, Short, Unseeded, Want, scope_token
from bus.store import Store
from bus.subjects import Ref
from services.fleet.registry import RegisteredRole, Registry
from services.fleet.spec import TraceHandler, Window
from services.quota import caps, estimate, prices
from services.quota.asking import Question, Warden
from services.quota.queue import Queue

log = structlog.get_logger()

#: Seconds between two tries of a claim that nothing has told to try again, and between two questions to the warden.
AGAIN_S = 1.0
#: Counters that were asked about, before the old ones are forgotten.
_REMEMBERED = 1_000


class _Covers(msgspec.Struct, frozen=True):
    """The caps over a role, for as long as nothing of the registry changes and none of them runs out."""

    revision: int
    until: datetime | None
    covers: tuple[caps.Cover, ...]
    units: frozenset[str]
    trees: bool


class QuotaDesk:
    """One runner's reservations."""

    def __init__(
        self,
        ledger: Ledger,
        registry: Registry,
        gate: Gate,
        warden: Warden,
        author: Author,
        *,
        store: Store | None = None,
        load: Callable[[ArtifactRef], Awaitable[bytes]] | None = None,
        again_s: float = AGAIN_S,
    ) -> None:
        """Wire it up.

        Args:
            ledger: the counters.
            registry: roles, caps and prices.
            gate: standing trips.
            warden: who decides whether a cap has tripped.
            author: clock and ids.
            store: where a role that cannot be counted is put on record; None: it is only logged.
            load: reads an input that lies in the artifacts; None: such an input counts by its size.
            again_s: seconds between two tries.
        """
        self._ledger, self._registry, self._gate, self._warden = ledger, registry, gate, warden
        self._author, self._store, self._load, self._again_s = author, store, load, again_s
        self._calendar = Calendar()
        self._covers: dict[tuple[str, str], _Covers] = {}
        #: Limits of a role without tree caps, and until when they are those.
        self._limits: dict[tuple[str, str], tuple[_Covers, datetime, tuple[Limit, ...]]] = {}
        self._queue = Queue()
        self._asked: dict[str, float] = {}
        self._told: set[str] = set()
        self._loop = asyncio.get_running_loop()
        ledger.on_room = self._queue.call_first
        gate.listeners.append(self._queue.call_all)

    def wake(self) -> None:
        """A role, a cap or a price has changed: everybody who waits looks again."""
        self._queue.call_all()

    def covers(self, role: RegisteredRole) -> bool:
        """Whether any cap covers a role; without one nothing needs to be reserved."""
        return bool(self._of(role, self._author.now()).covers)

    def reserve_now(self, role: RegisteredRole, ref: Ref, request: Requested, prompt: str = "") -> Hold | None:
        """Reserve without waiting, where there is much room; None: :meth:`reserve` has to be asked."""
        if request.input_ref is not None or self._queue:
            return None
        root = request.root or ref.id
        if self._gate.trips and self._gate.refusal(role=role.path, root=root) is not None:
            return None
        want = self._want(role, root, request, bytes(request.input), prompt)
        return self._ledger.at_once(want) if isinstance(want, Want) else None

    async def reserve(self, role: RegisteredRole, ref: Ref, request: Requested, prompt: str = "") -> Hold | None:
        """Reserve what an attempt may use, for as long as it takes. None: no cap covers the role (any more).

        Cancelled, it leaves nothing reserved.

        Raises:
            GuardRefused: waiting cannot help: nobody can say what the role may use (``NO_PRICE``), or its run tree was
                stopped (scope ``tree <root>``).
        """
        root = request.root or ref.id
        given = await self._input(role, request)
        place = self._queue.enter()
        try:
            while True:
                place.called.clear()
                refused = self._gate.refusal(role=role.path, root=root)
                if refused is not None:
                    if refused.scope.startswith("tree "):
                        raise GuardRefused(refused)
                    await place.wait(self._again_s)
                    continue
                want = self._want(role, root, request, given, prompt)
                if want is None:
                    return None
                if isinstance(want, Refusal):
                    await self._record(role, want)
                    raise GuardRefused(want)
                if self._queue.behind(place, role.path, (limit.key for limit in want.limits)):
                    await place.wait(self._again_s)
                    continue
                answer = await self._ledger.reserve(want)
                if isinstance(answer, Grant):
                    return answer.hold
                self._queue.join(place, (role.path, answer.key))
                await self._tell_warden(answer, role.path)
                await place.wait(self._again_s)
        finally:
            self._queue.leave(place)

    def settle(self, settlement: Settlement | None) -> None:
        """Follow the end of a claim, after its event was written."""
        if settlement is not None:
            self._ledger.settle(settlement)

    def give_back(self, hold: Hold | None) -> None:
        """Undo a reservation whose claim was not written."""
        if hold is not None:
            self._ledger.give_back(hold)

    def cost(self, role: RegisteredRole, usage: Usage, hold: Hold | None) -> Cost:
        """What a use is settled at, at present prices."""
        held = hold.usd_micros if hold is not None else 0
        return prices.charge(usage, role.role, self._registry.quota, self._registry.quota_revision, held)

    async def close(self) -> None:
        """Send what is owed to the counters."""
        self._gate.listeners.remove(self._queue.call_all)
        await self._ledger.close()

    def _of(self, role: RegisteredRole, now: datetime) -> _Covers:
        revision = self._registry.revision
        found = self._covers.get((role.project, role.name))
        if found is not None and found.revision == revision and (found.until is None or now < found.until):
            return found
        covers = caps.covers_of(self._registry, role.project, role.name, now)
        ends = [c.override.until for c in covers if c.override is not None and c.override.until is not None]
        found = _Covers(
            revision=revision,
            until=min(ends, default=None),
            covers=covers,
            units=frozenset(cover.unit for cover in covers),
            trees=any(cover.window == Window.TREE.value for cover in covers),
        )
        self._covers[role.project, role.name] = found
        return found

    def _limits_of(self, role: RegisteredRole, of: _Covers, now: datetime, root: str) -> tuple[Limit, ...]:
        zone = self._registry.quota.time_zone
        if zone != self._calendar.time_zone:
            self._calendar = Calendar(zone)
            self._limits.clear()
        if of.trees:
            return caps.limits(of.covers, self._calendar, now, root)
        kept = self._limits.get((role.project, role.name))
        if kept is not None and kept[0] is of and kept[1] <= now < self._calendar.span("hour", kept[1]).end:
            return kept[2]
        found = caps.limits(of.covers, self._calendar, now, root)
        self._limits[role.project, role.name] = (of, now, found)
        return found

    def _want(
        self, role: RegisteredRole, root: str, request: Requested, given: bytes, prompt: str
    ) -> Want | Refusal | None:
        """What a claim needs, or why nobody can say; None: no cap covers the role."""
        now = self._author.now()
        of = self._of(role, now)
        if not of.covers:
            return None
        size = request.input_ref.size if request.input_ref is not None else 0
        need = estimate.need(role.role, role.path, given, prompt, self._registry.quota.prices, of.units, size=size)
        if not isinstance(need, estimate.Need):
            return estimate.refusal(need)
        limits = self._limits_of(role, of, now, root)
        return Want(id=self._author.new_id(), tokens=need.tokens, usd_micros=need.usd_micros, limits=limits)

    async def _input(self, role: RegisteredRole, request: Requested) -> bytes:
        """The input; read from the artifacts only where its content says what is needed."""
        if request.input_ref is not None and self._load is not None and isinstance(role.role.handler, TraceHandler):
            try:
                return await self._load(request.input_ref)
            except errors.BusError as exc:
                log.warning("input_unread", role=role.path, artifact=request.input_ref.name, error=str(exc))
        return bytes(request.input)

    async def _record(self, role: RegisteredRole, refusal: Refusal) -> None:
        """Put it on record that a role cannot be counted: once for each role and cause."""
        if refusal.because in self._told:
            return
        self._told.add(refusal.because)
        log.error("role_uncountable", role=role.path, why=refusal.because)
        if self._store is None:
            return
        event = ev.Refused(role=role.path, reason=refusal.reason.value, sentence=refusal.because)
        scope = scope_token(role.project, role.name)
        # The same id from every runner: the server keeps the first.
        same = f"{scope}.{refusal.reason.value}.{role.revision}.{self._registry.quota_revision}"
        try:
            await self._store.append(self._author.control(scope, event, event_id=same))
        except errors.BusError as exc:
            log.warning("refusal_unrecorded", role=role.path, error=str(exc))

    async def _tell_warden(self, answer: Short | Unseeded, role: str) -> None:
        """Ask whether a cap has tripped, or have a counter counted; about each counter once a second at most."""
        now = self._loop.time()
        if now - self._asked.get(answer.key, -self._again_s) < self._again_s:
            return
        if len(self._asked) > _REMEMBERED:
            self._asked = {key: at for key, at in self._asked.items() if now - at < self._again_s}
        self._asked[answer.key] = now
        if isinstance(answer, Short):
            # A trip comes back through the gate too, which everybody hears.
            await self._warden.ask(Question(key=answer.key, needed=answer.needed, role=role))
        else:
            await self._warden.verify(Question(key=answer.key, role=role))
            self._queue.call_all()
