"""What people write for a moment of the past."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cli.exits import UsageError
from services.cli.moment import parse

PARIS = ZoneInfo("Europe/Paris")
#: Noon in Paris.
NOW = datetime(2026, 11, 25, 11, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-23 03:12", datetime(2026, 11, 23, 2, 12, tzinfo=UTC)),
        ("2026-11-23T03:12:05", datetime(2026, 11, 23, 2, 12, 5, tzinfo=UTC)),
        ("2026-11-23T03:12:05Z", datetime(2026, 11, 23, 3, 12, 5, tzinfo=UTC)),
        ("2026-11-23 03:12+09:00", datetime(2026, 11, 22, 18, 12, tzinfo=UTC)),
        ("2026-11-23", datetime(2026, 11, 22, 23, 0, tzinfo=UTC)),
        ("2026-07-01 12:00", datetime(2026, 7, 1, 10, 0, tzinfo=UTC)),
        ("03:12", datetime(2026, 11, 25, 2, 12, tzinfo=UTC)),
        ("23:30", datetime(2026, 11, 24, 22, 30, tzinfo=UTC)),
        ("2h", datetime(2026, 11, 25, 9, 0, tzinfo=UTC)),
        ("1d", datetime(2026, 11, 24, 11, 0, tzinfo=UTC)),
    ],
)
def test_what_is_meant(text: str, moment: datetime) -> None:
    """A time without a zone is local, a clock time the last that has been, an age from now back."""
    assert parse(text, NOW, PARIS) == moment


@pytest.mark.parametrize("text", ["", "soon", "25:99", "2026-13-01", "yesterday", "2h ago", "-1h"])
def test_no_moment(text: str) -> None:
    """What is no moment is refused with what one looks like, under the name of its option."""
    with pytest.raises(UsageError, match="expected --at to"):
        parse(text, NOW, PARIS)
    with pytest.raises(UsageError, match="expected --since to be a moment such as"):
        parse(text, NOW, PARIS, option="--since")


def test_the_future_is_refused() -> None:
    """A moment that lies ahead is refused, with the time that it is."""
    with pytest.raises(UsageError, match=r"which is 2026-11-25 12:00:00 UTC; it is 2026-11-25 11:00:00 UTC now"):
        parse("2026-11-25 13:00", NOW, PARIS)


@given(st.datetimes(datetime(2001, 1, 1), datetime(2026, 11, 24)))  # noqa: DTZ001 (local times)
def test_local_times_come_back(local: datetime) -> None:
    """A local time is the moment at which clocks of that zone first showed it, or the leap that left it out."""
    moment = parse(local.isoformat(sep=" "), NOW, PARIS)
    shown = moment.astimezone(PARIS).replace(tzinfo=None)
    assert shown == local or timedelta() < abs(shown - local) <= timedelta(hours=1)
