"""``systems part``: several projectors that share the streams, and one file for everybody out of theirs.

The commands run in the foreground until SIGTERM or Ctrl-C, and both may be killed at any time: what they publish is replaced as a
whole.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import uvloop
from cyclopts import App, Parameter

from bus import errors
from projections.merge import Unmergeable
from projections.merge import merge as merge_files
from projections.partition import parse
from projections.standing import Status
from services import credentials
from services.app.part import Part, Place, open_part
from services.app.parts import calm_collector, share_interpreter
from services.cli import output
from services.cli.common import DEFAULTS, Common
from services.cli.exits import Exit, UsageError
from services.cli.session import locate, speak_plainly
from services.fleet import durations
from services.fleet.spec import MIN_MEMORY_MB
from services.fleet.spec import Projector as Tables
from services.home import resolve

app = App(name="part", help="Share the streams among several projectors.", help_format="plaintext")

#: The user of the fleet's own server whom a part is.
_USER = "part"
#: Seconds that the last copy may take.
_LAST_S = 60.0


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """How far a part is, as one line."""

    part: str
    state: str
    #: What a person has to know or do; empty for nothing.
    problem: str = ""
    #: Events that the streams hold and its tables do not yet, and the age of the oldest of them.
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
        said.append(f"{self.behind:,} events behind, {self.seconds:.1f} s" if self.behind else "caught up")
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
        publish_s=_seconds("--publish", publish),
    )
    if memory_mb < MIN_MEMORY_MB:
        raise UsageError(f"expected --memory-mb to be at least {MIN_MEMORY_MB}, got: {memory_mb}")
    if archive is not None and not archive.is_dir():
        raise UsageError(f"expected the folder of an archive at {archive}, got: none is there")
    pause_s = _seconds("--every", every)
    speak_plainly()
    calm_collector()
    share_interpreter()
    return uvloop.run(_run(place, pause_s, common))


def _archive_here(common: Common) -> Path | None:
    """The archive of the home that is meant, where the home is on this machine."""
    folder = resolve(common.home, os.environ).archive
    return folder if folder.is_dir() else None


def _seconds(option: str, text: str) -> float:
    found = durations.seconds(text)
    if found <= 0:
        raise UsageError(f"expected {option} to be longer than 0, got: {text!r}")
    return found


async def _run(place: Place, pause_s: float, common: Common) -> int:
    home, where = locate(common)
    where = credentials.as_user(home, where, _USER)
    stop = _until_signalled()
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
    last = None
    while True:
        try:
            now = look(part, await part.projector.status())
        except (errors.BusUnreachable, errors.ServerError) as exc:
            # The projector waits as well; what ends it ends the command.
            now = Look(part=str(part.place.partition), state="waiting", problem=str(exc))
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


def _until_signalled() -> asyncio.Event:
    """Set by SIGTERM and Ctrl-C."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


@app.command
async def merge(
    *files: Annotated[Path, Parameter(negative="")], into: Path, every: str | None = None, common: Common = DEFAULTS
) -> int:
    """Make one file for everybody of the published copies of all parts. It needs no server.

    Args:
        files: The copies, or folders with them: all parts of one whole, each once.
        into: The file to replace, such as fleet.duckdb; any duckdb opens it.
        every: Go on until SIGTERM or Ctrl-C, and look after each such time, such as 30s, whether a part has changed.
        common: Which fleet, and how to print.
    """
    speak_plainly()
    pause_s = _seconds("--every", every) if every is not None else 0.0
    if not files:
        raise UsageError("expected the published copies of all parts, or folders with them, got: none")
    if into.resolve() == resolve(common.home, os.environ).tables.resolve():
        raise UsageError(
            f"expected --into to name a file of its own, got: {into}, which the fleet's own projector replaces"
        )
    seen = await _merge(files, into, common)
    if not pause_s:
        return Exit.DONE
    stop, told = _until_signalled(), ""
    while not await _signalled(stop, pause_s):
        try:
            if _stamps(parts_of(files)) != seen:
                seen, told = await _merge(files, into, common), ""
        except Unmergeable as exc:
            # Parts come and go, and take turns to be of another version; the former file stands meanwhile.
            if str(exc) != told:
                output.note(f"systems: {exc}; {into} stays as it is")
            told = str(exc)
    return Exit.DONE


async def _signalled(stop: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await stop.wait()
    except TimeoutError:
        return False


def parts_of(files: Sequence[Path]) -> list[Path]:
    """The files that are named, and those of the folders that are.

    Raises:
        Unmergeable: one is not there, or a folder has none.
    """
    found: list[Path] = []
    for file in files:
        if not file.exists():
            raise Unmergeable(f"expected the published copy of a part at {file}, got: no such file")
        inside = sorted(file.glob("part-*-of-*.duckdb")) if file.is_dir() else [file]
        if not inside:
            raise Unmergeable(f"expected published copies of parts (part-0-of-4.duckdb, ...) in {file}, got: none")
        found += inside
    return found


def _stamps(files: Sequence[Path]) -> list[tuple[Path, int, int]]:
    """Tells whether a file is still the same one: each copy is another file."""
    found = []
    for file in files:
        try:
            stat = file.stat()
        except FileNotFoundError as exc:
            raise Unmergeable(f"expected the published copy of a part at {file}, got: it has just gone") from exc
        found.append((file, stat.st_ino, stat.st_mtime_ns))
    return found


async def _merge(files: Sequence[Path], into: Path, common: Common) -> list[tuple[Path, int, int]]:
    """Merge once: what the parts were before."""
    found = parts_of(files)
    if into.resolve() in {file.resolve() for file in found}:
        raise UsageError(f"expected --into to name a file of its own, got: {into}, which is a part")
    stamps, began = _stamps(found), time.monotonic()
    copies = await asyncio.to_thread(merge_files, found, into)
    took_s, size = round(time.monotonic() - began, 3), into.stat().st_size
    oldest = min(copies, key=lambda copy: copy.published_at)
    if common.json:
        parts = [
            {"part": str(copy.partition), "file": str(copy.file), "published_at": copy.published_at} for copy in copies
        ]
        merged = {"file": str(into), "bytes": size, "took_s": took_s, "parts": parts}
        print(msgspec.json.encode(merged).decode(), flush=True)
    else:
        print(
            f"{datetime.now(UTC):%H:%M:%S} {into}: {len(copies)} parts, {size / 1e6:,.1f} MB, in {took_s:.1f} s; "
            f"the oldest copy is that of part {oldest.partition}, of {output.moment(oldest.published_at)}",
            flush=True,
        )
    return stamps
