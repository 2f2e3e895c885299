"""The launcher: the server, the topology, the registry, and the daemons as its children."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import structlog

from bus.context import Context
from bus.events import daemon as ev
from bus.events.card import End, Opened, Reason
from bus.ids import new_id
from bus.server import EmbeddedServer
from bus.store import CONTROL
from services import credentials
from services.app.parts import answer_freezes, watch_ring
from services.daemon import Daemon, control_id, daemon
from services.declaration import apply_fleet
from services.drill.schedule import Rounds
from services.fleet.daemons import RestartBy
from services.fleet.entries import Settings
from services.fleet.file import LoadedFleet, load
from services.fleet.registry import Registry
from services.fleet.spec import Fleet
from services.home import Home
from services.incident.standby import Standby
from services.launcher.filewatch import FileWatch
from services.launcher.intensity import GiveUp
from services.launcher.main import Launcher, Options, daemons
from services.launcher.reporter import describe
from services.launcher.supervisor import Supervisor
from services.launcher.watchdog import Watchdog
from services.monitor.ring import Ring
from services.receipts import Receipts
from services.release.release import Releases

log = structlog.get_logger()


class EventReporter:
    """What the supervisor sees, as events; and the end of a dead daemon's heartbeat, so that its claims are swept at once."""

    def __init__(self, running: Daemon, ring: Ring, supervisor: Supervisor) -> None:
        self._running = running
        self._ring = ring
        self._supervisor = supervisor
        self._releases = Releases(Home(running.home))

    async def child_started(self, name: str, pid: int) -> None:
        """A child runs. Daemons say so themselves; the server cannot."""
        if name == EmbeddedServer.name:
            await self._write(name, ev.Started(daemon=name, boot_id="", host=self._running.host, pid=pid))
            # It has no boot id: a pid is what tells two of its lives apart.
            await self._running.bus.cards.close(control_id(name, self._running.host), End.BACK, str(pid))

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

    async def child_gave_up(self, name: str, pid: int, gave_up: GiveUp, status: int, command: str) -> None:
        """A child stays down: a person is needed."""
        running, human = self._running, gave_up.by is RestartBy.HUMAN
        told = ev.GaveUp(
            daemon=name,
            host=running.host,
            exits=gave_up.exits,
            period_s=gave_up.period_s,
            command=command,
            status=status,
            human=human,
        )
        await self._write(name, told)
        if name != EmbeddedServer.name and not human and self._releases.take_back(name):
            # Whoever rolls out would have done it by now: it is gone.
            log.warning("release_taken_back", name=name)
            self._supervisor.start(name)
            return
        seat = control_id(name, running.host)
        last = await running.bus.store.last(CONTROL, f"ctl.daemon.{seat}.exited")
        card = Opened(
            instance=name,
            host=running.host,
            reason=Reason.HUMAN if human else Reason.GAVE_UP,
            why=f"it ended ({describe(status)}), and {gave_up.why}" if human else gave_up.why,
            command=command,
            since=last.stored_at if last is not None else running.bus.author.now(),
            pid=pid,
            boot_id=last.data.boot_id if last is not None and isinstance(last.data, ev.Exited) else "",
            by="launcher",
        )
        await running.bus.cards.hand(seat, card)
        if name == "warden":
            # The one who would say so is the one that is gone.
            await self._ring.gone("warden", f"no warden beats: {gave_up.why}", command)

    async def _write(self, name: str, event: ev.DaemonEvent) -> None:
        bus = self._running.bus
        await bus.store.append(bus.author.control(control_id(name, self._running.host), event))


async def follow_settings(running: Daemon, loaded: LoadedFleet) -> Fleet:
    """Let the launcher follow the registry, and watch the fleet file: the fleet with the settings that it starts with."""
    registry = Registry(running.bus.bucket("registry"))
    await registry.open()
    running.teardown.push("registry", registry.close)
    started, runs_with = _of_launcher(registry.settings), registry.seen
    slack = registry.settings.slack

    def revision() -> int:
        # How it runs its daemons it reads once: what changes there is in effect after its next start.
        nonlocal runs_with
        if _of_launcher(registry.settings) == started and registry.settings.slack.enabled == slack.enabled:
            runs_with = registry.seen
        return runs_with

    running.config_revision = revision
    registry.listeners.append(running.hurry)
    running.accompany("file_watch", FileWatch(running.bus, registry, loaded).run())
    return msgspec.structs.replace(loaded.fleet, slack=slack, **started)


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
            watchdog = Watchdog(running, launcher.supervisor, lambda: launcher.settings, launcher.command)
            running.accompany("watchdog", watchdog.run())
            running.accompany("incidents", Standby(running.bus, home.path, os.environ, running.goes_first).run())
            running.accompany("drills", Rounds(running.bus, home, fleet.drills).run())
            yield EventReporter(running, ring, launcher.supervisor)

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
