"""What became of a schedule's ticks, as events on ``ctl.schedule.<project>_<role>_<name>.<event>``."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from bus.events.moment import Moment


class MissReason(StrEnum):
    """Why a due time passed without a request."""

    #: Found too late: outside the schedule's catch-up window.
    TOO_LATE = "too_late"
    #: The overlap rule: the invocation before it still runs.
    OVERLAP = "overlap"
    #: The role, or its schedule, is no longer registered.
    UNREGISTERED = "unregistered"
    #: More than one due time fell into the catch-up window; only the last is run.
    SUPERSEDED = "superseded"


class Missed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A due time passed and nothing was requested for it."""

    schedule: str
    project: str
    role: str
    due: Moment
    reason: MissReason
    #: Id of the invocation still running, for ``overlap``.
    running: str = ""


ScheduleEvent = Missed

EVENTS: dict[str, type[msgspec.Struct]] = {"missed": Missed}
