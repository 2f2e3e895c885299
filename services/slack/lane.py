"""What waits for one channel, and what is shown next. Pure.

Urgent before everything else, and within a thread in the order of the events: what is urgent takes what waits before it in its
thread along. Several changes of one message are one change. When more than `burst` wait, those that are alike are shown as
one, so that a storm is told in a few messages; what is urgent is never put together.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence

import msgspec

from services.slack import seqs
from services.slack.message import Message
from services.slack.notice import Notice, Place

#: Events that one message stands for, at most: their sequences must fit into its metadata.
GROUP = 400
#: Titles that a group shows.
_TITLES = 5


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What is shown by one call: one notice, or several as one."""

    notices: tuple[Notice, ...]
    message: Message
    #: Several events that are shown as one message, which is nobody's head.
    together: bool = False
    #: It is urgent, or something urgent of its thread waits behind it.
    hastened: bool = False
    #: It was sent, and nobody can say whether it stands.
    unsure: bool = False

    @property
    def first(self) -> Notice:
        """The oldest of them."""
        return self.notices[0]

    @property
    def last(self) -> Notice:
        """The newest of them."""
        return self.notices[-1]


class Lane:
    """The queue of one channel."""

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self._urgent: deque[Notice] = deque()
        self._main: deque[Notice] = deque()
        #: Taken and not shown after all: it comes first again.
        self._again: deque[Work] = deque()

    def __len__(self) -> int:
        return len(self._urgent) + len(self._main) + sum(len(work.notices) for work in self._again)

    @property
    def urgent(self) -> int:
        """How many urgent ones wait."""
        return len(self._urgent)

    def add(self, notice: Notice) -> None:
        """One more; of a thread in the order of its events."""
        if not notice.urgent:
            if notice.key and any(other.key == notice.key for other in self._urgent):
                self._urgent.append(notice)
            else:
                self._main.append(notice)
            return
        if notice.key:
            ahead = [other for other in self._main if other.key == notice.key]
            if ahead:
                self._urgent.extend(ahead)
                self._main = deque(other for other in self._main if other.key != notice.key)
        self._urgent.append(notice)

    def put_back(self, work: Work) -> None:
        """It was not shown: it is next again, but for what is urgent."""
        if work.hastened:
            # Also before what was put back earlier and is not urgent: what comes after it in its thread must wait for it.
            self._again.appendleft(work)
        else:
            self._again.append(work)

    def take(self, burst: int) -> Work | None:
        """What is shown next; None for nothing. `burst` is how many may wait before they are put together."""
        if self._again and (not self._urgent or self._goes_first(self._again[0])):
            return self._again.popleft()
        if self._urgent:
            first = self._urgent.popleft()
            found = self._updates(first, self._urgent) if first.place is Place.UPDATE else [first]
            return msgspec.structs.replace(_one(found), hastened=True)
        if not self._main:
            return None
        crowded = len(self._main) > burst
        first = self._main.popleft()
        if first.place is Place.UPDATE:
            return _one(self._updates(first, self._main))
        alike = self._alike(first) if crowded else [first]
        keys = {notice.key for notice in alike if notice.place is Place.NEW and notice.key}
        later = self._changes(keys, first.stream, GROUP - len(alike))
        return _one([*alike, *later]) if len(alike) == 1 else several(alike, later)

    def like(self, first: Notice) -> list[Notice]:
        """Changes of other messages that wait, are of the same kind, and have nothing before them in their thread."""
        found: list[Notice] = []
        seen: set[str] = {first.key}
        for other in self._main:
            if other.key in seen:
                continue
            seen.add(other.key)
            if other.place is Place.UPDATE and (other.kind, other.stream) == (first.kind, first.stream):
                found.append(other)
        return found[: GROUP - 1]

    def remove(self, notices: Iterable[Notice]) -> None:
        """Take these out."""
        gone = {id(notice) for notice in notices}
        self._main = deque(notice for notice in self._main if id(notice) not in gone)

    def _changes(self, keys: set[str], stream: str, room: int) -> list[Notice]:
        """What has become of messages that are not shown yet: they say so from the start."""
        found: list[Notice] = []
        left: deque[Notice] = deque()
        closed: set[str] = set()
        for other in self._main if keys else ():
            if other.key not in keys or other.key in closed:
                left.append(other)
            elif other.place is Place.UPDATE and other.stream == stream and len(found) < room:
                found.append(other)
            else:
                closed.add(other.key)
                left.append(other)
        if found:
            self._main = left
        return found

    def _goes_first(self, work: Work) -> bool:
        """What was taken before goes before what is urgent if it is, or is of the same thread."""
        key = self._urgent[0].key
        return work.hastened or any(notice.key == key != "" for notice in work.notices)

    def drop(self) -> list[Notice]:
        """Everything that waits and is not urgent, taken out."""
        again = [work for work in self._again if not work.hastened]
        found = [*(notice for work in again for notice in work.notices), *self._main]
        self._again = deque(work for work in self._again if work.hastened)
        self._main.clear()
        return found

    def _updates(self, first: Notice, queue: deque[Notice]) -> list[Notice]:
        """All changes of the same message that follow each other: the last one says it all."""
        found = [first]
        left: deque[Notice] = deque()
        blocked = False
        for other in queue:
            same = other.key == first.key
            same_stream = other.stream == first.stream
            if same and not blocked and same_stream and other.place is Place.UPDATE and len(found) < GROUP:
                found.append(other)
            else:
                blocked = blocked or same
                left.append(other)
        queue.clear()
        queue.extend(left)
        return found

    def _alike(self, first: Notice) -> list[Notice]:
        """Those that wait and are of the same kind and place; of a thread only up to the first that is not."""
        found = [first]
        left: deque[Notice] = deque()
        closed: set[str] = set()
        for other in self._main:
            thread = other.key if other.place is Place.REPLY else ""
            same = _group(other) == _group(first) and other.stream == first.stream
            if same and thread not in closed and len(found) < GROUP:
                found.append(other)
            else:
                if other.key:
                    closed.add(other.key)
                left.append(other)
        self._main = left
        return found


def _group(notice: Notice) -> tuple[str, Place, str]:
    return notice.kind, notice.place, notice.key if notice.place is Place.REPLY else ""


def rest(work: Work, left: Sequence[Notice]) -> Work:
    """What is left of a work, as one."""
    found = several(left) if work.together and len(left) > 1 else _one(left)
    return msgspec.structs.replace(found, hastened=work.hastened)


def _one(notices: Sequence[Notice]) -> Work:
    return Work(notices=tuple(notices), message=notices[-1].message)


def several(notices: Sequence[Notice], changes: Sequence[Notice] = ()) -> Work:
    """Many that are alike as one message, with what has become of them since."""
    first, last = notices[0], notices[-1]
    titles = list(dict.fromkeys(notice.message.title for notice in notices))
    more = f"\n… and {len(titles) - _TITLES} others" if len(titles) > _TITLES else ""
    lines = [
        ("Kind", first.kind),
        ("Events", f"{first.stream} {seqs.pack(notice.seq for notice in notices)[:200]}"),
        ("Last", last.message.title),
    ]
    if changes:
        since = ", ".join(f"{count} {kind.partition('.')[2]}" for kind, count in sorted(kinds(changes).items()))
        lines.append(("Since then", since))
    message = Message(
        icon=first.message.icon,
        title=f"{len(notices)} like this: {first.message.title}",
        lines=tuple(lines),
        detail="\n".join(titles[:_TITLES]) + more,
        command=f"systems tail '{_subject(first)}'",
    )
    return Work(notices=(*notices, *changes), message=message, together=True)


def _subject(notice: Notice) -> str:
    noun, _, name = notice.kind.partition(".")
    return f"inv.*.*.*.{name}" if noun == "invocation" else f"ctl.{noun}.*.{name}"


def kinds(notices: Iterable[Notice]) -> dict[str, int]:
    """How many of each kind."""
    return dict(Counter(notice.kind for notice in notices))
