"""The launcher watches the fleet file and the prompts beside it, while ``[reload] watch`` is true, and takes what changes.

Files are looked at by their size, inode and time of change, some times a second: that works on every file system, and needs
no library. A change is taken when it has settled, so that an editor that writes in steps is not read half-way. A file with a
fault changes nothing; the fault is an event and a concern until the file is good again.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog

from bus import errors
from services.daemon import Bus
from services.fleet.file import LoadedFleet, load
from services.fleet.registry import Registry
from services.ops.performing import ActionRefused, perform
from services.ops.reload import ReloadFleet

log = structlog.get_logger()

#: Seconds between two looks at the files.
LOOK_S = 0.2
#: The same while they are not watched.
REST_S = 1.0
#: Seconds for which a change must stand still before it is read.
SETTLE_S = 0.1

Signature = tuple[tuple[str, int, int, int], ...]


class FileWatch:
    """Watches one fleet file."""

    def __init__(self, bus: Bus, registry: Registry, loaded: LoadedFleet) -> None:
        self._bus = bus
        self._registry = registry
        self._file = loaded.path
        self._prompts = loaded.files
        self._seen = self._signature()

    async def run(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(LOOK_S if self._registry.settings.reload.watch else REST_S)
            if not self._registry.settings.reload.watch:
                # Not watched: what changes meanwhile is not taken when watching begins, but at the next change.
                self._seen = self._signature()
                continue
            now = self._signature()
            if now != self._seen:
                await self._settled(now)
                await self._take()

    async def _settled(self, last: Signature) -> None:
        while True:
            await asyncio.sleep(SETTLE_S)
            now = self._signature()
            if now == last:
                self._seen = now
                return
            last = now

    async def _take(self) -> None:
        action = ReloadFleet(self._bus, self._file, who="launcher", why="the file has changed")
        try:
            await perform(self._bus, action, who="launcher", why="the file has changed")
        except ActionRefused as exc:
            log.error("fleet_file_refused", file=str(self._file), error=str(exc), kept="last good")
        except errors.BusError as exc:
            log.error("fleet_file_not_taken", file=str(self._file), error=str(exc))
        # Other prompts may be named now, which makes for one more look; of a file with a fault the last good one's are watched.
        self._prompts = _prompt_files(self._file) or self._prompts

    def _signature(self) -> Signature:
        found = []
        for path in (self._file, *self._prompts):
            try:
                status = path.stat()
            except OSError:
                found.append((str(path), 0, 0, 0))  # gone for a moment, or for good: a change either way
            else:
                found.append((str(path), status.st_size, status.st_ino, status.st_mtime_ns))
        return tuple(found)


def _prompt_files(file: Path) -> tuple[Path, ...]:
    """The files of prompts that a fleet file names; none while it cannot be read."""
    try:
        loaded = load(file)
    except errors.BusError:
        return ()
    return loaded.files
