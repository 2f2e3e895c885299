"""A cap as people see it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from services.quota import lines
from services.quota.breaker import Line

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
LINE = Line(
    key="shop.tokens.day_2026-11-24",
    scope="shop",
    unit="tokens",
    window="day",
    cap=2_000_000,
    used=1_220_000,
    held=40_000,
    until=NOON + timedelta(hours=12),
)


def test_panel_names_the_window_the_burn_rate_and_the_time_of_the_cap() -> None:
    """The panel says how much of the window is used, what is held, how fast it goes, and when the cap is reached."""
    text = lines.text(lines.shown(LINE, 780_000 / 340, NOON), NOON)
    assert text == "61% of window (1.22M of 2M tokens, +40k held, 2.29k a minute), cap reached at 17:40 UTC"


def test_panel_of_a_tripped_cap_names_its_end_and_no_forecast() -> None:
    """What has tripped is not going to be reached any more."""
    text = lines.text(lines.shown(LINE, 1e6, NOON, tripped=True), NOON)
    assert text.endswith(", tripped until 2026-11-25 00:00 UTC")


def test_cap_that_is_not_reached_in_its_window_has_no_time() -> None:
    """A rate that does not fill the cap before the window ends is no forecast."""
    assert lines.shown(LINE, 1, NOON).reached_at is None
    assert lines.shown(LINE, 0, NOON).reached_at is None


def test_forecast_of_another_day_has_its_date() -> None:
    """A time without a date is today's."""
    month = msgspec.structs.replace(LINE, window="month", until=NOON + timedelta(days=6))
    assert "cap reached at 2026-11-26 12:00 UTC" in lines.text(lines.shown(month, 780_000 / 2880, NOON), NOON)


def test_panel_of_trees_names_the_fullest() -> None:
    """A cap over run trees is shown of one tree, by its root, under the scope that declares it."""
    tree = msgspec.structs.replace(LINE, scope="tree r1", declared="shop", window="tree", until=None)
    shown = lines.shown(tree, 0, NOON, tree="r1")
    assert shown.scope == "shop"
    assert lines.text(shown, NOON).startswith("61% of tree r1 (")
    idle = lines.idle("shop", "shop", "tokens", 5_000, "", "UTC")
    assert lines.text(idle, NOON) == "0% of each tree (0 of 5k tokens)"


@pytest.mark.parametrize(("percent", "shown"), [(0.4, "0%"), (61.0, "61%"), (99.9, "99%"), (100.0, "100%")])
def test_nothing_is_full_before_it_is(percent: float, shown: str) -> None:
    """A cap that has room left is never shown as full."""
    assert lines.whole(percent) == shown
