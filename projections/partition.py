"""One of several projectors that share the streams: which messages are its own. Pure.

By project: everything that is folded into one row of a table (an invocation, its claims and its dead letter, an hour of a role's
spend) then lies in one partition, and the merged tables are the union of all. What concerns no project alone, CONTROL and the
server's advisories, is the first partition's.

Each projector reads all and keeps its own, rather than have the server filter subjects: so a project that nobody had heard of has a
place at once, and positions move with the stream and not with one's own messages. Reading is a seventh of the work.
"""

from __future__ import annotations

import re
import zlib

import msgspec

from bus import errors
from bus.store import DEAD_LETTERS, INVOCATIONS
from bus.wire import Delivery

_BY_PROJECT = frozenset({INVOCATIONS, DEAD_LETTERS})
#: As people write it, and as a file or a seat is called.
_WRITTEN = re.compile(r"(\d{1,4})/(\d{1,4})")
_NAMED = re.compile(r"part-(\d{1,4})-of-(\d{1,4})(?:$|[_.])")


class Partition(msgspec.Struct, frozen=True):
    """The part `number`, counted from 0, of `of`."""

    number: int = 0
    of: int = 1

    def __post_init__(self) -> None:
        """Raises Conflict for a part that there is not."""
        if not 0 <= self.number < self.of:
            raise errors.Conflict(f"expected a partition between 0 and {self.of - 1}, got: {self.number}")

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @property
    def name(self) -> str:
        """A folder's name: tables of another partition are other tables."""
        return f"part-{self.number}-of-{self.of}"

    def own(self, stream: str, deliveries: list[Delivery]) -> list[Delivery]:
        """Those that are folded here."""
        if self.of == 1:
            return deliveries
        if stream not in _BY_PROJECT:
            return deliveries if self.number == 0 else []
        return [d for d in deliveries if self.of_project(_project(d.subject)) == self.number]

    def reads(self, stream: str) -> bool:
        """Whether any message of a stream can be its own."""
        return self.number == 0 or stream in _BY_PROJECT

    def divides(self, stream: str) -> bool:
        """Whether messages of a stream belong to different partitions, by the second token of their subjects."""
        return self.of > 1 and stream in _BY_PROJECT

    def of_project(self, project: str) -> int:
        """Which partition has a project: the same one in every process."""
        return zlib.crc32(project.encode()) % self.of


def parse(text: str) -> Partition:
    """A part as people write it: ``1/4``.

    Raises:
        BadAsk: it is none.
    """
    found = _WRITTEN.fullmatch(text)
    number, of = (int(found[1]), int(found[2])) if found else (0, 0)
    if not number < of:
        raise errors.BadAsk(f"expected a part as NUMBER/OF, counted from 0, such as {_example(of)}, got: {text!r}")
    return Partition(number, of)


def named(text: str) -> Partition | None:
    """The part whose name a text begins with, such as a seat or a file's name; None for none."""
    found = _NAMED.match(text)
    if found is None or not int(found[1]) < int(found[2]):
        return None
    return Partition(int(found[1]), int(found[2]))


def _example(of: int) -> str:
    return f"0/{of} to {of - 1}/{of}" if of > 1 else "0/1" if of else "0/4 to 3/4"


def _project(subject: str) -> str:
    return subject.split(".", 2)[1]
