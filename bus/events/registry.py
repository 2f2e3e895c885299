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
    #: Who put it; empty when it was put with nothing but NATS.
    who: str = ""
    why: str = ""
    #: Id of the action that it belongs to, in ``ctl.ops.<id>.>``.
    operation: str = ""


class Removed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A key was taken out of the registry."""

    key: str
    revision: int
    replaced: int = 0
    who: str = ""
    why: str = ""
    operation: str = ""


class Refused(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A value cannot be used: the last good one stays in effect."""

    key: str
    #: KV revision of the value; 0 when it is a file, which came into no bucket.
    revision: int
    #: What is wrong with it, with the line where there is one.
    sentence: str
    #: KV revision that stays in effect; 0 when there is none.
    kept: int = 0


RegistryEvent = Changed | Removed | Refused

EVENTS: dict[str, type[msgspec.Struct]] = {"changed": Changed, "removed": Removed, "refused": Refused}
