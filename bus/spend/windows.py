"""Calendar windows: which hour, 5 hours, day, week and month of a time zone a moment lies in, and from when until when.

A window is named by the wall clock at its beginning: ``hour_2026-11-24T13``, ``5h_2026-11-24T10``, ``day_2026-11-24``,
``week_2026-W48`` (ISO, from Monday), ``month_2026-11``. Days begin at local midnight; the five hours are counted from
there, 00, 05, 10, 15 and 20, so the last block of a day has four.

Every moment lies in exactly one window of each kind, and a later moment never in an earlier window: a window begins when
its label is first seen on the wall clock. An hour that comes twice, when summer ends, is one window of two hours; one that
is left out has no window. A clock that steps is nothing special: it names another moment.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import msgspec

#: Window id of a counter without end: a run tree's.
ALWAYS = "all"

_SECOND = timedelta(seconds=1)


class BadWindow(ValueError):
    """A text that is no window id, or no time zone."""


class Span(msgspec.Struct, frozen=True):
    """A window: from its start, and until just before its end. Both UTC."""

    id: str
    start: datetime
    end: datetime


class _Kind(msgspec.Struct, frozen=True):
    #: Beginning of the wall clock window that holds a wall clock time.
    floor: Callable[[datetime], datetime]
    #: The one after that which begins at a wall clock time.
    following: Callable[[datetime], datetime]
    format: str
    #: Appended before an id is parsed, with its format.
    day: tuple[str, str] = ("", "")


def _midnight(wall: datetime) -> datetime:
    return wall.replace(hour=0, minute=0, second=0, microsecond=0)


def _five(wall: datetime) -> datetime:
    begin = wall + timedelta(hours=5)
    return begin if begin.date() == wall.date() else _midnight(begin)


def _month(wall: datetime) -> datetime:
    return (wall + timedelta(days=31)).replace(day=1)


_KINDS: dict[str, _Kind] = {
    "hour": _Kind(
        lambda wall: wall.replace(minute=0, second=0, microsecond=0),
        lambda wall: wall + timedelta(hours=1),
        "%Y-%m-%dT%H",
    ),
    "5h": _Kind(lambda wall: _midnight(wall).replace(hour=wall.hour // 5 * 5), _five, "%Y-%m-%dT%H"),
    "day": _Kind(_midnight, lambda wall: wall + timedelta(days=1), "%Y-%m-%d"),
    "week": _Kind(
        lambda wall: _midnight(wall) - timedelta(days=wall.weekday()),
        lambda wall: wall + timedelta(days=7),
        "%G-W%V",
        ("-1", "-%u"),
    ),
    "month": _Kind(lambda wall: _midnight(wall).replace(day=1), _month, "%Y-%m"),
}
#: Kinds of calendar windows, the shortest first.
KINDS = tuple(_KINDS)


class Calendar:
    """The windows of one time zone."""

    def __init__(self, time_zone: str = "UTC") -> None:
        """Read the zone.

        Raises:
            BadWindow: the system does not know it.
        """
        self.time_zone = time_zone
        try:
            self._zone = ZoneInfo(time_zone)
        except (KeyError, ValueError, OSError) as exc:
            raise BadWindow(f"unknown time zone {time_zone!r}; expected an IANA name such as 'Europe/Paris'") from exc
        #: The window of each kind that was asked for last: the next claim lies in the same one.
        self._last: dict[str, Span] = {}

    def span(self, kind: str, moment: datetime) -> Span:
        """The window of a kind (``hour``, ``5h``, ``day``, ``week``, ``month``) that a moment lies in."""
        last = self._last.get(kind)
        if last is not None and last.start <= moment < last.end:
            return last
        found = self._last[kind] = self._find(kind, moment)
        return found

    def id(self, kind: str, moment: datetime) -> str:
        """The id of that window; ``all`` for the kind ``tree``, which has no end."""
        return ALWAYS if kind == "tree" else self.span(kind, moment).id

    def ids(self, moment: datetime) -> tuple[str, ...]:
        """The ids of the windows of every kind that a moment lies in. Ids of one kind sort by time."""
        return tuple(self.span(kind, moment).id for kind in KINDS)

    def parse(self, window: str) -> Span | None:
        """A window by its id; None for ``all``, which is always.

        Raises:
            BadWindow: it is none.
        """
        if window == ALWAYS:
            return None
        kind, _, label = window.partition("_")
        try:
            shape = _KINDS[kind]
            wall = datetime.strptime(label + shape.day[0], shape.format + shape.day[1])  # noqa: DTZ007 (a wall clock's)
            if shape.floor(wall) != wall or self._id(kind, wall) != window:
                raise ValueError(window)  # noqa: TRY301 (one sentence for all)
        except (KeyError, ValueError) as exc:
            raise BadWindow(f"expected the id of a window, as 'day_2026-11-24', got: {window!r}") from exc
        return Span(window, _instant(self._zone, wall), _instant(self._zone, shape.following(wall)))

    def _find(self, kind: str, moment: datetime) -> Span:
        shape = _KINDS[kind]
        moment = moment.astimezone(UTC)
        wall = shape.floor(moment.astimezone(self._zone).replace(tzinfo=None, fold=0))
        # A wall clock that was put back shows a label once more that is over: its first end counts.
        while _instant(self._zone, shape.following(wall)) <= moment:
            wall = shape.following(wall)
        return Span(self._id(kind, wall), _instant(self._zone, wall), _instant(self._zone, shape.following(wall)))

    @staticmethod
    def _id(kind: str, wall: datetime) -> str:
        return f"{kind}_{wall.strftime(_KINDS[kind].format)}"


@lru_cache(maxsize=1024)
def _instant(zone: ZoneInfo, wall: datetime) -> datetime:
    """When a wall clock shows a time, or a later one, for the first time."""
    first = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    second = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)
    if first <= second:
        return first
    # The clock was put forward over it: at the leap, which lies between the two readings.
    before, after = second, first
    offset = after.astimezone(zone).utcoffset()
    while after - before > _SECOND:
        middle = before + timedelta(seconds=int((after - before).total_seconds()) // 2)
        if middle.astimezone(zone).utcoffset() == offset:
            after = middle
        else:
            before = middle
    return after
