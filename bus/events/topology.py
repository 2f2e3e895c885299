"""Changes of streams, buckets and consumers, as events on ``ctl.topology.<name>.<event>``."""

from __future__ import annotations

import msgspec


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One field that differed."""

    field: str
    #: Values as JSON text; ``null`` where there was none.
    before: str
    after: str


class Applied(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The live bus was brought to the declared shape."""

    name: str
    #: ``create``, ``update`` or ``delete``.
    action: str
    changes: tuple[Change, ...] = ()


EVENTS: dict[str, type[msgspec.Struct]] = {"applied": Applied}
