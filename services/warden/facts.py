"""What the warden tells of the log that it has folded: the answer on ``fleet.status``, apart from the warden that makes it.

Whoever asks imports this and none of the guards: the command line starts in half the time.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from services.warden.work import LastError, TripFact


class RunningFact(msgspec.Struct, frozen=True, kw_only=True):
    """A claim in flight."""

    invocation: str
    role: str
    runner: str
    since: datetime
    age_s: float


class RoleFact(msgspec.Struct, frozen=True, kw_only=True):
    """How a role stands: unfinished work by status, and events seen by name."""

    role: str
    unfinished: dict[str, int]
    events: dict[str, int]


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What only the one who has folded the log can tell quickly."""

    #: Sequence of the last event folded, and how many wait behind it.
    position: int
    lag: int
    roles: tuple[RoleFact, ...]
    #: The oldest claims first; at most 20.
    running: tuple[RunningFact, ...]
    #: The newest first; at most 20.
    last_errors: tuple[LastError, ...]
    #: Sweeps, put-backs and burials since the warden started.
    swept: int
    #: Event name -> the last time that a guard acted on an invocation.
    trips: dict[str, TripFact] = {}
