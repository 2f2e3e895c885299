"""Changes of guards made by people, as events on ``ctl.guard.<guard>.<event>``."""

from __future__ import annotations

import msgspec

from bus.events.moment import Moment


class Paused(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A role hands out no work for now."""

    role: str
    reason: str
    until: Moment | None = None


class Resumed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A role hands out work again."""

    role: str
    reason: str = ""


EVENTS: dict[str, type[msgspec.Struct]] = {"paused": Paused, "resumed": Resumed}
