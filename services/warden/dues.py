"""Which due times a schedule has, and what becomes of each: arithmetic, without I/O or clock.

The server's ticks only say that it is time to look: every due time since the last one handled gets exactly one outcome,
also those whose tick was lost, came late, or came twice. A tick may stand for no due time at all (see
:mod:`services.fleet.cron`); then there is nothing to do.

Nothing here knows whether an outcome was carried out. Whoever carries it out makes ids from the due time, so that doing it
again changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import assert_never

import msgspec

from bus.events.schedule import MissReason
from services.fleet import cron
from services.fleet.spec import Overlap, Schedule

#: Ticks are stored about a millisecond after they are due, up to 250 ms when the schedule was set just before; a clock
#: that steps back in between may make it seem earlier. Due times are whole seconds, so half of one tells them apart.
_EARLY = timedelta(seconds=0.5)

#: Due times decided in one go: a schedule of every second that nobody handled for a week has 604,800.
LIMIT = 1000


class Ask(msgspec.Struct, frozen=True):
    """Request the role for this due time."""

    due: datetime
    #: Id of the invocation to cancel first; empty for none.
    cancel: str = ""


class Miss(msgspec.Struct, frozen=True):
    """Request nothing for this due time, and say why."""

    due: datetime
    reason: MissReason
    #: Id of the invocation that still runs, for ``overlap``.
    running: str = ""


def server_pattern(schedule: Schedule) -> tuple[str, str]:
    """What the server is told to tick by, as (cron with 6 fields, time zone). Not always the schedule's own words.

    Raises:
        BadCron: no cron that a fleet file would take.
        BadZone: no such time zone.
    """
    return _timetable(schedule).server_pattern


def due_times(schedule: Schedule, after: datetime, until: datetime, limit: int = LIMIT) -> list[datetime]:
    """The due times in (after, until], in UTC, oldest first, at most the first `limit`.

    Raises:
        BadCron: no cron that a fleet file would take.
        BadZone: no such time zone.
    """
    return list(islice(_between(_timetable(schedule), after, until), limit))


def next_due(schedule: Schedule, after: datetime) -> datetime | None:
    """The first due time after a moment, in UTC; None if there is none within five years (29 February before 2100).

    Raises:
        BadCron: no cron that a fleet file would take.
        BadZone: no such time zone.
    """
    return _timetable(schedule).following(after)


def due_of_tick(schedule: Schedule, stored_at: datetime) -> datetime | None:
    """The due time that a tick stands for: the latest at or before the moment the server stored it, in UTC.

    A tick that seems up to half a second early is taken for the due time it precedes.
    """
    return _timetable(schedule).preceding(stored_at + _EARLY)


def decide_dues(
    schedule: Schedule, last_handled: datetime | None, now: datetime, running: str, limit: int = LIMIT
) -> list[Ask | Miss]:
    """What becomes of each due time in (last_handled, now], oldest first.

    The newest is asked when it is within the catch-up window and the overlap rule lets it; every other is missed. At most
    the first `limit` are decided: call again with the last of them as `last_handled` until nothing comes back. That gives
    the same outcomes as deciding all at once.

    Args:
        schedule: the schedule.
        last_handled: the newest due time that has its outcome; None for a schedule that never had one: it owes nothing but
            the latest due time.
        now: wall time; at least the due time of the tick that asks.
        running: id of an invocation of this schedule that has not ended; empty for none.
        limit: how many to decide.

    Raises:
        BadCron: no cron that a fleet file would take.
        BadZone: no such time zone.
    """
    timetable = _timetable(schedule)
    if last_handled is None:
        latest = timetable.preceding(now)
        dues = [] if latest is None else [latest]
    else:
        dues = list(islice(_between(timetable, last_handled, now), limit + 1))
    # One more than the limit was looked for, so that the last one decided is known to be the newest, or not to be.
    newest = dues[-1] if dues and len(dues) <= limit else None
    return [_outcome(schedule, due, now, running, newest=due == newest) for due in dues[:limit]]


def _outcome(schedule: Schedule, due: datetime, now: datetime, running: str, *, newest: bool) -> Ask | Miss:
    if (now - due).total_seconds() > schedule.catch_up:
        return Miss(due, MissReason.TOO_LATE)
    if not newest:
        return Miss(due, MissReason.SUPERSEDED)
    match schedule.overlap:
        case Overlap.ALLOW:
            return Ask(due)
        case Overlap.SKIP:
            return Miss(due, MissReason.OVERLAP, running) if running else Ask(due)
        case Overlap.CANCEL_PREVIOUS:
            return Ask(due, running)
    assert_never(schedule.overlap)


def _timetable(schedule: Schedule) -> cron.Timetable:
    return cron.parse(schedule.cron, schedule.time_zone)


def _between(timetable: cron.Timetable, after: datetime, until: datetime) -> Iterator[datetime]:
    due = timetable.following(after.astimezone(UTC))
    while due is not None and due <= until:
        yield due
        due = timetable.following(due)
