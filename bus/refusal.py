"""The one shape in which a guard says no: to a command line, over NATS, to Python and to a child process alike.

A refusal names its reason, what it covers, since when and until when, who can clear it and with which command, and what
is still allowed. Standing refusals (a trip that stays until a window ends or a person clears it) lie in the bucket
``trips`` in this same shape.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum

import msgspec

from bus import errors
from bus.events.moment import Moment

#: Exit status of everything that is refused for now (EX_TEMPFAIL of sysexits.h).
EXIT_LATER = 75


class Reason(StrEnum):
    """Which guard says no."""

    #: The kill switch is thrown.
    FROZEN = "frozen"
    #: The kill switch cannot be read: nobody can say that it is clear.
    UNVERIFIED_FLAG = "unverified_flag"
    #: A spend cap is reached.
    CAPPED = "capped"
    #: The spend cannot be counted: its counter is missing, or does not answer.
    UNVERIFIED_SPEND = "unverified_spend"
    #: A role under a money cap uses a model whose price nobody has named.
    NO_PRICE = "no_price"
    #: A run tree went round in circles, grew too deep, too wide or too large, or spent without progress.
    LOOP = "loop"
    #: The claim was swept, cancelled or taken over.
    STALE_CLAIM = "stale_claim"
    #: The role hands out no work for now: a person, or a provider's limit, paused it.
    PAUSED = "paused"


class Refusal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why something may not be done now, and what would change that."""

    reason: Reason
    #: What it covers: ``system``, a project, ``project/role``, or ``tree <root id>``.
    scope: str
    #: What happened, as the middle of a sentence: ``2,000,000 of 2,000,000 tokens of this day are used``.
    because: str = ""
    since: Moment | None = None
    #: When it ends by itself; None: only somebody ends it.
    until: Moment | None = None
    #: Who can end it: ``a person``, ``its guard``.
    clears: str = "a person"
    #: The exact command that ends it.
    command: str = ""
    #: What may still be done.
    allowed: str = ""

    def covers(self, role: str) -> bool:
        """Whether a ``project/role`` is in its scope. A run tree covers no role."""
        return self.scope in ("system", role, role.partition("/")[0])

    def stands(self, now: datetime) -> bool:
        """Whether its time is not over yet."""
        return self.until is None or self.until > now

    @property
    def sentence(self) -> str:
        """All of it as one sentence, for people and logs."""
        text = f"{self.scope} is refused ({self.reason.value.replace('_', ' ')})"
        if self.because:
            text += f": {self.because}"
        if self.since is not None:
            text += f", since {_time(self.since)}"
        text += f", until {_time(self.until)}" if self.until is not None else ", until it is cleared"
        if self.command:
            text += f"; {self.clears} can clear it: {self.command}"
        elif self.clears:
            text += f"; {self.clears} clears it"
        return text + (f"; still allowed: {self.allowed}" if self.allowed else "")


class GuardRefused(errors.BusError):
    """A guard says no. Nothing was written; the refusal says until when."""

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal
        super().__init__(refusal.sentence)


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
