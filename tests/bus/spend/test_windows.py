"""Windows cut time into pieces, in every zone and at every change of the clocks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.spend import KINDS, BadWindow, Calendar

ZONES = (
    "UTC",
    "Europe/Paris",
    "Australia/Lord_Howe",  # half an hour of summer time
    "Pacific/Apia",  # left a whole day out in 2011
    "America/St_Johns",  # used to change at one minute past midnight
    "America/Havana",  # changes at midnight
    "Asia/Kathmandu",  # 5 h 45 min
)
START = datetime(2000, 1, 1, tzinfo=UTC)
moments = st.integers(0, 40 * 366 * 86400).map(lambda seconds: START + timedelta(seconds=seconds))


@given(st.sampled_from(ZONES), st.sampled_from(KINDS), moments)
def test_windows_partition_time(zone: str, kind: str, moment: datetime) -> None:
    """A moment lies in its window, the windows beside it touch it, ids sort by time, and an id gives its window back."""
    calendar = Calendar(zone)
    span = calendar.span(kind, moment)
    assert span.start <= moment < span.end
    assert calendar.parse(span.id) == span
    following = calendar.span(kind, span.end)
    assert following.start == span.end
    assert following.id > span.id
    assert calendar.span(kind, span.start) == span
    assert calendar.span(kind, span.start - timedelta(microseconds=1)).end == span.start


@given(st.sampled_from(ZONES), st.lists(moments, max_size=8))
def test_windows_do_not_depend_on_what_was_asked_before(zone: str, asked: list[datetime]) -> None:
    """A clock that steps forth and back names the same windows as one that does not."""
    calendar = Calendar(zone)
    assert [calendar.ids(moment) for moment in asked] == [Calendar(zone).ids(moment) for moment in asked]


def test_windows_begin_on_the_wall_clock_of_their_zone() -> None:
    """In Paris a day begins at 23:00 UTC in winter, a week on Monday, and the last five hours of a day are four."""
    ids = Calendar("Europe/Paris").ids(datetime(2026, 11, 29, 22, 59, tzinfo=UTC))
    assert ids == ("hour_2026-11-29T23", "5h_2026-11-29T20", "day_2026-11-29", "week_2026-W48", "month_2026-11")
    ids = Calendar("Europe/Paris").ids(datetime(2026, 11, 29, 23, 0, tzinfo=UTC))
    assert ids == ("hour_2026-11-30T00", "5h_2026-11-30T00", "day_2026-11-30", "week_2026-W49", "month_2026-11")


def test_windows_count_an_hour_that_comes_twice_as_one() -> None:
    """When summer ends the repeated hour is one window of two hours, and the day has 25."""
    calendar = Calendar("Europe/Paris")
    first = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert calendar.span("hour", first) == calendar.span("hour", first + timedelta(hours=1))
    hour, day = calendar.span("hour", first), calendar.span("day", first)
    assert (hour.id, hour.end - hour.start) == ("hour_2026-10-25T02", timedelta(hours=2))
    assert day.end - day.start == timedelta(hours=25)


@pytest.mark.parametrize(
    "text", ["", "day", "day_2026-13-01", "day_2026-1-1", "5h_2026-11-24T03", "week_2026-W54", "year_2026", "day_x"]
)
def test_windows_refuse_what_is_no_id(text: str) -> None:
    """Only ids that a window can have are read."""
    with pytest.raises(BadWindow):
        Calendar().parse(text)


def test_windows_refuse_an_unknown_zone() -> None:
    """The sentence names the zone and what is expected."""
    with pytest.raises(BadWindow, match=r"unknown time zone 'Mars/Base'.*Europe/Paris"):
        Calendar("Mars/Base")


def test_windows_of_a_tree_are_always() -> None:
    """A run tree has one window without end."""
    assert Calendar().id("tree", datetime(2026, 1, 1, tzinfo=UTC)) == "all"
    assert Calendar().parse("all") is None
