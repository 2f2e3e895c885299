"""One channel: shows what waits for it, one message after the other, each once.

What Slack refuses waits here and holds up no other channel. When more waits than may, what is not urgent is withheld: that is
an event, and is told when the channel is well again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime

import msgspec
import structlog

from bus.store import CONTROL
from services.slack import lane, seqs
from services.slack.lane import Lane, Work
from services.slack.message import Message
from services.slack.notice import Notice, Place, head_id, post_id
from services.slack.record import CLOCKS, Record
from services.slack.screen import Limited, Mark, Refused, Screen, Shown, Unsure

log = structlog.get_logger()

#: Seconds before a refused channel, and a call without an answer, is tried again; doubled up to the second.
_AGAIN_S, _AGAIN_MAX_S = 2.0, 60.0
#: Messages that wait for a channel that refuses; beyond, what is not urgent is withheld.
WAITING = 1_000


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What a channel says of itself."""

    name: str
    waiting: int
    urgent: int
    shown: int
    #: Empty where all is well.
    error: str = ""
    remedy: str = ""
    refusing_since: datetime | None = None
    last_at: datetime | None = None


class Channel:
    """The sender of one channel."""

    def __init__(
        self,
        name: str,
        screen: Screen,
        record: Record,
        *,
        pace: Callable[[], tuple[float, int]],
        suspect: Callable[[Notice], bool],
        settle: Callable[[Notice], None],
        answer: Callable[[Notice, str], Awaitable[None]],
        moot: Callable[[Notice], Awaitable[str]],
        refusing: Callable[[str, Refused | None], Awaitable[None]],
    ) -> None:
        """Nothing is sent yet.

        Args:
            name: as the fleet file names it, or a user's id.
            screen: where it is shown.
            record: what was shown.
            pace: messages a second, and how many may wait before they are put together.
            suspect: whether an earlier life may have shown it without recording that.
            settle: told of each notice that is done with.
            answer: answers the order to call somebody, with what went wrong; empty for nothing.
            moot: why an order need not be carried out any more; empty where it must.
            refusing: told when the channel begins to be refused, and with None when it is well again.
        """
        self.name = name
        self.lane = Lane(name)
        self._screen, self._record = screen, record
        self._pace, self._suspect, self._settle = pace, suspect, settle
        self._answer, self._moot, self._refusing = answer, moot, refusing
        self._news = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._not_before = 0.0
        #: Whether that is our own patience, which a call to somebody need not have.
        self._patient = False
        self._hurry = asyncio.Event()
        self._looked: set[str] = set()
        self._refused: Refused | None = None
        self._refused_at: datetime | None = None
        self._pause = _AGAIN_S
        self._withheld: dict[str, int] = {}
        self._shown = 0
        self._last_at: datetime | None = None

    @property
    def status(self) -> Status:
        """How it stands."""
        refused = self._refused
        return Status(
            name=self.name,
            waiting=len(self.lane),
            urgent=self.lane.urgent,
            shown=self._shown,
            error=refused.what if refused else "",
            remedy=refused.remedy if refused else "",
            refusing_since=self._refused_at,
            last_at=self._last_at,
        )

    def add(self, notice: Notice) -> None:
        """One more to show."""
        self.lane.add(notice)
        self._news.set()
        if notice.page is not None and self._patient:
            # An order waits no longer than it is worth something: it is tried at once, whatever was tried in vain before.
            self._not_before = self._loop.time()
            self._hurry.set()

    async def run(self) -> None:
        """For ever."""
        while True:
            if not len(self.lane):
                self._news.clear()
                await self._news.wait()
            await self._wait()
            per_second, burst = self._pace()
            # Taken only now: what became urgent meanwhile goes first.
            work = self.lane.take(burst)
            if work is None:
                continue
            work = await self._gathered(work, burst)
            try:
                sent = await self._show(work)
            except Limited as exc:
                self.lane.put_back(work)
                self._not_before, self._patient = self._loop.time() + exc.seconds, False
                log.info("slack_limited", channel=self.name, seconds=exc.seconds, waiting=len(self.lane))
            except Refused as exc:
                await self._refuse(work, exc)
            except Unsure as exc:
                self.lane.put_back(msgspec.structs.replace(work, unsure=True))
                self._looked.clear()
                log.warning("slack_unsure", channel=self.name, error=str(exc), again_s=self._pause)
                self._later()
            else:
                if sent:
                    self._pause = _AGAIN_S
                    self._not_before, self._patient = self._loop.time() + 1 / per_second, False
                    await self._well()

    async def _gathered(self, work: Work, burst: int) -> Work:
        """In a crowd, with all changes of the same kind whose messages do not stand by themselves: they were put together too."""
        first = work.first
        if work.together or work.hastened or first.place is not Place.UPDATE or len(self.lane) <= burst:
            return work
        if await self._record.head(self.name, first.key) is not None:
            return work
        others = [one for one in self.lane.like(first) if await self._record.head(self.name, one.key) is None]
        self.lane.remove(others)
        return lane.several([*work.notices, *others]) if others else work

    async def _wait(self) -> None:
        """Until something may be sent."""
        while (left := self._not_before - self._loop.time()) > 0:
            self._hurry.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), left)

    def _later(self) -> None:
        self._patient = True
        self._not_before = self._loop.time() + self._pause
        self._pause = min(_AGAIN_MAX_S, self._pause * 2)

    async def _show(self, work: Work) -> bool:
        """Show it, unless it is shown already: whether anything was sent."""
        first = work.first
        if first.page is not None and (why := await self._moot(first)):
            await self._done(work, why)
            return False
        head = None
        if first.key and not work.together and first.place is not Place.NEW:
            head = await self._record.head(self.name, first.key)
        suspect = work.unsure or any(self._suspect(notice) for notice in work.notices)
        if suspect and self._screen.lasting and not (head is not None and first.place is Place.UPDATE):
            await self._look(head, first.at if work.unsure else None)
        left = tuple(notice for notice in work.notices if not self._record.has(notice))
        if len(left) < len(work.notices):
            await self._done(msgspec.structs.replace(work, notices=tuple(n for n in work.notices if n not in left)), "")
            if left:
                self.lane.put_back(lane.rest(work, left))
            return False
        try:
            await self._send(work, head)
        except Refused as exc:
            if not exc.of_head or head is None:
                raise
            log.info("slack_head_gone", channel=self.name, key=first.key, error=exc.error)
            self._record.forget(self.name, first.key)
            await self._send(work, None)
        await self._done(work, "")
        return True

    async def _send(self, work: Work, head: Shown | None) -> None:
        first = work.first
        if head is not None and first.place is Place.UPDATE:
            mark = self._mark(work, self._own(work), first.key)
            await self._screen.update(head, work.message, mark)
            if self._screen.lasting:
                await self._record.updated(self.name, mark, head)
            return
        # Without a head it becomes one.
        heads = bool(first.key) and not work.together and head is None
        mark = self._mark(work, head_id(self.name, first.key) if heads else self._own(work), first.key if heads else "")
        thread = head.ts if head is not None else ""
        try:
            at = await self._screen.post(self.name, work.message, mark, thread)
        except Refused as exc:
            if not exc.of_message:
                raise
            log.warning("slack_message_refused", channel=self.name, kind=first.kind, seq=first.seq, error=exc.error)
            at = await self._screen.post(self.name, work.message, mark, thread, bare=True)
        if self._screen.lasting:
            await self._record.posted(self.name, mark, at, thread)

    def _own(self, work: Work) -> str:
        first = work.first
        return post_id(self.name, f"{first.stream}:{first.seq}:{first.place.value}:{len(work.notices)}")

    @staticmethod
    def _mark(work: Work, post: str, key: str) -> Mark:
        first = work.first
        return Mark(
            post=post,
            stream=first.stream,
            seqs=seqs.pack(notice.seq for notice in work.notices),
            kind=first.kind,
            event=first.event,
            place=first.place.value,
            key=key,
            count=len(work.notices),
        )

    async def _done(self, work: Work, why: str) -> None:
        for notice in work.notices:
            if notice.page is not None:
                await self._answer(notice, why)
            self._settle(notice)
        self._shown += len(work.notices)
        self._last_at = datetime.now(UTC)

    async def _look(self, head: Shown | None, since: datetime | None) -> None:
        """Record what stands in the channel, or below a head, and is not recorded.

        Args:
            head: the head.
            since: from when on; None for all that an earlier life may have left, once in a life.
        """
        thread = head.ts if head is not None else ""
        if since is None and thread in self._looked:
            return
        channel = head.channel if head is not None else await self._screen.id(self.name)
        oldest = self._record.since if since is None else since - CLOCKS
        async for found in self._screen.marks(self.name, oldest, thread):
            await self._record.adopt(self.name, found, channel)
        self._looked.add(thread)

    async def _refuse(self, work: Work, exc: Refused) -> None:
        """Slack does not take it."""
        if exc.of_message or work.first.page is not None or work.first.passing:
            # No form of this message is taken, or nobody is reached so: what waits behind it must not wait for it.
            await self._record.withheld(self.name, str(exc), list(work.notices))
            await self._done(work, str(exc))
            return
        self.lane.put_back(work)
        self._later()
        if self._refused is None or self._refused.error != exc.error:
            log.error("slack_refuses", channel=self.name, error=exc.what, remedy=exc.remedy)
            self._refused, self._refused_at = exc, self._refused_at or datetime.now(UTC)
            await self._record.refusing(self.name, exc.what, exc.remedy)
            await self._refusing(self.name, exc)
        if len(self.lane) > WAITING:
            await self._withhold(exc.what)

    async def _withhold(self, why: str) -> None:
        dropped = self.lane.drop()
        await self._record.withheld(self.name, why, dropped)
        for kind, count in lane.kinds(dropped).items():
            self._withheld[kind] = self._withheld.get(kind, 0) + count
        for notice in dropped:
            self._settle(notice)
        log.warning("slack_withheld", channel=self.name, messages=len(dropped), why=why)

    async def _well(self) -> None:
        """It is taken: say so where it was not, with what is missing here."""
        if self._refused_at is not None:
            refused_s = (datetime.now(UTC) - self._refused_at).total_seconds()
            self._refused = self._refused_at = None
            log.info("slack_well", channel=self.name, refused_s=round(refused_s, 1))
            await self._record.recovered(self.name, refused_s)
            await self._refusing(self.name, None)
        if self._withheld:
            await self._tell_withheld()

    async def _tell_withheld(self) -> None:
        lines = tuple((kind, str(count)) for kind, count in sorted(self._withheld.items()))
        message = Message(
            icon="⚠️",
            title=f"{sum(self._withheld.values())} events could not be shown here: Slack did not take them",
            lines=lines,
            command="systems tail 'ctl.>'",
        )
        now = datetime.now(UTC)
        mark = Mark(
            post=post_id(self.name, f"withheld:{now.timestamp()}"),
            stream=CONTROL,
            seqs="",
            kind="slack.withheld",
            event="",
            place=Place.NEW.value,
        )
        try:
            await self._screen.post(self.name, message, mark)
        except (Limited, Refused, Unsure) as exc:
            # Told with the next message that is taken; perhaps twice, because it stands for no event.
            log.info("slack_withheld_untold", channel=self.name, error=str(exc))
        else:
            self._withheld = {}
