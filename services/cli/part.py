"""``systems part``: several projectors that share the streams; ``systems part merge`` is in :mod:`services.cli.merge`.

A part runs in the foreground until SIGTERM or Ctrl-C, and may be killed at any time: what it publishes is replaced as a whole.
"""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import uvloop
from cyclopts import App

from bus import errors
from projections.partition import parse
from projections.standing import Status
from services import credentials
from services.app.part import Part, Place, open_part
from services.app.parts import calm_collector, share_interpreter
from services.cli import output
from services.cli.common import DEFAULTS, Common
from services.cli.exits import Exit, UsageError
from services.cli.merge import merge, seconds, until_signalled
from services.cli.session import locate, speak_plainly
from services.fleet.spec import MIN_MEMORY_MB
from services.fleet.spec import Projector as Tables
from services.home import resolve

app = App(name="part", help="Share the streams among several projectors.", help_format="plaintext")

#: The user of the fleet's own server whom a part is.
_USER = "part"
#: Seconds that the last copy may take.
_LAST_S = 60.0
#: What a part does while the server does not say how far the streams go.
WAITING = "waiting"


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """How far a part is, as one line."""

    part: str
    state: str
    #: What a person has to know or do; empty for nothing.
    problem: str = ""
    #: Events that the streams hold and its tables do not yet, and the age of the oldest of them; while it waits, as last known.
    behind: int = 0
    seconds: float = 0.0
    #: Events of its own that it has put into its tables since its start.
    kept: int = 0
    #: Number and bytes of its published copy; 0 before the first one since its start.
    copy: int = 0
    bytes: int = 0

    def __str__(self) -> str:
        said = [f"part {self.part} {self.state}"]
        if self.problem:
            said.append(self.problem)
        if self.state == WAITING:
            return " | ".join(said)  # how far it is then nobody can say
        events = "event" if self.behind == 1 else "events"
        said.append(f"{self.behind:,} {events} behind, {self.seconds:.1f} s" if self.behind else "caught up")
        said.append(f"{self.kept:,} kept")
        said.append(f"copy {self.copy:,}, {self.bytes / 1e6:,.1f} MB" if self.copy else "no copy yet")
        return " | ".join(said)


@app.command
def run(
    part: str,
    /,
    *,
    into: Path,
    archive: Path | None = None,
    publish: str = f"{Tables().publish:g}s",
    memory_mb: int = Tables().memory_mb,
    every: str = "5s",
    common: Common = DEFAULTS,
) -> int:
    """Run one part beside the fleet's own projector, until SIGTERM or Ctrl-C: it reads all streams and keeps its projects.

    It needs the server's address and a login that may read, on this machine or another one. It writes nothing to the bus, answers
    no questions, archives and trims nothing: the fleet's own projector does all that. It may be killed at any time.

    Args:
        part: Which of how many, counted from 0: 0/4, 1/4, 2/4 and 3/4 are all of four.
        into: Folder for its published copy, part-0-of-4.duckdb, and for its private tables, which nobody else may open.
        archive: The fleet's archive, or a copy of it, for what has left the stream INVOCATIONS; else that of the home, if it is here.
        publish: Time between two published copies, at least.
        memory_mb: Megabytes that its tables may use.
        every: Time between two lines that say how far it is, while that changes.
        common: Which fleet, and how to print.
    """
    place = Place(
        partition=parse(part),
        folder=into.absolute(),
        archive=archive or _archive_here(common),
        memory_mb=memory_mb,
        publish_s=seconds("--publish", publish),
    )
    if memory_mb < MIN_MEMORY_MB:
        raise UsageError(f"expected --memory-mb to be at least {MIN_MEMORY_MB}, got: {memory_mb}")
    if archive is not None and not archive.is_dir():
        raise UsageError(f"expected the folder of an archive at {archive}, got: none is there")
    pause_s = seconds("--every", every)
    speak_plainly()
    calm_collector()
    share_interpreter()
    return uvloop.run(_run(place, pause_s, common))


def _archive_here(common: Common) -> Path | None:
    """The archive of the home that is meant, where the home is on this machine."""
    folder = resolve(common.home, os.environ).archive
    return folder if folder.is_dir() else None


async def _run(place: Place, pause_s: float, common: Common) -> int:
    home, where = locate(common)
    where = credentials.as_user(home, where, _USER)
    stop = until_signalled()
    async with open_part(where, place) as part:
        _begun(place, where.url, common)
        work = asyncio.create_task(part.run())
        telling = asyncio.create_task(_tell(part, pause_s, common))
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([work, telling, stopped], return_when=asyncio.FIRST_COMPLETED)
            for done in (work, telling):
                if done.done():
                    done.result()
            return await _end(part, common)
        finally:
            for task in (telling, stopped, work):
                task.cancel()
            await asyncio.gather(telling, stopped, work, return_exceptions=True)


def _begun(place: Place, url: str, common: Common) -> None:
    if common.json:
        return
    print(
        f"part {place.partition} reads {url}, keeps its projects, and publishes {place.files.published}; "
        "the fleet's own projector archives, trims and answers",
        flush=True,
    )


async def _tell(part: Part, pause_s: float, common: Common) -> None:
    """Say how far it is, whenever that has changed."""
    last = Look(part=str(part.place.partition), state="")
    while True:
        try:
            now = look(part, await part.projector.status())
        except (errors.BusUnreachable, errors.ServerError) as exc:
            # The projector waits as well; what ends it ends the command.
            now = msgspec.structs.replace(last, state=WAITING, problem=str(exc))
        if now != last:
            _print(now, common)
            last = now
        await asyncio.sleep(pause_s)


def look(part: Part, status: Status) -> Look:
    """How far a part is, by what its projector says."""
    published = status.published
    return Look(
        part=str(part.place.partition),
        state=status.state,
        problem=status.problem,
        behind=status.behind,
        seconds=status.seconds,
        kept=part.projector.applied,
        copy=published.number if published is not None else 0,
        bytes=published.bytes if published is not None else 0,
    )


def _print(now: Look, common: Common) -> None:
    if common.json:
        print(msgspec.json.encode(now).decode(), flush=True)
    else:
        print(f"{datetime.now(UTC):%H:%M:%S} {now}", flush=True)


async def _end(part: Part, common: Common) -> int:
    """The last copy, of all that is in its tables."""
    try:
        async with asyncio.timeout(_LAST_S):
            await part.projector.finish()
            now = look(part, await part.projector.status())
    except (errors.BusError, TimeoutError) as exc:
        why = str(exc) or f"it took longer than {_LAST_S:.0f} s"
        output.note(
            f"systems: the last copy was not made: {why}; the former one stands, and the next start makes another"
        )
        return Exit.FAILED
    _print(msgspec.structs.replace(now, state="stopped"), common)
    return Exit.DONE


app.command(merge)
