"""When a schedule is due, by arithmetic that agrees with the server's (nats-server 2.15, ADR-51).

Two kinds. A cron has six fields, seconds first, in an IANA time zone::

    second (0-59)  minute (0-59)  hour (0-23)  day of month (1-31)  month (1-12, JAN-DEC)  day of week (0-6, SUN-SAT)

with ``*``, numbers, names, ranges ``a-b``, steps ``*/n a-b/n a/n`` and lists. An ``@every`` is due at the multiples of its
period since the Unix epoch, so neither a restart nor a new revision moves it.

What is written must mean the same to the server, which ticks, and to this code, which says for which due time a tick
stands. So only what both read the same way is taken: ``L``, ``#``, ``W`` are refused by the server, ``?`` and empty list
items are not in crontab(5), and 7 is no Sunday. When days of the month and days of the week are both restricted either of
them makes a day match; with a stepped star (``*/2``) in one of them crons disagree about that, and it is refused.

Daylight saving: a local time that is left out is not due, one that comes twice is due twice. Not promised: a tick in the
hours after a change by half an hour (Lord Howe Island), which the server may set 30 minutes late.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import msgspec

from bus import errors
from services.fleet import durations

_SECOND = timedelta(seconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Where the search for skipped midnights begins: rules of today, not of the past.
_RULES_FROM = date(2024, 1, 1)
#: Years that are searched for a due time; the server gives up after as many.
_HORIZON_YEARS = 5
#: Seconds that make a regular cron over a minute, an hour, a day: what :func:`_grid` may build ticks from.
_GRID = tuple(
    sorted({n * unit for whole, unit in ((60, 1), (60, 60), (24, 3600)) for n in range(1, whole + 1) if whole % n == 0})
)
_ALIASES = {
    "@yearly": "0 0 0 1 1 *",
    "@annually": "0 0 0 1 1 *",
    "@monthly": "0 0 0 1 * *",
    "@weekly": "0 0 0 * * 0",
    "@daily": "0 0 0 * * *",
    "@midnight": "0 0 0 * * *",
    "@hourly": "0 0 * * * *",
}
_ITEM = re.compile(r"(?:(?P<star>\*)|(?P<first>[0-9A-Z]+)(?:-(?P<last>[0-9A-Z]+))?)(?:/(?P<step>[0-9]+))?")


class _Field(NamedTuple):
    """What one field of a cron may hold."""

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()


_FIELDS = (
    _Field("second", 0, 59),
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of month", 1, 31),
    _Field("month", 1, 12, ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")),
    _Field("day of week", 0, 6, ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")),
)


class BadCron(errors.BusError):
    """Text that says no times."""

    def __init__(self, cron: str, expected: str, got: str, remedy: str = "") -> None:
        self.cron = cron
        super().__init__(f"expected {expected}, got: {got}" + (f"; {remedy}" if remedy else ""))


class BadZone(errors.BusError):
    """A time zone that does not exist here."""

    def __init__(self, name: str) -> None:
        self.name = name
        hint = errors.did_you_mean(name, available_timezones())
        super().__init__(f"expected an IANA time zone such as 'Europe/Paris' or 'UTC', got: {name!r}{hint}")


class Every(msgspec.Struct, frozen=True):
    """Due at the multiples of a period since the Unix epoch."""

    #: Seconds, a whole number of at least 1.
    period: int

    def following(self, moment: datetime) -> datetime | None:
        """The first due time after `moment`."""
        return _EPOCH + timedelta(seconds=((moment - _EPOCH) // _SECOND // self.period + 1) * self.period)

    def preceding(self, moment: datetime) -> datetime | None:
        """The last due time at or before `moment`."""
        return _EPOCH + timedelta(seconds=(moment - _EPOCH) // _SECOND // self.period * self.period)

    @property
    def server_pattern(self) -> tuple[str, str]:
        """See :func:`Cron.server_pattern`.

        The server counts its own ``@every`` from when it was set, and again from when it was restarted. So it is given
        the coarsest regular cron that ticks at every due time; ticks in between fall on no due time and mean nothing.
        """
        tick = max(g for g in _GRID if self.period % g == 0)
        if tick < 60:
            return f"*/{tick} * * * * *", "UTC"
        if tick < 3600:
            return f"0 */{tick // 60} * * * *", "UTC"
        return f"0 0 */{tick // 3600} * * *", "UTC"


class Cron(msgspec.Struct, frozen=True):
    """Due when all six fields match the local time."""

    #: The six fields as the server is given them.
    text: str
    time_zone: str
    zone: tzinfo
    #: Ascending values of each field.
    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    #: Sunday is 0.
    weekdays: tuple[int, ...]
    #: A star in one of the two day fields: the other decides alone.
    both_days: bool

    @property
    def server_pattern(self) -> tuple[str, str]:
        """What the server is told to tick by: a six-field cron and its time zone.

        It ticks at every due time, and perhaps more often: a tick stands for the due times since the one before it, and
        may stand for none. Where midnight is left out when summer begins (Santiago, Havana, Beirut, Cairo), the server's
        search for a day steps over that whole day, week or month, so there it is given the time of day only.
        """
        if self.text.endswith(" * * *") or not _skips_midnight(self.time_zone):
            return self.text, self.time_zone
        return " ".join([*self.text.split(" ")[:3], "*", "*", "*"]), self.time_zone

    def following(self, moment: datetime) -> datetime | None:
        """The first due time after `moment`; None when there is none within five years."""
        at = moment.astimezone(UTC).replace(microsecond=0) + _SECOND
        last_year = at.year + _HORIZON_YEARS
        while at.year <= last_year:
            local = at.astimezone(self.zone)
            if local.month not in self.months:
                at = self._midnight((local.date().replace(day=1) + timedelta(days=32)).replace(day=1))
            elif not self._day_matches(local):
                at = self._midnight(local.date() + timedelta(days=1))
            elif local.hour not in self.hours:
                at += timedelta(seconds=3600 - 60 * local.minute - local.second)
            elif local.minute not in self.minutes:
                at += timedelta(seconds=60 - local.second)
            else:
                place = bisect_left(self.seconds, local.second)
                target = self.seconds[place] if place < len(self.seconds) else 60
                at += timedelta(seconds=target - local.second)
                if target < 60:
                    return at
        return None

    def preceding(self, moment: datetime) -> datetime | None:
        """The last due time at or before `moment`; None when there is none within five years."""
        at = moment.astimezone(UTC).replace(microsecond=0)
        first_year = at.year - _HORIZON_YEARS
        while at.year >= first_year:
            local = at.astimezone(self.zone)
            if local.month not in self.months:
                at = self._midnight(local.date().replace(day=1)) - _SECOND
            elif not self._day_matches(local):
                at = self._midnight(local.date()) - _SECOND
            elif local.hour not in self.hours:
                at -= timedelta(seconds=60 * local.minute + local.second + 1)
            elif local.minute not in self.minutes:
                at -= timedelta(seconds=local.second + 1)
            else:
                place = bisect_right(self.seconds, local.second)
                target = self.seconds[place - 1] if place else -1
                at -= timedelta(seconds=local.second - target)
                if place:
                    return at
        return None

    def _midnight(self, day: date) -> datetime:
        # The first moment of the day: where midnight is left out, it is read by the offset before, which is that moment.
        return datetime.combine(day, time(), self.zone).astimezone(UTC)

    def _day_matches(self, local: datetime) -> bool:
        in_month, in_week = local.day in self.days, local.isoweekday() % 7 in self.weekdays
        return in_month and in_week if self.both_days else in_month or in_week


Timetable = Cron | Every


@lru_cache(maxsize=4096)
def parse(text: str, time_zone: str = "UTC") -> Timetable:
    """The timetable that a schedule's `cron` and `time_zone` describe.

    Raises:
        BadCron: not six fields that mean the same to the server and here, never due, or a bad ``@every``.
        BadZone: no such time zone.
    """
    zone = _zone(time_zone)
    text = " ".join(text.split())
    if text.startswith("@every"):
        if time_zone != "UTC":
            raise BadCron(text, "no time zone beside '@every', which counts from the Unix epoch", repr(time_zone))
        return _every(text)
    if text.startswith("@"):
        if text not in _ALIASES:
            raise BadCron(text, f"'@every 10s' or one of {', '.join(_ALIASES)}", repr(text))
        text = _ALIASES[text]
    parts = text.upper().split(" ")
    if len(parts) != len(_FIELDS):
        remedy = f"put the second in front: '0 {text}'" if len(parts) == 5 else ""
        names = ", ".join(field.name for field in _FIELDS)
        raise BadCron(
            text, f"a cron with 6 fields ({names})", f"{len(parts)} in {text!r}" if text else "nothing", remedy
        )
    values = [_values(field, part, text) for field, part in zip(_FIELDS, parts, strict=True)]
    stars = [any(_is_star(item) for item in parts[place].split(",")) for place in (3, 5)]
    if not any(stars) and any("*" in parts[place] for place in (3, 5)):
        raise BadCron(
            text,
            "days of the month or of the week without a stepped star when both are restricted",
            f"{parts[3]!r} and {parts[5]!r}",
            "crons disagree whether one or both must match then: list the days",
        )
    seconds, minutes, hours, days, months, weekdays = values
    found = Cron(text, time_zone, zone, seconds, minutes, hours, days, months, weekdays, any(stars))
    if found.following(datetime(2024, 1, 1, tzinfo=UTC)) is None:
        raise BadCron(text, "a day that exists", f"{text!r}, which is never due")
    return found


def _is_star(item: str) -> bool:
    star, _, step = item.partition("/")
    return star == "*" and step in ("", "1")


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
        raise BadZone(name) from exc


@lru_cache(maxsize=64)
def _skips_midnight(time_zone: str) -> bool:
    """Whether the zone's clocks skip 00:00 on any day of a decade."""
    zone = _zone(time_zone)
    midnights = (datetime.combine(_RULES_FROM + timedelta(days=n), time(), zone) for n in range(3660))
    return any(midnight.astimezone(UTC).astimezone(zone).hour != 0 for midnight in midnights)


def _every(text: str) -> Every:
    try:
        period = durations.seconds(text.removeprefix("@every").strip())
    except durations.BadDuration:
        period = 0.0
    if not period >= 1 or period != int(period):
        raise BadCron(text, "'@every' and a whole number of seconds of at least 1s, as '@every 10s'", repr(text))
    return Every(int(period))


def _values(field: _Field, part: str, text: str) -> tuple[int, ...]:
    """Values of one field, ascending, by the server's rules: ``a/n`` runs to the end of the range."""

    def bad(got: str, remedy: str = "") -> BadCron:
        names = f" or {field.names[0]}-{field.names[-1]}" if field.names else ""
        return BadCron(
            text, f"{field.name} to be within {field.low}-{field.high}{names}", f"{got!r} in {text!r}", remedy
        )

    def number(word: str) -> int:
        if word in field.names:
            return field.names.index(word) + field.low
        value = int(word) if word.isdecimal() and len(word) < 3 else -1
        if not field.low <= value <= field.high:
            raise bad(word, "Sunday is 0" if field.name == "day of week" and value == 7 else "")
        return value

    found: set[int] = set()
    for item in part.split(","):
        match = _ITEM.fullmatch(item)
        if match is None:
            raise bad(item, "use '*', numbers, names, a-b, a-b/n, */n, with commas between")
        star, first, last, step = match.group("star", "first", "last", "step")
        low = field.low if star else number(first)
        high = number(last) if last else low if not (star or step) else field.high
        if low > high:
            raise bad(item, f"write it as two: '{first}-{field.high},{field.low}-{last}'")
        if step is not None and not 1 <= int(step) <= 99:
            raise bad(item, "a step is between 1 and 99")
        found.update(range(low, high + 1, int(step or 1)))
    return tuple(sorted(found))
