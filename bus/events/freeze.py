"""The kill switch being thrown and cleared, as events on ``ctl.freeze.<freeze id>.<event>``.

A freeze's id is ``r<revision>`` of the flag's value that threw it, so everybody who sees the flag knows the id.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from bus.events.moment import Moment


class Stage(StrEnum):
    """What a receipt answers."""

    FREEZE = "freeze"
    THAW = "thaw"


class Frozen(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The server refuses every write to INVOCATIONS, and hands nothing out."""

    #: ``soft`` or ``hard``.
    mode: str
    #: Last stream sequence of INVOCATIONS when the server layer stood: nothing may follow it.
    seq: int
    reason: str = ""
    by: str = ""
    #: When it clears by itself; None for a freeze that somebody has to clear.
    until: Moment | None = None
    #: Instance names of the daemons that owe a receipt.
    owe: tuple[str, ...] = ()


class Changed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The mode of a standing freeze changed (soft to hard, a new end), or its flag was damaged and kept its mode."""

    mode: str
    why: str = ""
    by: str = ""


class Receipt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One daemon's answer to a freeze or a thaw."""

    stage: Stage
    daemon: str
    #: Instance name.
    instance: str
    boot_id: str
    #: Last stream sequence that it knows to have written before it stopped; 0 when it wrote nothing.
    stopped_at_seq: int = 0
    #: Invocations whose handlers it stopped, and those that it let run on.
    cut: int = 0
    running: int = 0
    #: Claims that it holds, and results that it keeps on disk until the thaw (at a thaw: those that it settled).
    held: int = 0
    spooled: int = 0


class Missing(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Daemons that owe a receipt did not give one in time: nobody can say that they stopped."""

    instances: tuple[str, ...]
    #: Seconds that were waited.
    waited_s: float


class Thawing(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Writes are taken again; claims are settled, then roles are released one after the other."""

    seq: int
    reason: str = ""
    by: str = ""
    #: Invocations a second that the backlog is released at; None for at once.
    ramp: float | None = None


class Thawed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Every role hands out work again."""

    #: Seconds that the freeze stood.
    frozen_s: float
    #: Events that were stored while the server layer stood; anything but 0 is an ultra.
    written: int = 0
    #: Claims of holders that did not outlive the freeze, put back at nobody's cost.
    put_back: int = 0


EVENTS: dict[str, type[msgspec.Struct]] = {
    "frozen": Frozen,
    "changed": Changed,
    "receipt": Receipt,
    "missing": Missing,
    "thawing": Thawing,
    "thawed": Thawed,
}
