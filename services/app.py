"""The composition root: every daemon is wired here and nowhere else.

``python -m services.app KIND --home DIR --fleet FILE --instance NAME`` runs one daemon until SIGTERM. Reading one function
below shows all that a daemon consists of, in the order in which it is taken down again.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import structlog
import uvloop

from bus import context, errors
from bus.connection import Credentials
from bus.context import Context
from bus.events import daemon as ev
from bus.ids import new_id
from bus.server import EmbeddedServer
from bus.spend import Ledger
from services import credentials, logs
from services.daemon import Bus, Daemon, Evidence, control_id, daemon
from services.declaration import apply_fleet
from services.drill.schedule import Rounds
from services.fleet.file import LoadedFleet, load
from services.fleet.registry import Registry, Settings
from services.fleet.spec import Archive, Fleet
from services.fleet.spec import Projector as Tables
from services.home import Home
from services.launcher.filewatch import FileWatch
from services.launcher.main import Launcher, Options, daemons
from services.monitor.monitor import Monitor
from services.monitor.ring import Ring
from services.ops.proposed import Proposed
from services.quota.asking import WardenClient
from services.quota.desk import QuotaDesk
from services.receipts import Receipts
from services.requests.requests import Requests
from services.runner import handlers
from services.runner.desk import Desk
from services.runner.runner import Runner
from services.runner.spool import Spool
from services.warden import journal
from services.warden.warden import Warden

log = structlog.get_logger()

#: Bytes of data that a projector may have beside four times what its tables may: allocators reserve more than they use.
#: Above that a single statement fails, and not the machine.
_BESIDE = 2 << 30

#: Seconds for which a thread of a projector may keep the interpreter while another one waits for it.
_SWITCH_S = 0.0005

KINDS = ("launcher", "warden", "agent_runner", "projector")


def requests_of(bus: Bus, registry: Registry) -> Requests:
    """The door through which every request comes."""
    return Requests(registry, bus.store, bus.author, bus.artifacts, bus.schedules, bus.gate)


def watch_ring(running: Daemon) -> Ring:
    """Let a daemon watch its neighbour in the watch ring until it ends."""
    ring = Ring(running.bus, running.kind, running.instance, running.started_at)
    running.accompany("ring", ring.run())
    return ring


def answer_freezes(running: Daemon, receipts: Receipts) -> None:
    """Let a daemon give its receipts until it ends."""
    running.accompany("receipts", receipts.run())


def report_config(running: Daemon, registry: Registry) -> None:
    """Let a daemon's heartbeat say which revision of the registry it runs with, at once when that changes."""
    running.config_revision = lambda: registry.seen
    registry.listeners.append(running.hurry)


async def start_warden(running: Daemon) -> asyncio.Task[None]:
    """The guards, schedules and services; the task ends only by failing."""
    bus = running.bus
    await journal.wait_until_applied(bus)
    registry = Registry(bus.bucket("registry"))
    await registry.open()
    running.teardown.push("registry", registry.close)
    home = Home(running.home)
    warden = Warden(bus, registry, requests_of(bus, registry), home.run, home.archive)
    running.evidence = warden.evidence
    monitor = Monitor(
        bus,
        registry,
        host=running.host,
        store=home.nats,
        facts=warden.facts,
        work=lambda: warden.sweeper.work,
        ready=warden.ready,
        requests=requests_of(bus, registry),
        carry=Proposed(bus, registry, home, running.instance).carry,
    )
    warden.beside.append(("monitor", "Sweeps, findings, and raising them: monitor.sweep", monitor.endpoints))
    report_config(running, registry)
    task = running.accompany("warden", _together(warden.run(), monitor.run()))
    await running.announce()
    answer_freezes(running, Receipts(running))
    watch_ring(running)
    return task


async def _together(*work: Coroutine[Any, Any, None]) -> None:
    """Run all; the first that fails ends the others."""
    async with asyncio.TaskGroup() as group:
        for each in work:
            group.create_task(each)


async def start_runner(running: Daemon, agents: Credentials, folder: Path, *, only: str = "") -> Runner:
    """Claims and runs everything that is registered, or the roles of one project.

    Args:
        running: the daemon that it is.
        agents: the login of its handlers' child processes.
        folder: where handlers' relative paths begin.
        only: the project; empty for all but the drills'.
    """
    bus = running.bus
    await journal.wait_until_applied(bus)
    registry = Registry(bus.bucket("registry"))
    await registry.open()
    running.teardown.push("registry", registry.close)
    quota = QuotaDesk(
        Ledger(bus.counters, bus.author.new_id),
        registry,
        bus.gate,
        WardenClient(bus.connection),
        bus.author,
        store=bus.store,
        load=bus.artifacts.get,
    )
    desk = Desk(
        connection=bus.connection,
        store=bus.store,
        author=bus.author,
        registry=registry,
        requests=requests_of(bus, registry),
        artifacts=bus.artifacts,
        gate=bus.gate,
        trips=bus.trips,
        quota=quota,
        liveness=bus.liveness,
        spool=Spool(Home(running.home).spool, running.boot_id),
        boot_id=running.boot_id,
        runner=f"{running.instance}@{running.host}",
        build=lambda role: handlers.build(role, folder),
        environment=child_environment(agents, running.home) | {"SYSTEMS_DAEMON": running.instance},
    )
    runner = Runner(desk, only=only)

    def evidence() -> Evidence:
        message_at, empty_at = runner.evidence()
        return Evidence(
            last_message_at=message_at,
            last_empty_at=empty_at,
            in_flight=len(desk.keeper),
            handled=runner.handled,
            draining=desk.draining,
        )

    running.evidence = evidence
    report_config(running, registry)
    # The first beat comes before the first claim: whoever holds a claim has been alive.
    await running.announce()
    longest = max((role.role.grace for role in registry.roles.values()), default=0.0)
    running.teardown.push("runner", runner.close, longest + 10)
    running.teardown.push("drain", runner.drain, 3600)
    await runner.open()
    answer_freezes(running, Receipts(running, stopped=runner.stopped, settle=runner.settle))
    watch_ring(running)
    return runner


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
    task = running.accompany("projector", _together(projector.run(), archiver.run()))
    running.teardown.push("last copy", projector.finish)
    service = await status.serve(bus, projector, archiving.endpoints(archiver, projector))
    running.teardown.push("status", service.close)
    folders = (home.queries, queries) if queries is not None else (home.queries,)
    asked = answers.Answers(bus, Queries(projector.cursor, bounded(memory_mb)), folders, answers.lag_of(projector))
    await asked.open()
    running.teardown.push("answers", asked.close)
    watch_ring(running)
    await running.announce()
    answer_freezes(running, Receipts(running))
    return task


def child_environment(agents: Credentials, home: Path) -> dict[str, str]:
    """What a handler's child process needs to reach the bus: as one who asks, not as the runner."""
    found = {"SYSTEMS_HOME": str(home), "NATS_URL": agents.url}
    if isinstance(agents, Context):
        found |= context.exports(agents, home)
    # A child finds the `systems` command of the installation that runs it.
    found["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return found


class EventReporter:
    """What the supervisor sees, as events; and the end of a dead daemon's heartbeat, so that its claims are swept at once."""

    def __init__(self, running: Daemon, ring: Ring) -> None:
        self._running = running
        self._ring = ring

    async def child_started(self, name: str, pid: int) -> None:
        """A child runs. Daemons say so themselves; the server cannot."""
        if name == EmbeddedServer.name:
            await self._write(name, ev.Started(daemon=name, boot_id="", host=self._running.host, pid=pid))

    async def child_exited(self, name: str, pid: int, status: int, restart_in_s: float | None) -> None:
        """A child ended by itself or was killed."""
        running = self._running
        dead = [
            beat
            for beat in await running.bus.liveness.all()
            if (beat.instance, beat.pid, beat.host) == (name, pid, running.host)
        ]
        for beat in dead:
            await running.bus.liveness.end(beat.daemon, beat.boot_id)
        exited = ev.Exited(
            daemon=name,
            host=running.host,
            pid=pid,
            boot_id=dead[-1].boot_id if dead else "",
            status=status,
            restart_in_s=restart_in_s,
        )
        await self._write(name, exited)

    async def child_gave_up(self, name: str, exits: int, period_s: float, status: int, command: str) -> None:
        """A child stays down: a person is needed."""
        gave_up = ev.GaveUp(
            daemon=name, host=self._running.host, exits=exits, period_s=period_s, command=command, status=status
        )
        await self._write(name, gave_up)
        if name == "warden":
            # The one who would say so is the one that is gone.
            await self._ring.gone("warden", f"restarted too often ({exits} exits in {period_s:g} s)", command)

    async def _write(self, name: str, event: ev.DaemonEvent) -> None:
        bus = self._running.bus
        await bus.store.append(bus.author.control(control_id(name, self._running.host), event))


async def follow_settings(running: Daemon, loaded: LoadedFleet) -> Fleet:
    """Let the launcher follow the registry, and watch the fleet file: the fleet with the settings that it starts with."""
    registry = Registry(running.bus.bucket("registry"))
    await registry.open()
    running.teardown.push("registry", registry.close)
    started, runs_with = _of_launcher(registry.settings), registry.seen

    def revision() -> int:
        # How it runs its daemons it reads once: what changes there is in effect after its next start.
        nonlocal runs_with
        if _of_launcher(registry.settings) == started:
            runs_with = registry.seen
        return runs_with

    running.config_revision = revision
    registry.listeners.append(running.hurry)
    running.accompany("file_watch", FileWatch(running.bus, registry, loaded).run())
    return msgspec.structs.replace(loaded.fleet, **started)


def _of_launcher(settings: Settings) -> dict[str, Any]:
    """The settings by which the launcher runs its daemons."""
    return {name: getattr(settings, name) for name in ("daemons", "projector", "queries", "archive", "drills")}


async def run_launcher(home: Home, file: Path) -> None:
    """The launcher: server, topology, registry, daemons; until somebody asks for the end."""
    loaded = load(file)

    @asynccontextmanager
    async def on_server_ready(where: Context) -> AsyncIterator[EventReporter]:
        login = credentials.as_user(home, where, "launcher")
        async with daemon("launcher", "launcher", home.path, login) as running:
            changed = await apply_fleet(running.bus, loaded)
            log.info("fleet_applied", file=str(file), changed=changed)
            fleet = await follow_settings(running, loaded)
            launcher.take(fleet.daemons, daemons(fleet, home, file))
            await running.announce()
            answer_freezes(running, Receipts(running))
            ring = watch_ring(running)
            running.accompany("drills", Rounds(running.bus, home, fleet.drills).run())
            yield EventReporter(running, ring)

    options = Options(
        home=home,
        fleet=loaded.fleet,
        boot_id=new_id(),
        now=datetime.now(UTC),
        daemons=daemons(loaded.fleet, home, file),
        on_server_ready=on_server_ready,
        sync_always=loaded.fleet.server.sync_always,
    )
    launcher = Launcher(options)
    await launcher.run()


async def run_warden(home: Home, instance: str) -> None:
    """The warden daemon."""
    calm_collector()
    async with daemon("warden", instance, home.path, credentials.load(home, "warden")) as running:
        task = await start_warden(running)
        await _until_stopped(running, task)


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
        await _until_stopped(running, task)


def calm_collector() -> None:
    """Let the collector of reference cycles come less often, and never look at what was there from the start.

    By default it looks at every 700 objects that are alive for a moment; a busy daemon has some thousands.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


def share_interpreter() -> None:
    """Let threads take turns more often.

    The thread that runs DuckDB asks for the interpreter between any two statements; by default the event loop may keep it for
    5 ms each time, which is a third of the throughput.
    """
    sys.setswitchinterval(_SWITCH_S)


async def run_runner(home: Home, instance: str, folder: Path, only: str) -> None:
    """The agent_runner daemon."""
    calm_collector()
    async with daemon("agent_runner", instance, home.path, credentials.load(home, "agent_runner")) as running:
        runner = await start_runner(running, credentials.load(home, credentials.AGENTS), folder, only=only)
        await _until_stopped(running, asyncio.create_task(runner.run(), name="runner"))


async def _until_stopped(running: Daemon, task: asyncio.Task[None]) -> None:
    """Wait for the stop; a task that fails first ends the daemon with its error."""
    stopped = asyncio.create_task(running.stopped())
    await asyncio.wait([stopped, task], return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if task.done():
        task.result()


def main(arguments: list[str] | None = None) -> int:
    """Run one daemon: the exit status."""
    parser = argparse.ArgumentParser(prog="python -m services.app", description="Run one daemon of a fleet.")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--home", required=True, type=Path)
    parser.add_argument("--fleet", required=True, type=Path)
    parser.add_argument("--instance", default="launcher")
    parser.add_argument("--only", default="", metavar="PROJECT", help="an agent_runner's one project")
    parser.add_argument("--memory-mb", type=int, default=Tables().memory_mb, help="what a projector's tables may use")
    parser.add_argument(
        "--publish-s", type=float, default=Tables().publish, help="seconds between a projector's copies"
    )
    parser.add_argument("--queries", type=Path, help="a folder of named queries for a projector")
    parser.add_argument("--archive", default="{}", metavar="JSON", help="the fleet file's table [archive], as JSON")
    options = parser.parse_args(arguments)
    logs.configure()
    home = Home(options.home)
    work: Coroutine[Any, Any, None]
    if options.kind == "launcher":
        work = run_launcher(home, options.fleet.resolve())
    elif options.kind == "warden":
        work = run_warden(home, options.instance)
    elif options.kind == "projector":
        work = run_projector(home, options.instance, options)
    else:
        work = run_runner(home, options.instance, options.fleet.resolve().parent, options.only)
    try:
        uvloop.run(work)
    except errors.BusError as exc:
        log.error("daemon_ended", error=str(exc))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
