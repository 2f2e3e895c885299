"""The agent_runner: claims invocations and runs their handlers."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from bus import context
from bus.connection import Credentials
from bus.context import Context
from bus.spend import Ledger
from services import credentials
from services.app.parts import answer_freezes, calm_collector, report_config, requests_of, until_stopped, watch_ring
from services.daemon import Daemon, Evidence, daemon
from services.fleet.registry import Registry
from services.home import Home
from services.quota.asking import WardenClient
from services.quota.desk import QuotaDesk
from services.receipts import Receipts
from services.release import canary
from services.runner import handlers
from services.runner.desk import Desk
from services.runner.runner import Runner
from services.runner.spool import Spool
from services.warden import journal


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
    canary_role = canary.name(running.host, Home(running.home).token, running.instance)
    runner = Runner(desk, only=only, canary=canary_role)

    def evidence() -> Evidence:
        message_at, empty_at = runner.evidence()
        return Evidence(
            last_message_at=message_at,
            last_empty_at=empty_at,
            progress_at=runner.progress_at(),
            in_flight=len(desk.keeper),
            handled=runner.handled,
            draining=desk.draining,
        )

    running.evidence = evidence
    running.task_name = runner.task_name
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


def child_environment(agents: Credentials, home: Path) -> dict[str, str]:
    """What a handler's child process needs to reach the bus: as one who asks, not as the runner."""
    found = {"SYSTEMS_HOME": str(home), "NATS_URL": agents.url}
    if isinstance(agents, Context):
        found |= context.exports(agents, home)
    # A child finds the `systems` command of the installation that runs it.
    found["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return found


async def run_runner(home: Home, instance: str, folder: Path, only: str) -> None:
    """The agent_runner daemon."""
    calm_collector()
    async with daemon("agent_runner", instance, home.path, credentials.load(home, "agent_runner")) as running:
        runner = await start_runner(running, credentials.load(home, credentials.AGENTS), folder, only=only)
        await until_stopped(running, asyncio.create_task(runner.run(), name="runner"))
