"""Guards being proven on the running fleet, as events on ``ctl.drill.<guard>.<event>``."""

from __future__ import annotations

import msgspec


class Passed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The guard fired on a real fault."""

    guard: str
    #: Seconds from the fault to the guard's act.
    took_s: float
    #: What was seen, step by step.
    evidence: tuple[str, ...] = ()


class Failed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The guard did not fire, or not as it must. A concern."""

    guard: str
    expected: str
    got: str
    evidence: tuple[str, ...] = ()


EVENTS: dict[str, type[msgspec.Struct]] = {"passed": Passed, "failed": Failed}
