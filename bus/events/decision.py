"""What people have decided about the bus and the fleet, as events on ``ctl.decision.<number>.recorded``."""

from __future__ import annotations

import msgspec


class Recorded(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A decision, under a number that no other has."""

    #: From 1, without a gap.
    number: int
    title: str
    #: Who decided it.
    by: str
    context: str = ""
    decision: str = ""
    consequences: str = ""
    #: Number of the decision that it takes the place of; 0 for none.
    supersedes: int = 0


EVENTS: dict[str, type[msgspec.Struct]] = {"recorded": Recorded}
