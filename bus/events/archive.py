"""What the archiver does to the record's own keeping, as events on ``ctl.archive.<stream>.<event>``."""

from __future__ import annotations

import msgspec

from bus.events.moment import Moment


class Trimmed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Messages left the stream: what is archived, proven in every store, and not needed any more."""

    stream: str
    #: When the stream was created: which life of it.
    created: str
    #: Sequences that left, both included.
    first: int
    last: int
    #: What kept the archiver from going further: ``hot``, ``archived``, ``copied``, ``unfinished``, ``window``, ``consumer``, ``last``.
    held_by: str
    #: Messages younger than this stay.
    before: Moment


class Damaged(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A file of the archive is not what it was: an ultra, unless it is repaired."""

    stream: str
    first: int
    last: int
    file: str
    problem: str


class Repaired(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A damaged file of the archive was made again."""

    stream: str
    first: int
    last: int
    file: str
    #: ``copy``: from the object store; ``stream``: from the stream, which still has the sequences.
    source: str


EVENTS: dict[str, type[msgspec.Struct]] = {"trimmed": Trimmed, "damaged": Damaged, "repaired": Repaired}
