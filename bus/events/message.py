"""Rubbish found on the subjects, as events on ``ctl.message.<stream>-<seq>.rejected``."""

from __future__ import annotations

import msgspec


class Rejected(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A message that is no event of ours was found, reported and stepped over. The message itself stays where it is."""

    stream: str
    seq: int
    subject: str
    #: Why it could not be read, in one sentence.
    reason: str
    #: The first bytes of the payload, as text with the unprintable replaced; at most 200 characters.
    head: str = ""


EVENTS: dict[str, type[msgspec.Struct]] = {"rejected": Rejected}
