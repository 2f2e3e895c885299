"""Spend computed again with other prices: what it comes to, which trips of money caps were wrong, and which never came.

Pure. Fed with the records of INVOCATIONS and the trips on record; decides nothing by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

import msgspec

from bus.events import invocation as ev
from bus.events.quota import Tripped
from bus.spend import USD, Calendar, Key
from bus.store import Recorded
from bus.subjects import parse_event
from services.guards.backtest import Backtest, Trial, Wanted, spent
from services.quota.spend import scopes


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt that has used something."""

    at: datetime
    scopes: tuple[str, ...]
    window_at: datetime
    #: Millionths of a US dollar: as settled, and at the other prices.
    before: int
    after: int


class WrongTrip(msgspec.Struct, frozen=True, kw_only=True):
    """A money cap that tripped and, at the other prices, would not have."""

    at: datetime
    key: str
    cap: int
    used_then: int
    used_now: int


class Repricing(msgspec.Struct, frozen=True, kw_only=True):
    """What other prices change."""

    before: int
    after: int
    wrong: tuple[WrongTrip, ...]
    #: Trips that would have come, with the calls that they would have refused.
    missed: tuple[Trial, ...]


def reprice(
    records: Iterable[Recorded],
    trips: Iterable[tuple[datetime, Tripped]],
    caps: dict[tuple[str, str, str], int],
    calendar: Calendar,
    old: Callable[[ev.Usage], int],
    new: Callable[[ev.Usage], int],
) -> Repricing:
    """Compute all of it.

    Args:
        records: the log, in order.
        trips: what tripped, and when.
        caps: the present money caps: (scope token, unit, window kind) -> millionths of a US dollar.
        calendar: windows.
        old: what a use cost where its settlement does not say so.
        new: what it costs.
    """
    backtest = Backtest(Wanted(caps=caps), calendar, new)
    claimed: dict[str, datetime] = {}
    calls: list[Call] = []
    for record in records:
        backtest.take(record)
        if record.data is None or record.event is None:
            continue
        ref, _ = parse_event(record.subject)
        if isinstance(record.data, ev.Claimed):
            claimed[ref.id] = record.stored_at
        elif (cost := spent(record, new)) is not None:
            settled: ev.Settlement | None = getattr(record.data, "settled", None)
            calls.append(
                Call(
                    at=record.stored_at,
                    scopes=scopes(ref.project, ref.role),
                    window_at=claimed.pop(ref.id, record.stored_at),
                    before=settled.usd_micros if settled is not None else old(record.data.usage),
                    after=cost.usd_micros,
                )
            )
    tripped = [(at, trip) for at, trip in trips if Key.parse(trip.key).unit == USD]
    wrong = [found for at, trip in tripped if (found := _wrong(at, trip, calls, calendar)) is not None]
    stood = {trip.key for _, trip in tripped}
    missed = [trial for trial in backtest.trials if trial.key not in stood]
    return Repricing(
        before=sum(call.before for call in calls),
        after=sum(call.after for call in calls),
        wrong=tuple(wrong),
        missed=tuple(missed),
    )


def _wrong(at: datetime, trip: Tripped, calls: list[Call], calendar: Calendar) -> WrongTrip | None:
    key = Key.parse(trip.key)
    span = calendar.parse(key.window)
    inside = [
        call
        for call in calls
        if key.scope in call.scopes and call.at <= at and (span is None or span.start <= call.window_at < span.end)
    ]
    used = sum(call.after for call in inside)
    before = sum(call.before for call in inside)
    # What was needed costs more or less by as much as the rest.
    needed = trip.needed * used // before if before else 0
    if used + needed > trip.cap or used >= trip.cap:
        return None
    return WrongTrip(at=at, key=trip.key, cap=trip.cap, used_then=trip.used, used_now=used)
