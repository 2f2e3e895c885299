"""A part: one of several projectors that share the streams, beside the fleet's own and anywhere that reaches the server.

It is no daemon of the fleet: no seat, no heartbeat, no answers, no archive, and nothing that it writes on the bus. What a projector
says there of itself is in a part's own output.
"""

from __future__ import annotations

import asyncio
import platform
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import structlog

from bus import errors, upcasters
from bus.author import Author
from bus.connection import Connection, connect
from bus.context import Context
from bus.envelope import Envelope
from bus.publisher import Publisher
from bus.store import Store
from projections import faults
from projections.database import Settings
from projections.partition import Partition
from projections.primary import Files
from projections.projector import Options, Projector
from projections.snapshot import Pace
from projections.trimmed import Trimmed
from projections.unbroken import Skipped, unbroken
from services.daemon import control_id

log = structlog.get_logger()

#: Seconds until a server that does not answer is asked again.
_AGAIN_S = 1.0


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Which part, and where it keeps what."""

    partition: Partition
    #: Holds the published copy, and the folder of the private primary.
    folder: Path
    #: The fleet's archive, or a copy of it.
    archive: Path | None = None
    memory_mb: int
    #: Seconds between two published copies, at least.
    publish_s: float

    @property
    def files(self) -> Files:
        """Its tables and its published copy."""
        name = self.partition.name
        return Files(self.folder / name, self.folder / f"{name}.duckdb")


class Unwritten(Store):
    """The log to somebody who only reads it: what a projector has to say there is logged where it is decided, and not appended."""

    async def append(self, event: Envelope, *, expect: int | None = None, scope: str = "") -> int:  # noqa: ARG002
        """Append nothing: 0, which is no sequence."""
        log.info("event_not_written", type=event.type)
        return 0


class Part:
    """One part, over one connection."""

    def __init__(self, connection: Connection, place: Place) -> None:
        self.place = place
        part = unbroken(place.partition)
        seat = control_id(part.name, platform.node() or "localhost")
        author = Author(f"/part/{seat}", actor=part.name)
        archive = place.archive.absolute() if place.archive is not None else None
        folders = (str(archive),) if archive is not None else ()
        options = Options(
            files=place.files,
            seat=seat,
            settings=Settings(memory_mb=place.memory_mb, folders=folders),
            pace=Pace(least_s=place.publish_s),
            partition=part,
        )
        self._trimmed = Trimmed(connection, part, archive)
        unwritten = Unwritten(connection, Publisher(connection))
        self.projector = Projector(connection, unwritten, author, options, self._trimmed)

    async def run(self) -> None:
        """For ever.

        Raises:
            PrimaryLocked, HistoryGone: see :meth:`projections.trimmed.Trimmed.begin`.
            BusUnreachable: the server does not answer at the start; later it is waited for.
        """
        try:
            await self._trimmed.begin(self.projector.primary)
            while True:
                await self._follow()
        finally:
            await self.projector.primary.close()

    async def _follow(self) -> None:
        """Until a message is missing that the reader should have got, and what can be done about that is done."""
        try:
            await self.projector.run()
        except Skipped as exc:
            log.info("reader_skipped", error=str(exc))
            while not await self._met(exc):
                await asyncio.sleep(_AGAIN_S)

    async def _met(self, skipped: Skipped) -> bool:
        try:
            await self._trimmed.meet(skipped)
            await self._trimmed.begin(self.projector.primary)
        except (errors.BusUnreachable, faults.NoRoom) as exc:
            log.warning("part_waits", error=str(exc))
            return False
        return True


@asynccontextmanager
async def open_part(where: Context, place: Place) -> AsyncIterator[Part]:
    """A part that does not run yet, and its connection.

    Raises:
        BusUnreachable, ServerTooOld: see :func:`bus.connection.connect`.
        BadAsk: its folder cannot be made.
    """
    upcasters.check()
    try:
        place.folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise errors.BadAsk(
            f"expected a folder that this user can write at {place.folder}, got: {exc.strerror}; name another with --into"
        ) from exc
    connection = await connect(where, f"systems-{place.partition.name}")
    try:
        yield Part(connection, place)
    finally:
        await connection.close()
