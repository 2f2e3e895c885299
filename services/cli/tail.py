"""``systems tail``: events as they happen, and from some time ago on.

Subjects of the log (``inv.``, ``ctl.``, ``dlq.``) are read from their streams, in the order of time and without a gap, also over
a server that comes back; any other subject is plain NATS: what is published while nobody listens is not shown.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Annotated

import msgspec
from cyclopts import Parameter

from bus.follower import Follower
from bus.store import CONTROL, DEAD_LETTERS, INVOCATIONS, Recorded, read
from services import story
from services.cli import output
from services.cli.common import DEFAULTS, Common
from services.cli.exits import Exit, UsageError
from services.cli.session import Session, operator
from services.fleet import durations

_STREAMS = {"inv": INVOCATIONS, "ctl": CONTROL, "dlq": DEAD_LETTERS}
#: Without a subject: what happens, without the copies that are made of it.
_DEFAULT = {INVOCATIONS: "inv.>", CONTROL: "ctl.>"}
_COLOURS = {
    "completed": "green",
    "failed": "yellow",
    "swept": "yellow",
    "dead_lettered": "red",
    "cancelled": "yellow",
    "gave_up": "red",
    "exited": "red",
    "rejected": "red",
}


async def tail(
    subject: str = "",
    /,
    *,
    since: str | None = None,
    count: Annotated[int | None, Parameter(alias="-n")] = None,
    common: Common = DEFAULTS,
) -> int:
    """Show events as they happen, until Ctrl-C.

    Args:
        subject: NATS subject, such as 'inv.shop.*.*.failed'; without it everything in inv.> and ctl.>.
        since: Begin this long ago, such as 10m; or at this sequence of the stream.
        count: End after so many events.
        common: Which fleet, and how to print.
    """
    if count is not None and count < 1:
        raise UsageError(f"expected --count to be at least 1, got: {count}")
    filters = _filters(subject)
    if filters is None and since is not None:
        raise UsageError(
            f"expected --since with a subject of the log (inv., ctl. or dlq.), got: {subject!r}, which is not kept"
        )
    if since is not None and since.isdecimal() and filters is not None and len(filters) != 1:
        raise UsageError("expected a subject with --since SEQUENCE, got none: each stream counts for itself")
    async with operator(common) as session:
        records = _live(session, subject) if filters is None else _logged(session, filters, since)
        shown = 0
        async with aclosing(records):
            async for record in records:
                _print(record, common, logged=filters is not None)
                shown += 1
                if shown == count:
                    break
    return Exit.DONE


def _filters(subject: str) -> dict[str, str] | None:
    """Stream -> filter; None for a subject that no stream of the log holds."""
    if not subject:
        return dict(_DEFAULT)
    if subject == ">":
        return dict(_DEFAULT) | {DEAD_LETTERS: "dlq.>"}
    stream = _STREAMS.get(subject.partition(".")[0])
    tokens = subject.split(".")
    if not all(tokens) or any(" " in token for token in tokens) or (">" in tokens[:-1]):
        raise UsageError(f"expected a NATS subject, such as 'inv.shop.*.*.failed', got: {subject!r}")
    if stream is not None and len(tokens) == 1:
        raise UsageError(f"expected more of a subject, such as '{subject}.>', got: {subject!r}")
    return None if stream is None else {stream: subject}


async def _live(session: Session, subject: str) -> AsyncGenerator[Recorded, None]:
    subscription = await session.bus.connection.nc.subscribe(subject)
    async for message in subscription.messages:
        yield read(0, message.subject, datetime.now(UTC), message.data)


async def _logged(session: Session, filters: dict[str, str], since: str | None) -> AsyncGenerator[Recorded, None]:
    """Events of several streams: those of the past in the order of time, those of the present as they come."""
    sources = [_Source(session, stream, filter_) for stream, filter_ in filters.items()]
    for source in sources:
        await source.begin(since)
    tasks = {asyncio.create_task(source.follow()) for source in sources}
    news = asyncio.create_task(_news(sources))
    try:
        while True:
            ready = _next(sources)
            if ready is not None:
                yield ready
                continue
            done, _ = await asyncio.wait({*tasks, news}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            news = asyncio.create_task(_news(sources))
    finally:
        for task in {*tasks, news}:
            task.cancel()
        await asyncio.gather(*tasks, news, return_exceptions=True)


async def _news(sources: list[_Source]) -> None:
    """Wait until some source has something new."""
    waits = {asyncio.create_task(source.changed.wait()) for source in sources}
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
    for source in sources:
        source.changed.clear()


def _next(sources: list[_Source]) -> Recorded | None:
    """The oldest event that lies ready, unless a source that is still in the past might have an older one."""
    heads = [source for source in sources if source.ready]
    if not heads or any(not source.ready and not source.caught_up for source in sources):
        return None
    return min(heads, key=lambda source: source.ready[0].stored_at).take()


class _Source:
    """One stream of a tail."""

    def __init__(self, session: Session, stream: str, filter_: str) -> None:
        self._session = session
        self._stream = stream
        self._filter = filter_
        self._follower: Follower | None = None
        self.ready: deque[Recorded] = deque()
        #: Nothing older is to come than what happens now.
        self.caught_up = False
        self.changed = asyncio.Event()
        #: Everything was taken: room for more.
        self._empty = asyncio.Event()
        #: Sequence up to which it is the past.
        self._last = 0

    async def begin(self, since: str | None) -> None:
        """Find where to start."""
        bus = self._session.bus
        last = await bus.store.last(self._stream, self._filter)
        state = (await bus.connection.api(f"STREAM.INFO.{self._stream}"))["state"]
        self._last = last.seq if last is not None else 0
        start = state["last_seq"] + 1
        if since is not None and since.isdecimal():
            start = max(1, int(since))
        elif since is not None:
            moment = datetime.now(UTC) - timedelta(seconds=durations.seconds(since))
            found = await _sequence_at(self._session, self._stream, self._filter, moment)
            start = found if found is not None else start
        self.caught_up = start > self._last
        self._follower = Follower(bus.connection, self._stream, [self._filter], start=start)

    async def follow(self) -> None:
        """Read for ever."""
        assert self._follower is not None  # begun
        async for batch in self._follower.batches():
            for item in batch:
                stored_at = datetime.fromtimestamp(item.stored_ns / 1e9, UTC)
                self.ready.append(read(item.seq, item.subject, stored_at, item.data))
            self.caught_up = self.caught_up or batch[-1].seq >= self._last
            self._empty.clear()
            self.changed.set()
            # Not further ahead than one batch: a long past takes no more memory than a short one.
            await self._empty.wait()

    def take(self) -> Recorded:
        """The oldest event that lies ready."""
        record = self.ready.popleft()
        if not self.ready:
            self._empty.set()
        return record


async def _sequence_at(session: Session, stream: str, filter_: str, moment: datetime) -> int | None:
    """The first sequence that matches and was stored at a moment or later; None for none (ADR-31, by start time)."""
    body = {"start_time": moment.isoformat(), "next_by_subj": filter_, "batch": 1}
    nc = session.bus.connection.nc
    answer = await nc.request(f"$JS.API.DIRECT.GET.{stream}", msgspec.json.encode(body), timeout=5)
    sequence = (answer.headers or {}).get("Nats-Sequence")
    return int(sequence) if sequence is not None else None


def _print(record: Recorded, common: Common, *, logged: bool) -> None:
    if common.json:
        print(msgspec.json.encode(story.as_json(record)).decode(), flush=True)
        return
    name = record.subject.rpartition(".")[2]
    text = story.sentence(record)
    if not logged and record.event is None:
        text = story.clip(record.raw.decode(errors="replace"))
    what = output.paint(_subject(record.subject), _COLOURS.get(name, "cyan"))
    print(f"{output.paint(output.moment(record.stored_at), 'dim')}  {what}  {text}")
    sys.stdout.flush()


def _subject(subject: str) -> str:
    """``shop/coder 0198… failed`` for the events of an invocation; any other subject as it is."""
    tokens = subject.split(".")
    if tokens[0] == "inv" and len(tokens) == 5:
        return f"{tokens[1]}/{tokens[2]} {tokens[3]} {tokens[4]}"
    return subject
