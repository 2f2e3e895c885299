"""The loop breaker stopping a run tree, as events on ``ctl.loop.<root id>.<event>``."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class LoopReason(StrEnum):
    """What a tree did."""

    DEPTH = "depth"
    FAN_OUT = "fan_out"
    DESCENDANTS = "descendants"
    REPEATED_INPUT = "repeated_input"
    PING_PONG = "ping_pong"
    NO_PROGRESS = "no_progress"


class Tripped(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A run tree passed a limit: its queued work is given up on for a person, and it asks for nothing more."""

    reason: LoopReason
    #: What was counted, and what is allowed.
    count: int
    limit: int
    #: ``project/role`` whose request or result passed the limit, and that invocation.
    role: str
    invocation: str
    #: Spend of the tree so far.
    tokens: int = 0
    usd_micros: int = 0
    descendants: int = 0


class Cleared(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A person let the tree go on; its counts begin again."""

    reason: str


EVENTS: dict[str, type[msgspec.Struct]] = {"tripped": Tripped, "cleared": Cleared}
