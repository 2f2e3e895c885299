"""The tables of a projector, as events on ``ctl.projection.<host>.<event>``."""

from __future__ import annotations

import msgspec


class Rebuilt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The tables were made anew from the archive and the streams, and have caught up."""

    #: What was wrong with the former ones.
    why: str
    #: Name of the file that they were set aside as; empty when nothing of them is worth keeping.
    aside: str = ""
    #: Which tables these are: a digest of what makes them.
    version: str = ""
    #: Seconds from the start of the work to the switch; the time that a process was away counts.
    took_s: float = 0.0


class Stalled(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The tables stand still, or are published no more: a person is needed. Nothing is lost, the streams keep it."""

    #: ``reading`` or ``publishing``.
    what: str
    why: str


class Resumed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was in the way is gone."""

    what: str
    stalled_s: float


EVENTS: dict[str, type[msgspec.Struct]] = {"rebuilt": Rebuilt, "stalled": Stalled, "resumed": Resumed}
