"""The warden: guards, schedules, the services that answer for the fleet, the monitor, and the handler of incidents."""

from __future__ import annotations

import asyncio
import os

import structlog

from services import credentials
from services.app.parts import (
    answer_freezes,
    calm_collector,
    report_config,
    requests_of,
    together,
    until_stopped,
    watch_ring,
)
from services.daemon import Daemon, daemon
from services.fleet.registry import Registry
from services.home import Home
from services.incident.drafting import Drafter
from services.incident.handler import Handler
from services.monitor.monitor import Monitor
from services.ops.proposed import Proposed
from services.receipts import Receipts
from services.warden import journal
from services.warden.warden import Warden

log = structlog.get_logger()


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
    announced = asyncio.Event()

    async def ready() -> None:
        # A sweep before its own start is told would still find the warden away.
        await announced.wait()
        await warden.ready()

    monitor = Monitor(
        bus,
        registry,
        host=running.host,
        store=home.nats,
        facts=warden.facts,
        work=lambda: warden.sweeper.work,
        ready=ready,
        requests=requests_of(bus, registry),
        carry=Proposed(bus, registry, home, running.instance).carry,
    )
    warden.beside.append(("monitor", "Sweeps, findings, and raising them: monitor.sweep", monitor.endpoints))
    report_config(running, registry)
    incidents = Handler(
        bus,
        registry,
        forest=lambda: warden.loops.forest,
        draft=Drafter(bus, registry).draft,
        home=running.home,
        environ=os.environ,
        first=running.goes_first,
    )
    # Before it is announced: who hears that a warden is there may ask it.
    await warden.open()
    task = running.accompany("warden", together(warden.run(), monitor.run(), incidents.run()))
    await running.announce()
    announced.set()
    answer_freezes(running, Receipts(running))
    watch_ring(running)
    return task


async def run_warden(home: Home, instance: str) -> None:
    """The warden daemon."""
    calm_collector()
    async with daemon("warden", instance, home.path, credentials.load(home, "warden")) as running:
        task = await start_warden(running)
        await until_stopped(running, task)
