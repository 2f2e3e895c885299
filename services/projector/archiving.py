"""The archive as a fleet wires it: settings of the fleet file, the caps that hold a trim, and the micro service."""

from __future__ import annotations

from datetime import datetime

import msgspec
from nats.micro.request import Request

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
        return None if projector.primary.building else projector.primary.database

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
        await archiver.look(at_once=True)
        return await status(request)

    async def mended(request: Request) -> bytes:
        await archiver.look(doubt=True)
        return await status(request)

    async def rebuild(request: Request) -> bytes:
        projector.renew(request.data.decode(errors="replace")[:500] or "asked for over NATS")
        return b"begun"

    answers: dict[str, Handler] = {STATUS: status, NOW: now, MEND: mended, REBUILD: rebuild}
    return {subject.replace(".", "_"): (subject, answer) for subject, answer in answers.items()}
