"""How a projector stands, as it tells others; knows nothing of DuckDB, so that everybody can read it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

#: Where a projector is asked how it stands.
SUBJECT = "projections.status"


class State(StrEnum):
    """What a projector does."""

    STARTING = "starting"
    #: New tables are made, and have not caught up yet: the published copy is the last one of the former tables.
    BUILDING = "building"
    FOLLOWING = "following"
    #: Something is in the way that a person may have to take out of it.
    STALLED = "stalled"


class Lag(msgspec.Struct, frozen=True, kw_only=True):
    """How far tables are behind a stream."""

    stream: str
    #: Last sequence in the tables, and in the stream.
    seq: int
    head: int
    #: Sequences between them: messages that are not in the tables yet, some of which may be deleted.
    behind: int
    #: Age of the oldest of those messages; 0 for none.
    seconds: float
    #: When the last message in the tables was stored; None for none.
    stored_at: datetime | None = None


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A copy that was published."""

    number: int
    published_at: datetime
    took_s: float
    bytes: int


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """How a projector stands."""

    state: State
    #: What a person has to know or do; empty for nothing.
    problem: str
    lags: tuple[Lag, ...]
    #: Which tables these are: a digest of what makes them.
    version: str
    #: The published copy; None before the first one of this process.
    published: Snapshot | None = None
    #: Seconds from one copy to the next at present, while something changes.
    period_s: float = 0.0

    @property
    def behind(self) -> int:
        """Messages that are not in the tables yet."""
        return sum(lag.behind for lag in self.lags)

    @property
    def seconds(self) -> float:
        """Age of the oldest of them."""
        return max((lag.seconds for lag in self.lags), default=0.0)
