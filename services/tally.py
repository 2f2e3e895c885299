"""How far a replay is: what the panel shows of it, apart from the replay that counts."""

from __future__ import annotations

import msgspec


class Tally(msgspec.Struct):
    """How far a replay is; token sums are of completed invocations."""

    requested: int = 0
    completed: int = 0
    failed: int = 0
    dead_lettered: int = 0
    cancelled: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    #: Sums of the rows that were asked for.
    asked_input_tokens: int = 0
    asked_output_tokens: int = 0
    #: Seconds behind the recorded pace.
    behind_s: float = 0.0
    #: Every row was asked for.
    all_asked: bool = False

    @property
    def ended(self) -> int:
        """Invocations with a terminal event."""
        return self.completed + self.dead_lettered + self.cancelled

    @property
    def done(self) -> bool:
        """Every row was asked for, and every invocation has ended."""
        return self.all_asked and self.ended >= self.requested
