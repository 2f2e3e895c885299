"""A moment of the past, as a person writes it: ``2026-11-23 03:12`` in local time, ``03:12``, ``2h``, or RFC 3339. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo

from services.cli.exits import UsageError
from services.fleet import durations

_CLOCK = re.compile(r"^(\d{1,2}):(\d{2})(?::(\d{2}))?$")
_EXPECTED = "a moment such as '2026-11-23 03:12' (local time), 03:12, 2h (ago), or 2026-11-23T03:12:00Z"


def parse(text: str, now: datetime, zone: tzinfo | None = None, *, option: str = "--at") -> datetime:
    """The moment that is meant, in UTC.

    Args:
        text: a date with a time, a time alone (the last one that has been), or an age.
        now: the present, with a time zone.
        zone: what a time without a zone is in; None is the machine's own.
        option: what it was given as.

    Raises:
        UsageError: it is none, or lies ahead.
    """
    wanted = text.strip()
    here = now.astimezone(zone)
    clock = _CLOCK.match(wanted)
    try:
        if clock is not None:
            hour, minute, second = (int(part or 0) for part in clock.groups())
            at = _placed(here.replace(tzinfo=None, hour=hour, minute=minute, second=second, microsecond=0), zone)
            if at > now:
                yesterday = here.replace(tzinfo=None) - timedelta(days=1)
                at = _placed(yesterday.replace(hour=hour, minute=minute, second=second, microsecond=0), zone)
        elif re.match(r"^\d{4}-\d{2}-\d{2}", wanted):
            at = _placed(datetime.fromisoformat(wanted), zone)
        else:
            at = now - timedelta(seconds=durations.seconds(wanted))
    except (ValueError, OverflowError, durations.BadDuration) as exc:
        raise UsageError(f"expected {option} to be {_EXPECTED}, got: {text!r}") from exc
    at = at.astimezone(UTC)
    if at > now:
        raise UsageError(
            f"expected {option} to lie in the past, got: {text!r}, which is {at:%Y-%m-%d %H:%M:%S} UTC; it is {now.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC now"
        )
    return at


def _placed(at: datetime, zone: tzinfo | None) -> datetime:
    """A time without a zone, in the zone; of the two that an hour of autumn has, the first."""
    if at.tzinfo is not None:
        return at
    return at.astimezone() if zone is None else at.replace(tzinfo=zone)
