"""Recorded history run through the pure guards with other limits: what would have tripped, and what that would have cost.

Pure. The same functions decide as on the running fleet (:mod:`services.quota.breaker`, :mod:`services.loop.breaker`); only
the limits are others. What a trip would have saved is what was spent behind it, until its window ended; what it would have
stopped is the work that was completed there, each piece by its id. What a person would have done at the trip, nobody can replay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

import msgspec

from bus.events import invocation as ev
from bus.spend import Calendar, Key, scope_text, tree_token
from bus.store import Recorded
from bus.subjects import parse_event
from services.fleet.spec import LoopLimits, Window
from services.loop import breaker as loops
from services.loop.tree import Forest
from services.quota import breaker as caps
from services.quota.breaker import Line, Trip
from services.quota.spend import scopes


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """The limits to replay with."""

    #: (scope token, unit, window kind) -> cap, in tokens or millionths of a US dollar.
    caps: Mapping[tuple[str, str, str], int] = {}
    loop: LoopLimits | None = None
    #: ``project/role`` -> errors, and crashes, until the dead letter.
    max_attempts: Mapping[str, int] = {}
    max_crashes: Mapping[str, int] = {}


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """Honest work: an invocation that was completed, and that a trip would have stopped."""

    id: str
    #: ``project/role``.
    role: str
    at: datetime
    tokens: int = 0
    #: Millionths of a US dollar.
    usd_micros: int = 0


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """What an attempt cost, measured or assumed."""

    tokens: int = 0
    usd_micros: int = 0


class Trial(msgspec.Struct, kw_only=True):
    """A trip that would have come."""

    at: datetime
    guard: str
    scope: str
    why: str
    #: What tripped: the counter of a cap, ``tree <root>``, or an invocation's id.
    key: str
    #: What was spent behind it.
    saved_tokens: int = 0
    saved_usd_micros: int = 0
    #: Completed invocations that would not have been done then: how many, and which.
    stopped: int = 0
    work: list[Done] = []


class Backtest:
    """Fed with the records of INVOCATIONS in order; then asked for the trials."""

    def __init__(self, wanted: Wanted, calendar: Calendar, price: Callable[[ev.Usage], int]) -> None:
        self._wanted = wanted
        self._calendar = calendar
        self._price = price
        self._forest = Forest()
        self._claimed_at: dict[str, datetime] = {}
        self._used: dict[str, int] = {}
        self._errors: dict[str, int] = {}
        self._crashes: dict[str, int] = {}
        #: Trips by what they cover: counter key, root, invocation id.
        self._tripped: dict[str, Trial] = {}
        self.trials: list[Trial] = []
        self.records = 0

    def take(self, record: Recorded) -> None:
        """One more record; rubbish is passed over."""
        self.records += 1
        if record.data is None or record.event is None:
            return
        ref, _ = parse_event(record.subject)
        match record.data:
            case ev.Claimed():
                self._claimed_at[ref.id] = record.stored_at
            case _ if (cost := spent(record, self._price)) is not None:
                self._spent(record, cost)
            case _:
                pass
        self._poison(record)
        self._loop(record)

    def _spent(self, record: Recorded, cost: Spent) -> None:
        """What an attempt used, under each cap that covers it."""
        assert record.event is not None
        ref, _ = parse_event(record.subject)
        at = self._claimed_at.pop(ref.id, record.stored_at)
        for (scope, unit, window), cap in self._wanted.caps.items():
            if scope not in scopes(ref.project, ref.role):
                continue
            counted = tree_token(record.event.correlationid or ref.id) if window == Window.TREE.value else scope
            key = str(Key(counted, unit, self._calendar.id(window, at)))
            amount = cost.tokens if unit == "tokens" else cost.usd_micros
            trial = self._tripped.get(key)
            if trial is None:
                text, used = scope_text(scope), self._used.get(key, 0)
                line = Line(key=key, scope=text, declared=text, unit=unit, window=window, cap=cap, used=used)
                found = caps.decide(line, None, frozenset(caps.STEPS), needed=amount, role=f"{ref.project}/{ref.role}")
                trips = [action for action in found if isinstance(action, Trip)]
                if not trips:
                    self._used[key] = line.used + amount
                    continue
                because = caps.refusal(trips[0], record.stored_at).because
                trial = self._trip(Trial(at=record.stored_at, guard="quota breaker", scope=text, why=because, key=key))
            _behind(trial, record, cost)

    def _loop(self, record: Recorded) -> None:
        limits = self._wanted.loop
        if limits is None or record.event is None:
            return
        cost = spent(record, self._price)
        ref, _ = parse_event(record.subject)
        trial = self._tripped.get(f"tree {record.event.correlationid or ref.id}")
        if trial is not None and cost is not None:
            _behind(trial, record, cost)
        found = self._forest.take(record, cost.usd_micros if cost is not None else 0)
        if found is None:
            return
        tree, id_ = found
        tree.tripped = loops.decide(tree, id_, record, limits) if tree.tripped is None else tree.tripped
        key = f"tree {tree.root}"
        if tree.tripped is not None and key not in self._tripped:
            because = loops.refusal(tree.root, tree.tripped).because
            self._trip(Trial(at=record.stored_at, guard="loop breaker", scope=key, why=because, key=key))

    def _poison(self, record: Recorded) -> None:
        ref, _ = parse_event(record.subject)
        role = f"{ref.project}/{ref.role}"
        trial = self._tripped.get(ref.id)
        match record.data:
            case _ if trial is not None:
                if (cost := spent(record, self._price)) is not None:
                    _behind(trial, record, cost)
            case ev.Failed():
                self._count(self._errors, self._wanted.max_attempts, role, record, "errors")
            case ev.Swept():
                self._count(self._crashes, self._wanted.max_crashes, role, record, "crashes")
            case _:
                pass

    def _count(self, counts: dict[str, int], limits: Mapping[str, int], role: str, record: Recorded, what: str) -> None:
        limit = limits.get(role)
        if limit is None:
            return
        ref, _ = parse_event(record.subject)
        counts[ref.id] = counts.get(ref.id, 0) + 1
        if counts[ref.id] == limit:
            why = f"{limit:,} {what}, {ref.id} would have been a dead letter"
            self._trip(Trial(at=record.stored_at, guard="poison-message breaker", scope=role, why=why, key=ref.id))

    def _trip(self, trial: Trial) -> Trial:
        self._tripped[trial.key] = trial
        self.trials.append(trial)
        return trial


def spent(record: Recorded, price: Callable[[ev.Usage], int]) -> Spent | None:
    """What the event that ends an attempt says of its cost; None for any other event.

    Where nobody measured, what was settled in its place counts, as it did then.
    """
    settled: ev.Settlement | None = getattr(record.data, "settled", None)
    if settled is not None and settled.assumed:
        return Spent(tokens=settled.tokens, usd_micros=settled.usd_micros)
    match record.data:
        case ev.Completed(usage=usage) | ev.Failed(usage=usage):
            return Spent(tokens=max(0, usage.input_tokens + usage.output_tokens), usd_micros=price(usage))
        case _ if settled is not None:
            return Spent(tokens=max(0, settled.tokens), usd_micros=max(0, settled.usd_micros))
        case _:
            return None


def _behind(trial: Trial, record: Recorded, cost: Spent) -> None:
    trial.saved_tokens += cost.tokens
    trial.saved_usd_micros += cost.usd_micros
    if not isinstance(record.data, ev.Completed):
        return
    ref, _ = parse_event(record.subject)
    trial.stopped += 1
    done = Done(
        id=ref.id,
        role=f"{ref.project}/{ref.role}",
        at=record.stored_at,
        tokens=cost.tokens,
        usd_micros=cost.usd_micros,
    )
    trial.work.append(done)
