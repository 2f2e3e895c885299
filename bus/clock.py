"""Time comes in from the edge.

``now`` is wall time and goes only into envelopes and deadlines that outlive a process; durations are measured with
``monotonic``, so a clock that steps neither ends a claim nor keeps one alive.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What pure code is never allowed to reach for by itself."""

    def now(self) -> datetime:
        """Wall time, UTC, timezone-aware."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never steps."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> datetime:
        """Wall time, UTC, timezone-aware."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never steps."""
        return time.monotonic()
