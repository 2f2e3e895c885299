"""Results that may not be written now, on disk: what a handler was paid for must not be lost with its process.

A file is written with fsync before anything waits on it and removed after its result is in the log. What an earlier boot
left is settled by a later one of the same home, under the claim that the earlier one held: the fence decides whether that
still stands. What does not is moved aside for a person, and never dropped.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import structlog

from bus import invocation
from bus.events import invocation as ev
from bus.subjects import Ref
from services.home import write_json
from services.runner.handler import FollowUp

log = structlog.get_logger()

#: Ending of a file whose claim was lost meanwhile.
STALE = ".stale"


class Spooled(msgspec.Struct, frozen=True, kw_only=True):
    """One result."""

    ref: Ref
    #: The claim that it ends.
    holder: str
    delivery: int
    #: Exactly one of the two.
    complete: invocation.Complete | None = None
    fail: invocation.Fail | None = None
    follow_ups: tuple[FollowUp, ...] = ()

    @property
    def usage(self) -> ev.Usage:
        """What was used."""
        command = self.complete or self.fail
        return command.usage if command is not None else ev.Usage()


class Spool:
    """The folder ``spool`` of a home, as one runner sees it."""

    def __init__(self, folder: Path, boot_id: str) -> None:
        self._folder = folder
        self._boot_id = boot_id
        #: Results of this boot that wait.
        self.mine: set[str] = set()

    def __len__(self) -> int:
        return len(self.mine)

    def _file(self, ref: Ref) -> Path:
        return self._folder / f"{ref.id}.{self._boot_id}.json"

    async def keep(self, spooled: Spooled) -> None:
        """Write a result; when this returns it survives the power.

        Raises:
            HomeUnusable: the disk does not take it.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        await asyncio.to_thread(write_json, self._file(spooled.ref), spooled)
        self.mine.add(spooled.ref.id)
        log.info("result_spooled", invocation=spooled.ref.id)

    def done(self, ref: Ref) -> None:
        """The result is in the log, or was refused by the fence."""
        if ref.id in self.mine:
            self.mine.discard(ref.id)
            self._file(ref).unlink(missing_ok=True)

    def left(self, alive: set[str]) -> list[tuple[Path, Spooled]]:
        """What boots that are not alive have left; what cannot be read is moved aside and told."""
        found: list[tuple[Path, Spooled]] = []
        for file in sorted(self._folder.glob("*.json")):
            boot = file.name.removesuffix(".json").rpartition(".")[2]
            if file.name.startswith(".") or boot == self._boot_id or boot in alive:
                continue
            try:
                found.append((file, msgspec.json.decode(file.read_bytes(), type=Spooled)))
            except FileNotFoundError:
                continue  # another runner was quicker
            except (OSError, msgspec.DecodeError) as exc:
                log.error("spooled_result_unreadable", file=str(file), error=str(exc))
                self.aside(file)
        return found

    def aside(self, file: Path) -> None:
        """Keep a file that cannot be settled any more, for a person."""
        if file.exists():
            file.replace(file.with_name(file.name + STALE))
