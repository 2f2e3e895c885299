"""Changes of the registry, as events on ``ctl.registry.<key>.<event>``: no revision is ever lost."""

from __future__ import annotations

import msgspec


class Changed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A key of the registry has a new value."""

    key: str
    #: KV revision that the change made.
    revision: int
    #: The whole new value.
    value: msgspec.Raw
    #: KV revision that it replaced; 0 for a new key.
    replaced: int = 0


class Removed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A key was taken out of the registry."""

    key: str
    revision: int
    replaced: int = 0


RegistryEvent = Changed | Removed

EVENTS: dict[str, type[msgspec.Struct]] = {"changed": Changed, "removed": Removed}
