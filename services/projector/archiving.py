"""The archive as a fleet wires it: settings of the fleet file, the caps that hold a trim, and the micro service."""

from __future__ import annotations

import asyncio
from datetime import datetime

import msgspec
from nats.micro.request import Request

from bus import errors
from bus.spend import Calendar
from projections import history as cold
from projections.archive import mend
from projections.archive import store as stores
from projections.archive.archiver import Archiver, Settings
from projections.archive.manifest import Segment
from projections.archive.store import Access
from projections.database import Database
from projections.projector import Projector
from projections.rebuild import Archived
from services.daemon import Bus
from services.fleet.registry import Registry
from services.fleet.spec import Archive
from services.home import Home
from services.micro import Handler
from services.quota import caps

#: Seconds that tables get to catch up with what is to be archived at once: less than whoever asks waits for an answer.
_CATCH_UP_S = 240.0
#: Subjects of the micro service.
STATUS, NOW, MEND, REBUILD = "archive.status", "archive.now", "archive.mend", "projections.rebuild"


def access(table: Archive) -> Access | None:
    """Where copies go; None for nowhere."""
    if not table.url:
        return None
    return Access(
        url=table.url,
        endpoint=table.endpoint,
        region=table.region,
        key_env=table.key_env,
        secret_env=table.secret_env,
        token_env=table.token_env,
    )


def history(bus: Bus, home: Home, table: Archive) -> Archived:
    """What new tables are made from. Damaged files are made again first, where that can be."""
    where = access(table)

    async def repair(broken: Segment) -> None:
        info = await bus.connection.api(f"STREAM.INFO.{broken.stream}")
        await mend.mend(
            home.archive,
            broken,
            created=info["created"],
            first=info["state"]["first_seq"],
            bus=bus.store,
            target=stores.open_store(where) if where is not None else None,
            now=bus.author.now(),
        )

    return Archived(home.path, bus.connection, cold.Cold(home.path), repair)


def archiver(bus: Bus, home: Home, table: Archive, registry: Registry, projector: Projector) -> Archiver:
    """The one that trims INVOCATIONS."""

    def database() -> Database | None:
        return projector.primary.database if projector.primary.ready else None

    def windows(now: datetime) -> datetime | None:
        return caps.counts_since(caps.all_covers(registry, now), Calendar(registry.quota.time_zone), now)

    return Archiver(
        Settings(root=home.archive, segment_rows=table.segment_rows, hot_s=table.hot, access=access(table)),
        database,
        connection=bus.connection,
        store=bus.store,
        author=bus.author,
        gate=bus.gate,
        publish=lambda connection: cold.publish(connection, home.path),
        windows=windows,
    )


def endpoints(archiver: Archiver, projector: Projector) -> dict[str, tuple[str, Handler]]:
    """What is asked of the archive, and having the tables made anew: name -> subject and answer."""

    async def status(_request: Request) -> bytes:
        return msgspec.json.encode(await archiver.status())

    async def now(request: Request) -> bytes:
        await _look(archiver, projector, at_once=True)
        return await status(request)

    async def mended(request: Request) -> bytes:
        await _look(archiver, projector, doubt=True)
        return await status(request)

    async def rebuild(request: Request) -> bytes:
        projector.renew(request.data.decode(errors="replace")[:500] or "asked for over NATS")
        return b"begun"

    answers: dict[str, Handler] = {STATUS: status, NOW: now, MEND: mended, REBUILD: rebuild}
    return {subject.replace(".", "_"): (subject, answer) for subject, answer in answers.items()}


async def _look(archiver: Archiver, projector: Projector, *, at_once: bool = False, doubt: bool = False) -> None:
    """Have the archiver look at tables that hold all that was in the streams when somebody asked.

    Raises:
        Conflict: they did not catch up in time.
    """
    try:
        async with asyncio.timeout(_CATCH_UP_S):
            while True:
                await projector.caught_up()
                looked_at = projector.primary.database
                await archiver.look(at_once=at_once, doubt=doubt)
                if projector.primary.database is looked_at:
                    return
    except TimeoutError as exc:
        status = await projector.status()
        raise errors.Conflict(
            f"expected tables that have caught up within {_CATCH_UP_S:.0f} s, got: {status.behind:,} events behind, "
            f"{status.problem or status.state}; ask again, `systems status` shows how far they are"
        ) from exc
