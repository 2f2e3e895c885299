"""The monitor: from a daemon's death by ``kill -9`` to the concern on the bus, and a sweep over many unfinished invocations.

The deaths are those of a real fleet of processes, each daemon's once but the launcher's. The sweep is asked for over NATS, of a warden that has
folded the log; the server has as many unfinished invocations of one role as there are subjects in the subjects' measurement.
"""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from pathlib import Path
from statistics import median

import msgspec
from nats import errors as driver

from bus import plan
from bus.author import Author
from bus.context import Context
from bus.driver import Driver
from bus.events import finding as ev
from bus.events.sweep import Finished, Trigger
from bus.ids import new_id
from services.app.parts import calm_collector
from services.app.warden import start_warden
from services.daemon import Daemon, open_bus
from services.fleet.entries import publish, role_key
from services.fleet.registry import Registry
from services.fleet.spec import FunctionHandler, Role
from services.warden import journal
from services.warden.facts import Facts
from tests.bench.report import Row
from tests.bench.rig import Rig
from tests.bench.scale import Scale
from tests.chaos.fleet import Desk, Fleet

#: Seconds from a death to its concern.
DEATH_S = 3.0
#: Seconds for a sweep over a million invocations.
SWEEP_S = 1.0
_RUNNERS = 3
#: Who is killed, each once.
_NAMES = (*(f"agent_runner-{number}" for number in range(1, _RUNNERS + 1)), "projector", "warden")
_FLEET = f"""
[daemons]
agent_runner = {{ instances = {_RUNNERS} }}

[projects.bench.roles.noop]
handler = {{ kind = "function", target = "handlers:noop" }}
"""
#: Seconds for everything that is waited for.
_LIMIT_S = 300.0


async def measure(rig: Rig, scale: Scale) -> list[Row]:
    """First the deaths, then the sweeps."""
    taken = await _deaths()
    sweeps = await _sweeps(rig, scale)
    count = f"{scale.many_subjects:,}"
    return [
        Row(
            what=f"death of a daemon to the concern on the bus, worst of {len(taken)}",
            unit="s",
            ours=max(taken.values()),
            target=f"< {DEATH_S:g} s",
            met=max(taken.values()) < DEATH_S,
            note=", ".join(f"{name} {seconds:.2f} s" for name, seconds in taken.items()),
        ),
        Row(
            what=f"a sweep over {count} unfinished invocations, median of {len(sweeps)}",
            unit="s",
            ours=median(sweeps),
            target=f"< {SWEEP_S:g} s",
            met=median(sweeps) < SWEEP_S,
            note=f"worst {max(sweeps):.2f} s, while the loop breaker still reads the log",
        ),
    ]


async def _deaths() -> dict[str, float]:
    """Kill each daemon of a fleet once, also the one that finds: seconds to the first finding about it."""
    taken: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="bench-monitor-") as folder:
        fleet = Fleet(Path(folder))
        fleet.write(_FLEET, "async def noop(input):\n    return input\n")
        try:
            await fleet.up()
            async with fleet.bus() as desk:
                await desk.control.until(lambda: _begun(desk), limit_s=_LIMIT_S)
                for name in _NAMES:
                    pid = await fleet.pid(name)
                    begun = time.perf_counter()
                    os.kill(pid, signal.SIGKILL)
                    await desk.control.until(lambda name=name: _told(desk, name), limit_s=_LIMIT_S)  # type: ignore[misc]
                    taken[name] = round(time.perf_counter() - begun, 3)
        finally:
            await fleet.down()
    return taken


def _begun(desk: Desk) -> bool:
    return any(isinstance(r.data, Finished) and r.data.trigger is Trigger.START for r in desk.control.records)


def _told(desk: Desk, name: str) -> bool:
    return any(isinstance(r.data, ev.Opened) and r.data.subject.startswith(f"{name}@") for r in desk.control.records)


async def _sweeps(rig: Rig, scale: Scale) -> list[float]:
    """Sweeps of a warden that has folded everything: seconds of each."""
    await rig.clear()
    calm_collector()  # as every daemon does
    bus = await open_bus(Context(url=rig.server.url), "bench", Author("/bench/monitor"))
    boot_id = new_id()
    with tempfile.TemporaryDirectory(prefix="bench-monitor-") as folder:
        running = Daemon("warden", "warden", Path(folder), bus, boot_id)
        running.teardown.push("bus", bus.close, 5)
        try:
            role = Role(handler=FunctionHandler(target="x:y"))
            await publish(bus.bucket("registry"), {role_key("bench", "waits"): msgspec.json.encode(role)})
            registry = Registry(bus.bucket("registry"))
            await registry.load()
            shape = journal.declared(registry)
            await plan.apply(bus.connection, shape, await plan.plan(bus.connection, shape))
            await rig.feed("waits", scale.many_subjects)
            task = await start_warden(running)
            await _until_folded(bus.connection.nc, scale.many_subjects, task)
            return [await _sweep(bus.connection.nc) for _ in range(5)]
        finally:
            await running.teardown.run()


async def _until_folded(nc: Driver, count: int, warden: asyncio.Task[None]) -> None:
    """Wait until the warden answers and has read everything."""
    async with asyncio.timeout(_LIMIT_S):
        while True:
            await asyncio.sleep(0.5)
            if warden.done():
                warden.result()
            try:
                facts = msgspec.json.decode((await nc.request("fleet.status", b"", timeout=_LIMIT_S)).data, type=Facts)
            except driver.NoRespondersError:
                continue
            if facts.lag == 0 and sum(sum(role.unfinished.values()) for role in facts.roles) >= count:
                return


async def _sweep(nc: Driver) -> float:
    begun = time.perf_counter()
    await nc.request("monitor.sweep", b"", timeout=_LIMIT_S)
    return time.perf_counter() - begun
