"""The whole copy of an invocation that was given up on, as a message on ``dlq.<project>.<role>.<id>``."""

from __future__ import annotations

import msgspec

from bus.events.invocation import DeathReason, Error, Requested, Usage
from bus.events.moment import Moment


class AttemptRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One try, from its claim to its end."""

    #: From 1, over all generations.
    number: int
    claimed_at: Moment
    #: ``failed``, ``swept`` or ``released``.
    outcome: str
    ended_at: Moment
    runner: str = ""
    holder: str = ""
    delivery: int = 0
    error: Error | None = None
    usage: Usage = Usage()
    #: Why it was swept or released.
    reason: str = ""


class Kept(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A dead letter: the request, every attempt, every error, and what it cost."""

    project: str
    role: str
    invocation: str
    reason: DeathReason
    request: Requested
    requested_at: Moment
    died_at: Moment
    #: Stream sequence of the ``dead_lettered`` event: the copy's identity, and the fence of a redrive.
    died_seq: int
    attempts: tuple[AttemptRecord, ...] = ()
    error: Error | None = None
    #: Everything its attempts used.
    usage: Usage = Usage()
    #: How often it had been redriven before this death.
    redrives: int = 0


EVENTS: dict[str, type[msgspec.Struct]] = {"kept": Kept}
