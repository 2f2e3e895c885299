"""The monitor's looks at the whole fleet, as events on ``ctl.sweep.<id>.<event>``.

A sweep that began and has no ``finished`` was cut off: its findings are those of the one before it. A sweep that never began
is a finding of the launcher, see :mod:`bus.events.finding`.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from bus.events.moment import Moment


class Trigger(StrEnum):
    """What asked for a sweep."""

    #: The server's own schedule: the audit.
    SCHEDULE = "schedule"
    #: A person or a script.
    DEMAND = "demand"
    #: Something in the log that cannot wait: the alarm.
    EVENT = "event"
    #: A look in between found that something had changed; looks that find nothing new leave no event.
    LOOK = "look"
    #: The warden came up: what happened while it was away is looked at first.
    START = "start"


class Verdict(StrEnum):
    """How the fleet is."""

    NOMINAL = "nominal"
    CONCERN = "concern"
    ULTRA = "ultra"


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Findings by what became of them since the sweep before."""

    new: int = 0
    still: int = 0
    worse: int = 0
    better: int = 0
    gone: int = 0
    #: Of the open ones: muted by their cause, and silenced by a person.
    muted: int = 0
    silenced: int = 0
    #: All that are open.
    open: int = 0


class Started(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A sweep begins to look."""

    trigger: Trigger
    #: What asked, in words: the person, or the subject of the event.
    why: str = ""


class Finished(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A sweep has looked at everything that it could see, and has written what it found."""

    trigger: Trigger
    verdict: Verdict
    counts: Counts
    took_ms: float
    #: Stream -> its last sequence when the sweep looked.
    positions: dict[str, int]
    #: What could not be seen, in words; such a sweep is never nominal.
    unseen: tuple[str, ...] = ()
    #: Fingerprints of the findings that speak for themselves: open, not muted, not silenced; the worst first, at most 100.
    findings: tuple[str, ...] = ()
    #: When the next one is due by the schedule.
    next_at: Moment | None = None
    why: str = ""


EVENTS: dict[str, type[msgspec.Struct]] = {"started": Started, "finished": Finished}
