"""The tables on the panel: how far they are behind, how old the published copy is, and what of that concerns a person."""

from __future__ import annotations

from datetime import datetime

import msgspec
from nats import errors as driver

from bus.liveness import Heartbeat
from projections.standing import SUBJECT, State, Status
from services.daemon import Bus

#: Seconds that the oldest message may wait for its row: a batch takes a tenth of one, a restart a few.
LATE_S = 30.0
#: Seconds to wait for the projector's answer.
_PATIENCE_S = 2.0


class TablesLine(msgspec.Struct, frozen=True, kw_only=True):
    """How the tables stand."""

    state: State
    #: Messages that are not in them yet, and the age of the oldest.
    behind: int = 0
    seconds: float = 0.0
    #: Seconds since the copy for everybody was published; None when this process has not done so yet.
    published_age_s: float | None = None
    #: What is in the way.
    problem: str = ""

    @property
    def concern(self) -> str:
        """Why a person should look; empty for nothing."""
        if self.problem:
            return f"the tables stand still: {self.problem}"
        if self.seconds > LATE_S:
            doing = "are made anew and are" if self.state is State.BUILDING else "are"
            return f"the tables {doing} {self.behind:,} events and {self.seconds:.0f} s behind: see logs/projector.log"
        return ""


async def look(bus: Bus, beats: list[Heartbeat], now: datetime, unseen: list[str]) -> TablesLine | None:
    """Ask the projector; None when none is alive, which its own line says."""
    if not any(beat.daemon == "projector" for beat in beats):
        return None
    try:
        answer = await bus.connection.nc.request(SUBJECT, b"", timeout=_PATIENCE_S)
        status = msgspec.json.decode(answer.data, type=Status)
    except (driver.NoRespondersError, driver.TimeoutError, msgspec.DecodeError) as exc:
        unseen.append(f"how far the tables are (the projector does not answer: {type(exc).__name__})")
        return None
    published = status.published
    return TablesLine(
        state=status.state,
        behind=status.behind,
        seconds=status.seconds,
        published_age_s=max(0.0, round((now - published.published_at).total_seconds(), 3)) if published else None,
        problem=status.problem,
    )
