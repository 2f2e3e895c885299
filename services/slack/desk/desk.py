"""Where what people ask in Slack is decided and done: permission first, then the record, then the deed, then what is said.

What only looks uses the mirror's own connection. What acts opens a session of its own, as a command of the command line does:
the events that it writes name the person, and its login is that of people's acts (``slack_desk``), never the mirror's. Only a
hard freeze is thrown and cleared as ``slack_hard``, whose flag no other login of a daemon may write.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog

from bus import errors
from bus.author import Author
from bus.connection import Credentials
from bus.events import desk as ev
from bus.ids import key_id
from bus.invocation import Refused
from bus.store import CONTROL
from services import credentials
from services.daemon import Bus, open_bus
from services.fleet.slack import Permissions
from services.home import Home
from services.slack.app import Parts
from services.slack.desk import answer, permission
from services.slack.desk.answer import Answer
from services.slack.desk.directory import Directory
from services.slack.desk.permission import Permission, Who
from services.story import first_line

log = structlog.get_logger()

#: The logins of acts: of all but a hard freeze, and of that.
DESK, HARD = "slack_desk", "slack_hard"
#: What people may write in a freeze beside what everybody may: the settings that end its cause.
_ALSO = ("$KV.registry.",)
#: Seconds within which the same refusal of the same person is on the record once.
_AGAIN_S = 60.0
#: Characters of what was typed that the record keeps.
_TEXT = 1000


class Session:
    """One person's act: a bus that writes in their name."""

    def __init__(self, bus: Bus, desk: Desk, who: Who) -> None:
        self.bus = bus
        self.registry = desk.registry
        self.home = desk.home
        #: Who others are that the person names.
        self.directory = desk.directory
        self.who = who

    @property
    def actor(self) -> str:
        """Who acts, as events say it."""
        return self.who.actor


class Request:
    """What somebody asks for, wherever they clicked or typed it."""

    def __init__(self, who: Who, command: str, needs: Permission, *, text: str, channel: str, delivery: str) -> None:
        self.who = who
        self.command = command
        self.needs = needs
        self.text = text[:_TEXT]
        self.channel = channel
        #: What Slack names the delivery by: the same in every repetition of it.
        self.delivery = delivery


Look = Callable[[], Awaitable[Answer]]
Act = Callable[[Session], Awaitable[Answer]]


class Desk:
    """Decides and does."""

    def __init__(self, parts: Parts, login: Callable[[str], Credentials] | None = None) -> None:
        """`login` gives the credentials of a user of the fleet's server; else those of the home."""
        self.bus = parts.bus
        self.registry = parts.registry
        self.client = parts.client
        self.home = Home(parts.running.home)
        self.directory = Directory(parts.client, lambda: self.permissions)
        #: Where the traces of the mirror are.
        self.log_file = self.home.logs / "slack_mirror.log"
        self._login = login or (lambda user: credentials.load(self.home, user))
        self._refused: dict[tuple[str, str], float] = {}

    @property
    def permissions(self) -> Permissions:
        """Who may do what, as it is in effect now."""
        return self.registry.settings.slack.permissions

    def may(self, who: Who, needs: Permission) -> bool:
        """Whether somebody has a permission now."""
        return permission.may(self.permissions, who, needs)

    async def look(self, asked: Request, look: Look) -> Answer:
        """Answer what only looks."""
        if not self.may(asked.who, asked.needs):
            return await self.refuse(asked)
        return await self._told(asked, look)

    async def act(self, asked: Request, act: Act, *, hard: bool = False) -> Answer | None:
        """Do something in a person's name; None when this very delivery was handled before."""
        if not self.may(asked.who, asked.needs):
            return await self.refuse(asked)
        id_ = key_id("slack", asked.delivery)
        if not await self._record(id_, asked):
            log.info("slack_act_repeated", who=asked.who.actor, command=asked.command)
            return None
        begun = time.monotonic()

        async def inside() -> Answer:
            async with self._session(asked.who, HARD if hard else DESK) as session:
                return await act(session)

        found = await self._told(asked, inside)
        done = ev.Done(
            who=asked.who.actor,
            command=asked.command,
            ok=found.ok,
            said=first_line(found.text),
            took_s=round(time.monotonic() - begun, 3),
        )
        await self.bus.store.append(self.bus.author.control(id_, done, actor=asked.who.actor))
        return found

    async def earlier(self, id_: str) -> str:
        """Who asked first under an id, and what they asked for."""
        first = await self.bus.store.last(CONTROL, f"ctl.desk.{id_}.asked")
        if first is None or first.data is None:
            return "it was asked for already"
        return (
            f"{first.data.command} was asked for by {first.data.who} at {first.stored_at:%Y-%m-%d %H:%M:%S} UTC already"
        )

    async def _record(self, id_: str, asked: Request) -> bool:
        """Whether nobody has asked under this id before."""
        event = ev.Asked(who=asked.who.actor, command=asked.command, text=asked.text, channel=asked.channel)
        envelope = self.bus.author.control(id_, event, actor=asked.who.actor)
        try:
            await self.bus.store.append(envelope, expect=0, scope=f"ctl.desk.{id_}.*")
        except errors.SequenceConflict:
            return False
        return True

    async def refuse(self, asked: Request) -> Answer:
        """Say no, and put it on the record: once a minute for the same, so that nobody fills the log by pressing a button."""
        who, now = asked.who, time.monotonic()
        if now - self._refused.get((who.id, asked.command), -_AGAIN_S) >= _AGAIN_S:
            self._refused = {key: at for key, at in self._refused.items() if now - at < _AGAIN_S}
            self._refused[who.id, asked.command] = now
            event = ev.Refused(
                who=who.actor,
                command=asked.command,
                needs=asked.needs.value,
                text=asked.text,
                channel=asked.channel,
            )
            id_ = key_id("slack.refused", asked.delivery)
            await self.bus.store.append(self.bus.author.control(id_, event, actor=who.actor))
            log.warning("slack_not_permitted", who=who.actor, command=asked.command, needs=asked.needs.value)
        sentence = permission.no(who, asked.command, asked.needs)
        return answer.refused(f"{sentence}\n{self.directory.problem}" if self.directory.problem else sentence)

    async def _told(self, asked: Request, work: Look) -> Answer:
        """What came of it; an error is told in one sentence, and one that nobody expected is logged with its trace."""
        try:
            return await work()
        except (errors.BusError, Refused) as exc:
            return answer.refused(str(exc))
        except asyncio.CancelledError:
            raise
        except Exception as exc:
            log.exception("slack_command_failed", who=asked.who.actor, command=asked.command)
            return answer.refused(f"unexpected {type(exc).__name__}: {exc}; the trace is in {self.log_file}")

    @asynccontextmanager
    async def _session(self, who: Who, user: str) -> AsyncIterator[Session]:
        author = Author(f"/slack/{who.id}", actor=who.actor)
        bus = await open_bus(self._login(user), f"systems-{who.id}", author, also=_ALSO)
        try:
            yield Session(bus, self, who)
        finally:
            await bus.close()
