"""What was shown, from the record and into it: the events of ``ctl.slack.>``.

An event is shown in a channel when a ``posted``, ``updated`` or ``withheld`` names it. A crash may lie between Slack's answer and
the record: what stands in a channel with our mark and without a record is recorded then, and not shown again.
"""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime, timedelta
from typing import Any

import structlog

from bus.events import slack as ev
from bus.store import CONTROL, Recorded
from services.daemon import Bus
from services.slack import lane, seqs
from services.slack.notice import Notice, Place, head_id
from services.slack.screen import Found, Mark, Shown

log = structlog.get_logger()

#: Heads of threads that are remembered; others are looked up.
HEADS = 5_000
#: Posts whose record is remembered: more than stand in all channels within the time that is looked back.
POSTS = 20_000
#: How far Slack's clock and ours may be apart.
CLOCKS = timedelta(minutes=2)

Key = tuple[str, str, int, str]


class Record:
    """The part of the record that a mirror works with."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        #: What an earlier life has shown of what comes again: (channel, stream, sequence, place).
        self._done: set[Key] = set()
        #: (channel, key) -> the head of the thread.
        self._heads: OrderedDict[tuple[str, str], Shown] = OrderedDict()
        #: Posts that are recorded, of those that may be found in channels.
        self._posts: OrderedDict[tuple[str, str], None] = OrderedDict()
        #: From when on an earlier life may have left messages that it has not recorded.
        self.since = bus.author.now()

    async def read(self, since: datetime) -> None:
        """Read what was recorded from a moment on."""
        self.since = since - CLOCKS
        # What stands since then was recorded after that, by another clock.
        start, count = await self._bus.store.since(CONTROL, "ctl.slack.>", since - 2 * CLOCKS)
        if count:
            async for record in self._bus.store.read(CONTROL, "ctl.slack.>", start=start):
                self.take(record)

    def take(self, record: Recorded) -> None:
        """One event of ours."""
        match record.data:
            case ev.Posted() as data:
                self._know(data.channel, data.ts)
                self._take(data.target, data.stream, data.seqs, data.place)
                if data.key:
                    self._remember(data.target, data.key, Shown(channel=data.channel, ts=data.ts))
            case ev.Updated() as data:
                self._take(data.target, data.stream, data.seqs, data.place)
            case ev.Withheld() as data:
                for place in Place:
                    self._take(data.channel, data.stream, data.seqs, place)

    def _know(self, channel: str, ts: str) -> None:
        self._posts[channel, ts] = None
        if len(self._posts) > POSTS:
            self._posts.popitem(last=False)

    def _take(self, target: str, stream: str, packed: str, place: str) -> None:
        # A new message may say as well what has become of it since.
        places = (Place.NEW, Place.UPDATE) if place == Place.NEW.value else (Place(place),)
        self._done.update((target, stream, seq, one.value) for seq in seqs.unpack(packed) for one in places)

    def has(self, notice: Notice) -> bool:
        """Whether an earlier life has shown it."""
        return (notice.channel, notice.stream, notice.seq, notice.place.value) in self._done

    async def head(self, channel: str, key: str) -> Shown | None:
        """Where the head of a thread stands; None when it was never shown."""
        found = self._heads.get((channel, key))
        if found is None:
            last = await self._bus.store.last(CONTROL, f"ctl.slack.{head_id(channel, key)}.posted")
            if last is None or not isinstance(last.data, ev.Posted):
                return None
            found = Shown(channel=last.data.channel, ts=last.data.ts)
            self._remember(channel, key, found)
        return found

    def forget(self, channel: str, key: str) -> None:
        """The head is gone: somebody has deleted it."""
        self._heads.pop((channel, key), None)

    def _remember(self, channel: str, key: str, at: Shown) -> None:
        self._heads[channel, key] = at
        self._heads.move_to_end((channel, key))
        if len(self._heads) > HEADS:
            self._heads.popitem(last=False)

    async def posted(self, target: str, mark: Mark, at: Shown, thread: str) -> None:
        """A message stands."""
        event = ev.Posted(**_said(target, mark, at), thread=thread)
        # The same message is recorded once: its name in Slack is part of the event's.
        event_id = f"{mark.post}-{at.ts}"
        await self._bus.store.append(self._bus.author.control(mark.post, event, cause=mark.event, event_id=event_id))
        self._know(at.channel, at.ts)
        if mark.key:
            self._remember(target, mark.key, at)

    async def updated(self, target: str, mark: Mark, at: Shown) -> None:
        """A message says something else."""
        event = ev.Updated(**_said(target, mark, at))
        await self._bus.store.append(self._bus.author.control(mark.post, event, cause=mark.event))

    async def adopt(self, target: str, found: Found, channel: str) -> None:
        """A message that stands: it is recorded, unless it was."""
        if (channel, found.ts) in self._posts:
            return
        self._take(target, found.mark.stream, found.mark.seqs, found.mark.place)
        log.info("slack_post_found", channel=target, ts=found.ts, kind=found.mark.kind, count=found.mark.count)
        await self.posted(target, found.mark, Shown(channel=channel, ts=found.ts), found.thread)

    async def withheld(self, channel: str, why: str, notices: list[Notice]) -> None:
        """Events are not shown in a channel, and stay in the log."""
        for stream in sorted({notice.stream for notice in notices}):
            of = [notice for notice in notices if notice.stream == stream]
            for first in range(0, len(of), lane.GROUP):
                part = of[first : first + lane.GROUP]
                event = ev.Withheld(
                    channel=channel,
                    why=why,
                    stream=stream,
                    seqs=seqs.pack(notice.seq for notice in part),
                    kinds=lane.kinds(part),
                )
                await self._bus.store.append(self._bus.author.control(token(channel), event, cause=part[0].event))

    async def refusing(self, channel: str, error: str, remedy: str) -> None:
        """Slack takes nothing for a channel."""
        event = ev.Refusing(channel=channel, error=error, remedy=remedy)
        await self._bus.store.append(self._bus.author.control(token(channel), event))

    async def recovered(self, channel: str, refused_s: float) -> None:
        """Slack takes messages for it again."""
        event = ev.Recovered(channel=channel, refused_s=round(refused_s, 1))
        await self._bus.store.append(self._bus.author.control(token(channel), event))


def _said(target: str, mark: Mark, at: Shown) -> dict[str, Any]:
    """What the record of a message has whether it was posted or changed: where it stands, and for which events."""
    return {
        "channel": at.channel,
        "target": target,
        "ts": at.ts,
        "stream": mark.stream,
        "seqs": mark.seqs,
        "kind": mark.kind,
        "event": mark.event,
        "place": mark.place,
        "key": mark.key,
        "count": mark.count,
    }


def token(channel: str) -> str:
    """A channel as the id of its events: ``fleet-alerts``, ``C0123ABCD``."""
    return (
        "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in channel.removeprefix("#"))[:128]
        or "_"
    )
