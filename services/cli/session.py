"""A person's connection to the bus, for the length of one command.

The person is ``$SYSTEMS_ACTOR``, else the login of the operating system; it goes into every event that the command writes.
The command does not wait for a server that is away: it ends with the sentence that says so.
"""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from datetime import datetime
from typing import Any

import structlog

from bus import context, errors
from bus.author import Author
from bus.events.invocation import Requested, Scheduled
from bus.store import INVOCATIONS, Recorded
from bus.subjects import Ref
from services import archive, credentials
from services.archive import Archive
from services.cli import output
from services.cli.common import Where
from services.cli.exits import UsageError
from services.daemon import Bus, open_bus
from services.fleet.registry import Registry
from services.home import Home, resolve
from services.requests.requests import Requests

#: What a person may write in a freeze beside what everybody may: the settings that end its cause.
_ALSO = ("$KV.registry.",)
#: Characters of an invocation's id.
_ID_LENGTH = 36


class Session:
    """What a command works with."""

    def __init__(self, bus: Bus, home: Home, where: context.Context, actor: str) -> None:
        self.bus = bus
        self.home = home
        #: The server and the login in use.
        self.where = where
        #: Who runs the command.
        self.actor = actor
        self._registry: Registry | None = None
        self._archived: Archive | None = None

    async def registry(self) -> Registry:
        """The registry as it is now, read at the first call."""
        if self._registry is None:
            registry = Registry(self.bus.bucket("registry"))
            await registry.load()
            self._registry = registry
        return self._registry

    async def requests(self) -> Requests:
        """The door for requests, used directly."""
        bus = self.bus
        return Requests(await self.registry(), bus.store, bus.author, bus.artifacts, bus.schedules, bus.gate)

    async def find(self, id_: str) -> Ref:
        """The invocation with this id.

        Raises:
            UnknownName: there is none.
            UsageError: it is no id.
        """
        if len(id_) != _ID_LENGTH or not all(c in "0123456789abcdef-" for c in id_):
            raise UsageError(
                f"expected an invocation id of {_ID_LENGTH} characters, as `systems invoke` prints it, got: {id_!r}"
            )
        ref = await self.bus.store.find(id_) or (await self.archived()).find(id_)
        if ref is None:
            raise errors.UnknownName("invocation", id_, ())
        return ref

    async def archived(self) -> Archive:
        """What the stream INVOCATIONS does not hold any more, read at the first call."""
        if self._archived is None:
            state = await self.bus.connection.api(f"STREAM.INFO.{INVOCATIONS}")
            self._archived = Archive(self.home.archive, state["created"], state["state"]["first_seq"])
        return self._archived

    async def history(self, ref: Ref) -> list[Recorded]:
        """An invocation's records in order, also those that have left the stream."""
        records = await self.bus.store.history(ref)
        if records and _begins(records[0].data):
            return records
        return [*(await self.archived()).history(ref), *records]

    async def since(self, moment: datetime) -> AsyncGenerator[Recorded, None]:
        """All records of invocations from a moment on; see :func:`services.archive.since`. What is missing is told on stderr."""
        async with aclosing(archive.since(self.bus, self.home.archive, moment, _missing)) as records:
            async for record in records:
                yield record


def _missing(why: str) -> None:
    output.note(f"systems: some of that time is missing: {why}")


def _begins(data: Any) -> bool:
    """Whether an event is an invocation's first: then nothing of it has left the stream."""
    return isinstance(data, Scheduled) or (isinstance(data, Requested) and data.generation == 0)


def actor(environ: Mapping[str, str] = os.environ) -> str:
    """Who runs the command."""
    named = environ.get("SYSTEMS_ACTOR", "")
    if named:
        return named
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # No entry for this user id, as in some containers.
        return f"uid-{os.getuid()}"


def locate(common: Where, environ: Mapping[str, str] = os.environ) -> tuple[Home, context.Context]:
    """The home that is meant, and the server with the login.

    Raises:
        BusUnreachable, UnknownName, Conflict, HomeUnusable: see :func:`bus.context.load`.
    """
    home = resolve(common.home, environ)
    return home, context.load(home.path, common.server, common.context, environ)


@asynccontextmanager
async def operator(common: Where, user: str = credentials.OPERATOR) -> AsyncIterator[Session]:
    """A session, from its connection to its end; on the fleet's own server as another of its users, where one is named.

    Raises:
        BusUnreachable, ServerTooOld: see :func:`bus.connection.connect`.
    """
    speak_plainly()
    home, where = locate(common)
    where = credentials.as_user(home, where, user)
    who = actor()
    bus = await open_bus(where, f"systems-{who}", Author(f"/operator/{who}", actor=who), also=_ALSO)
    try:
        yield Session(bus, home, where, who)
    finally:
        await bus.close()


def speak_plainly() -> None:
    """Let warnings of the bus appear on stderr as plain lines, and nothing less than warnings."""
    structlog.configure(
        processors=[structlog.processors.add_log_level, _plain],
        wrapper_class=structlog.make_filtering_bound_logger(30),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def _plain(_logger: Any, _method: str, event: Any) -> str:
    level = event.pop("level", "warning")
    name = str(event.pop("event", "")).replace("_", " ")
    facts = ", ".join(f"{key} {value}" for key, value in event.items() if key != "exc_info")
    return f"systems: {level}: {name}" + (f" ({facts})" if facts else "")
