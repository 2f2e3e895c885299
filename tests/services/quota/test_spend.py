"""The fold of spend: one number from the log, whatever the order, and never below zero."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.author import Author
from bus.events import invocation as ev
from bus.store import Recorded
from bus.subjects import Ref
from services.quota import spend as module
from services.quota.spend import Spend

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
REF = Ref("shop", "coder", "i-1")
DAY = "shop_coder.tokens.day_2026-11-24"
AUTHOR = Author("/test", actor="tester")


def windows(at: datetime) -> tuple[str, ...]:
    """Hours and days, in UTC."""
    return f"hour_{at:%Y-%m-%dT%H}", f"day_{at:%Y-%m-%d}"


def records(*events: tuple[Ref, Any, datetime], root: str = "") -> list[Recorded]:
    """Events as they lie in the log."""
    return [
        Recorded(seq, ref.event(ev.NAMES[type(data)]), at, AUTHOR.invocation(ref, data, root=root), data)
        for seq, (ref, data, at) in enumerate(events, 1)
    ]


def claimed(hold: ev.Hold | None = None, delivery: int = 1) -> ev.Claimed:
    """A claim."""
    return ev.Claimed(holder="h", runner="r", delivery=delivery, attempt=1, reply="", hold=hold)


def completed(tokens: int, hold: ev.Hold | None = None, usd: int = 0) -> ev.Completed:
    """A completion that used so much; settled if there was a hold."""
    settled = None if hold is None else ev.Settlement(hold=hold, tokens=tokens, usd_micros=usd)
    return ev.Completed(holder="h", delivery=1, usage=ev.Usage(output_tokens=tokens), settled=settled)


def folded(items: list[Recorded], **more: Any) -> Spend:
    """The fold of records."""
    spend = Spend(windows, **more)
    for item in items:
        spend.take(item)
    return spend


HOLD = ev.Hold(id="h-1", tokens=100, usd_micros=7, keys=(DAY, "system.usd.day_2026-11-24"))


def test_hold_counts_from_the_claim_to_its_end() -> None:
    """A claim's hold is held on the counters that it names; its end settles what was used, on every scope and window."""
    history = records((REF, claimed(HOLD), NOON), (REF, completed(60, HOLD, 5), NOON))
    before = folded(history[:1])
    assert (before.get(DAY).held, before.get("system.usd.day_2026-11-24").held) == (100, 7)
    assert before.get("shop.tokens.day_2026-11-24").held == 0
    after = folded(history)
    for scope in ("shop_coder", "shop", "system"):
        for window in windows(NOON):
            assert after.get(f"{scope}.tokens.{window}").settled == 60
            assert after.get(f"{scope}.usd.{window}").settled == 5
    assert after.get("tree_i-1.tokens.all").settled == 60
    assert not any(total.held for total in after.totals.values())


@pytest.mark.parametrize(
    "end",
    [
        ev.Swept(holder="h", delivery=1, age_s=1, reason=ev.SweepReason.HOLDER_GONE),
        ev.Cancelled(),
        ev.Released(reason=ev.ReleaseReason.DRAIN),
        ev.DeadLettered(reason=ev.DeathReason.DELIVERIES_SPENT, usage=ev.Usage(output_tokens=9999)),
        claimed(),
    ],
)
def test_hold_of_the_dead_counts_whole(end: Any) -> None:
    """Where nobody says what was used, the whole hold counts, and is marked as assumed."""
    spend = folded(records((REF, claimed(HOLD), NOON), (REF, end, NOON)))
    total = spend.get(DAY)
    assert (total.settled, total.assumed, total.held) == (100, 100, 0)


def test_end_without_a_claim_counts_nothing() -> None:
    """A usage that comes twice or late finds no open claim: it counts once."""
    once = records((REF, claimed(HOLD), NOON), (REF, completed(60, HOLD), NOON))
    twice = [*once, *records((REF, completed(60, HOLD), NOON))]
    assert folded(twice).totals == folded(once).totals


def test_spend_without_a_hold_is_counted_by_its_usage() -> None:
    """Before there is a cap, usage counts as well, at present prices: a cap that is set at noon knows of the morning."""
    spend = folded(
        records((REF, claimed(), NOON), (REF, completed(60), NOON)), price=lambda usage: 2 * usage.output_tokens
    )
    assert spend.get(DAY).settled == 60
    assert spend.get("shop_coder.usd.day_2026-11-24").settled == 120


def test_negative_usage_counts_nothing() -> None:
    """A usage report below zero cannot give budget back."""
    spend = folded(records((REF, claimed(HOLD), NOON), (REF, completed(-60, HOLD), NOON)))
    assert (spend.get(DAY).settled, spend.get(DAY).held) == (0, 0)


def test_window_is_the_claims() -> None:
    """Work that runs over midnight counts for the day in which it was claimed, on whatever day it ends."""
    spend = folded(
        records((REF, claimed(HOLD), NOON), (REF, completed(60, HOLD), NOON + timedelta(days=1))), forget=False
    )
    assert spend.get(DAY).settled == 60
    assert spend.get("shop_coder.tokens.day_2026-11-25").settled == 0


@pytest.mark.parametrize("hours", [-3, 3, 30])
def test_clock_over_an_edge_neither_loses_nor_doubles(hours: int) -> None:
    """A holder whose clock is on the other side of a window's edge settles where it reserved, and nowhere else as well."""
    there = NOON + timedelta(hours=hours)
    keys = tuple(f"shop_coder.tokens.{window}" for window in windows(there))
    hold = ev.Hold(id="h", tokens=100, keys=keys)
    spend = folded(records((REF, claimed(hold), NOON), (REF, completed(60, hold), NOON)), forget=False)
    assert {key: total.settled for key, total in spend.totals.items() if key.startswith("shop_coder")} == dict.fromkeys(
        keys, 60
    )


def test_window_that_has_just_ended_is_still_known() -> None:
    """Somebody whose clock is behind the server's asks for the window before: it is there until the next one has ended too."""
    hour = "shop_coder.tokens.hour_2026-11-24T12"
    other = REF._replace(id="i-2")
    history = records(
        (REF, claimed(), NOON),
        (REF, completed(60), NOON),
        (other, claimed(), NOON + timedelta(hours=1)),
        (other, completed(5), NOON + timedelta(hours=1)),
        (other, claimed(), NOON + timedelta(hours=2)),
    )
    assert folded(history[:4]).get(hour).settled == 60
    assert hour not in folded(history).totals


def test_old_windows_are_dropped_and_held_ones_are_not() -> None:
    """A window that is over goes when the next one is too, but for what is still held on it or lies ahead."""
    ahead = "shop_coder.tokens.hour_2026-11-24T15"
    hold = ev.Hold(id="h", tokens=5, keys=("shop_coder.tokens.hour_2026-11-24T12",))
    early = ev.Hold(id="e", tokens=5, keys=(ahead,))
    other, third = REF._replace(id="i-2"), REF._replace(id="i-3")
    history = records(
        (REF, claimed(), NOON),
        (REF, completed(60), NOON),
        (other, claimed(hold), NOON),
        (third, claimed(early), NOON),
        (third, completed(4, early), NOON),
        (third, claimed(), NOON + timedelta(hours=1)),
        (third, claimed(), NOON + timedelta(hours=2)),
    )
    spend = folded(history)
    hours = {key for key in spend.totals if key.startswith("shop_coder.tokens.hour")}
    assert hours == {"shop_coder.tokens.hour_2026-11-24T12", ahead}
    assert spend.get(DAY).settled == 64
    spend.take(records((other, completed(1, hold), NOON))[0])
    assert spend.get("shop_coder.tokens.hour_2026-11-24T12").held == 0


def test_trees_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of run trees the ones that moved last are remembered, and those that hold something."""
    monkeypatch.setattr(module, "TREES", 20)
    hold = ev.Hold(id="h", tokens=5, keys=("tree_i-0.tokens.all",))
    history: list[tuple[Ref, ev.InvocationEvent, datetime]] = [(REF._replace(id="i-0"), claimed(hold), NOON)]
    for number in range(1, 200):
        ref = REF._replace(id=f"i-{number}")
        history += [(ref, claimed(), NOON), (ref, completed(1), NOON)]
    spend = folded(records(*history))
    assert len(spend.trees) <= 20
    assert spend.get("tree_i-0.tokens.all").held == 5
    assert spend.get("tree_i-199.tokens.all").settled == 1


def test_burn_is_of_the_last_minutes() -> None:
    """The burn rate is what was settled in the last ten minutes, a minute."""
    later = NOON + timedelta(minutes=30)
    spend = folded(
        records(
            (REF, claimed(), NOON), (REF, completed(900), NOON), (REF, claimed(), later), (REF, completed(50), later)
        )
    )
    assert spend.burn("shop_coder", "tokens", later) == 5
    assert spend.burn("shop_coder", "tokens", later + timedelta(minutes=11)) == 0
    assert spend.burn("nobody", "tokens", later) == 0


HOLDS = st.none() | st.builds(
    ev.Hold,
    id=st.just("h"),
    tokens=st.integers(0, 1000),
    usd_micros=st.integers(0, 1000),
    keys=st.lists(st.sampled_from([DAY, "system.usd.all", "shop.tokens.hour_2026-11-24T09"]), unique=True).map(tuple),
)
EVENTS = st.one_of(
    st.builds(claimed, HOLDS),
    st.builds(completed, st.integers(-100, 1000), HOLDS, st.integers(-100, 1000)),
    st.just(ev.Released(reason=ev.ReleaseReason.QUOTA)),
    st.just(ev.Cancelled()),
    st.just(ev.Requested()),
)


@given(st.lists(st.tuples(st.integers(0, 3), EVENTS, st.integers(0, 3000)), max_size=40))
def test_fold_of_anything_is_at_least_zero(story: list[tuple[int, Any, int]]) -> None:
    """Whatever order events come in, no total is below zero, what no open claim holds is not held, and a replay is equal."""
    history = records(
        *((REF._replace(id=f"i-{who}"), data, NOON + timedelta(minutes=minutes)) for who, data, minutes in story)
    )
    spend = folded(history, forget=False)
    totals = [*spend.totals.values(), *spend.trees.values()]
    assert all(total.settled >= total.assumed >= 0 and total.held >= 0 for total in totals)
    held = {
        key: sum(
            c.hold.tokens if ".tokens." in key else c.hold.usd_micros
            for c in spend.claims.values()
            if c.hold and key in c.hold.keys
        )
        for key in spend.totals
    }
    assert held == {key: total.held for key, total in spend.totals.items()}
    again = folded(history, forget=False)
    assert (again.totals, again.trees, again.claims) == (spend.totals, spend.trees, spend.claims)
