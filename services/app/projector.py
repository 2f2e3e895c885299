"""The projector: keeps the tables, publishes copies, archives, answers questions."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

import msgspec

from services import credentials
from services.app.parts import (
    answer_freezes,
    calm_collector,
    report_config,
    share_interpreter,
    together,
    until_stopped,
    watch_ring,
)
from services.daemon import Daemon, Evidence, control_id, daemon
from services.fleet.registry import Registry
from services.fleet.spec import Archive
from services.home import Home
from services.receipts import Receipts
from services.warden import journal

#: Bytes of data that a projector may have beside four times what its tables may: allocators reserve more than they use.
#: Above that a single statement fails, and not the machine.
_BESIDE = 2 << 30


async def start_projector(
    running: Daemon, *, memory_mb: int, publish_s: float, archive: Archive | None = None, queries: Path | None = None
) -> asyncio.Task[None]:
    """Keeps the tables in step with the streams, publishes copies, archives, answers questions; ends only by failing.

    Args:
        running: the daemon that it is.
        memory_mb: what DuckDB may use.
        publish_s: seconds between two published copies, at least.
        archive: how history is kept; by default on this machine alone.
        queries: a folder of named queries, beside the home's own.
    """
    # Arrow and DuckDB cost every other daemon memory and time to start.
    from projections import database, primary, snapshot  # noqa: PLC0415
    from projections.projector import Options as ProjectorOptions  # noqa: PLC0415
    from projections.projector import Projector  # noqa: PLC0415
    from projections.query import Queries, bounded  # noqa: PLC0415
    from services.projector import answers, archiving, status  # noqa: PLC0415

    bus, archive = running.bus, archive or Archive()
    await journal.wait_until_applied(bus)
    registry = Registry(bus.bucket("registry"))
    await registry.open()
    running.teardown.push("registry", registry.close)
    report_config(running, registry)
    home = Home(running.home)
    projector = Projector(
        bus.connection,
        bus.store,
        bus.author,
        ProjectorOptions(
            files=primary.Files(home.projections, home.tables),
            seat=control_id(running.instance, running.host),
            settings=database.Settings(memory_mb=memory_mb),
            pace=snapshot.Pace(least_s=publish_s),
        ),
        archiving.history(bus, home, archive),
    )
    archiver = archiving.archiver(bus, home, archive, registry, projector)

    def evidence() -> Evidence:
        return Evidence(
            last_message_at=projector.last_message_at,
            last_empty_at=projector.last_answer_at,
            in_flight=projector.waiting,
            handled=projector.applied,
        )

    running.evidence = evidence
    task = running.accompany("projector", together(projector.run(), archiver.run()))
    running.teardown.push("last copy", projector.finish)
    service = await status.serve(bus, projector, archiving.endpoints(archiver, projector))
    running.teardown.push("status", service.close)
    home.remember_queries(queries)
    asked = answers.Answers(
        bus, Queries(projector.cursor, bounded(memory_mb)), home.query_folders, answers.lag_of(projector)
    )
    await asked.open()
    running.teardown.push("answers", asked.close)
    watch_ring(running)
    await running.announce()
    answer_freezes(running, Receipts(running))
    return task


async def run_projector(home: Home, instance: str, options: argparse.Namespace) -> None:
    """The projector daemon."""
    from projections.query import bound_memory  # noqa: PLC0415 (as above)

    calm_collector()
    share_interpreter()
    bound_memory(_BESIDE + 4 * (options.memory_mb << 20))
    async with daemon("projector", instance, home.path, credentials.load(home, "projector")) as running:
        task = await start_projector(
            running,
            memory_mb=options.memory_mb,
            publish_s=options.publish_s,
            archive=msgspec.json.decode(options.archive, type=Archive),
            queries=options.queries,
        )
        await until_stopped(running, task)
