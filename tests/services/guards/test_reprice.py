"""Spend computed again with other prices."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from bus.author import Author
from bus.events import invocation as ev
from bus.events.quota import Tripped
from bus.spend import Calendar
from bus.store import Recorded
from bus.subjects import Ref
from services.guards.reprice import Repricing, reprice

T0 = datetime(2026, 1, 31, 12, tzinfo=UTC)
AUTHOR = Author("/test", actor="tester")
KEY = "shop_coder.usd.day_2026-01-31"


def history() -> list[Recorded]:
    """Three completions of ten tokens each, a second apart."""
    found: list[Recorded] = []
    for n in range(3):
        data: Any = ev.Completed(holder="h", delivery=1, usage=ev.Usage(input_tokens=10))
        event = AUTHOR.invocation(Ref("shop", "coder", f"i{n}"), data, root=f"i{n}")
        found.append(Recorded(n + 1, event.subject, T0 + timedelta(seconds=n), event, data))
    return found


def run(new: int, *, cap: int, tripped: bool) -> Repricing:
    """Everything cost two a token; now it costs `new`."""
    trip = (T0 + timedelta(seconds=5), Tripped(key=KEY, used=60, held=0, cap=cap, needed=20))
    return reprice(
        history(),
        [trip] if tripped else [],
        {("shop_coder", "usd", "day"): cap},
        Calendar(),
        lambda usage: 2 * usage.input_tokens,
        lambda usage: new * usage.input_tokens,
    )


def test_trip_at_a_price_that_was_too_high_was_wrong() -> None:
    """At half the price the cap would not have been reached: the sums and the wrong trip are told."""
    found = run(1, cap=70, tripped=True)
    assert (found.before, found.after) == (60, 30)
    assert [(wrong.used_then, wrong.used_now) for wrong in found.wrong] == [(60, 30)]
    assert not found.missed


def test_trip_that_would_have_come_anyway_was_right() -> None:
    """At a higher price the trip stands."""
    assert not run(3, cap=70, tripped=True).wrong


def test_calls_that_should_have_been_refused_are_listed() -> None:
    """At a higher price the third call would have passed the cap, and nothing tripped then."""
    (missed,) = run(3, cap=70, tripped=False).missed
    assert missed.stopped == 1
