"""Everything that can die is killed with -9 in mid-work: each accepted request gets exactly one terminal event."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from bus.events.invocation import Requested
from bus.events.schedule import Missed
from bus.store import Recorded
from bus.subjects import parse_event
from bus.topology import HEARTBEAT_TTL_S
from tests.chaos.fleet import Desk, Fleet
from tests.chaos.story import TERMINAL

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

FLEET = """
[daemons]
agent_runner = { instances = 2 }
restart = { exits = 50, period = "5m" }

[projects.shop.roles.coder]
handler = { kind = "function", target = "handlers:work" }
concurrency = 16
max_crashes = 20
grace = "1s"
"""
HANDLERS = """
import asyncio

async def work(input):
    await asyncio.sleep(0.03)
    return input
"""


async def log(desk: Desk) -> list[Recorded]:
    """The whole stream, read again from its beginning."""
    return [record async for record in desk.bus.store.read("INVOCATIONS", "inv.>")]


async def check_each_ended_once(desk: Desk, ids: list[str], *, with_: str = "completed") -> Counter[str]:
    """The stream itself, not what was heard of it: one terminal event for each of `ids` and for no other. Its event counts."""
    ends: Counter[tuple[str, str]] = Counter()
    counts: Counter[str] = Counter()
    for record in await log(desk):
        ref, name = parse_event(record.subject)
        counts[name] += 1
        if name in TERMINAL:
            ends[ref.id, name] += 1
    assert ends == Counter((id_, with_) for id_ in ids)
    return counts


async def test_fleet_ends_each_of_a_thousand_requests_once(fleet: Fleet) -> None:
    """Runners are killed again and again in the middle of 1,000 requests: each is completed exactly once."""
    fleet.write(FLEET, HANDLERS)
    await fleet.up()
    async with fleet.bus() as desk:
        asking = asyncio.create_task(desk.ask_many("shop/coder", 1000))
        for n, goal in enumerate((50, 200, 350, 500, 650, 800)):
            await desk.completed(goal)
            await fleet.kill(f"agent_runner-{n % 2 + 1}")
        ids = await asking
        await desk.all_ended(ids)
        counts = await check_each_ended_once(desk, ids)
        assert len(set(ids)) == 1000
        assert counts["requested"] >= 1000
        assert counts["swept"] > 0, "no runner held anything when it was killed"


async def test_fleet_survives_its_server(fleet: Fleet) -> None:
    """nats-server is killed while requests come in and are worked on: what was accepted is completed once, daemons resume."""
    fleet.write(FLEET, HANDLERS)
    await fleet.up()
    async with fleet.bus() as desk:
        daemons = {name: child.pid for name, child in (await fleet.children()).items() if name != "nats-server"}
        asking = asyncio.create_task(desk.ask_many("shop/coder", 600))
        server = 0
        for goal in (50, 200, 350):
            await desk.completed(goal)
            server = await fleet.pid("nats-server", other_than=server)
            os.kill(server, signal.SIGKILL)
        ids = await asking
        await desk.all_ended(ids, limit_s=60)
        counts = await check_each_ended_once(desk, ids)
        now = {name: child.pid for name, child in (await fleet.children()).items() if name != "nats-server"}
        assert now == daemons, "a daemon did not live through the server's absence"
        assert counts["swept"] == 0, "a living runner was taken for dead"


async def test_fleet_survives_its_warden(fleet: Fleet) -> None:
    """Warden and runner are killed at the same time, again and again: the next warden sweeps what the dead runner held."""
    fleet.write(FLEET, HANDLERS)
    await fleet.up()
    async with fleet.bus() as desk:
        # So many that there is work in hand at each death, also on a machine that is slow to find the next victim.
        asking = asyncio.create_task(desk.ask_many("shop/coder", 1500))
        warden = 0
        for goal in (40, 400, 900):
            await desk.completed(goal)
            warden = await fleet.pid("warden", other_than=warden)
            os.kill(warden, signal.SIGKILL)
            await fleet.kill("agent_runner-1")
        ids = await asking
        await desk.all_ended(ids)
        counts = await check_each_ended_once(desk, ids)
        assert counts["swept"] > 0


async def test_fleet_survives_its_launcher(fleet: Fleet) -> None:
    """The launcher is killed: nothing that it started outlives it for long, and the next one finishes all work."""
    fleet.write(FLEET, HANDLERS)
    await fleet.up()
    async with fleet.bus() as desk:
        ids = await desk.ask_many("shop/coder", 400)
        await desk.completed(50)
        assert fleet.launcher is not None
        fleet.launcher.send_signal(signal.SIGKILL)
        await fleet.gone()
    await fleet.up()
    async with fleet.bus() as desk:
        # The fleet is up when its daemons beat, and not as long as those of the dead launcher seem to.
        beats = {(beat.instance, beat.pid) for beat in await desk.bus.liveness.all()}
        assert {(c.name, c.pid) for c in (await fleet.children()).values() if c.name != "nats-server"} <= beats
        await desk.all_ended(ids)
        await check_each_ended_once(desk, ids)


CLOCK = """
[daemons]
agent_runner = { instances = 1 }
restart = { exits = 50, period = "5m" }

[projects.shop.roles.clock]
handler = { kind = "function", target = "handlers:work" }
schedules.steady = { cron = "@every 1s", overlap = "allow", catch_up = "5m" }
"""


async def test_schedule_outlives_its_warden(fleet: Fleet) -> None:
    """The warden is killed between ticks and in the middle of them: each due time is asked or missed once, none is lost."""
    fleet.write(CLOCK, HANDLERS)
    await fleet.up()
    async with fleet.bus() as desk:

        def asked() -> list[datetime]:
            # Work that was put back is asked for again under the same id: that is no second asking of the schedule.
            requests = [r.data for r in desk.story.records if isinstance(r.data, Requested) and not r.data.generation]
            return [request.due for request in requests if request.schedule and request.due]

        def missed() -> list[datetime]:
            return [r.data.due for r in desk.control.records if isinstance(r.data, Missed)]

        warden = 0
        for goal in (2, 3, 4):
            await desk.story.until(lambda goal=goal: len(asked()) >= goal)  # type: ignore[misc]  # bound in its round
            warden = await fleet.pid("warden", other_than=warden)
            os.kill(warden, signal.SIGKILL)
        await desk.story.until(lambda: len(asked()) >= 6)
        last = max(asked())

        def steps() -> set[timedelta]:
            dues = sorted(due for due in asked() + missed() if due <= last)
            return {later - earlier for earlier, later in pairwise(dues)}

        # What was missed is told in another stream than what was asked.
        await desk.control.until(lambda: steps() == {timedelta(seconds=1)})


PATIENT = """
[daemons]
agent_runner = { instances = 2 }

[projects.shop.roles.coder]
handler = { kind = "function", target = "handlers:wait" }

[projects.shop.roles.retry]
handler = { kind = "function", target = "handlers:fail_once" }
backoff = { base = "3s", jitter = 0.0 }
"""
PATIENT_HANDLERS = """
import asyncio
from pathlib import Path

async def wait(input, ctx):
    while not Path(input).exists():
        await asyncio.sleep(0.05)
        ctx.progress()
    return "done"

async def fail_once(input, ctx):
    if ctx.attempt == 1:
        raise OSError("once")
    return "done"
"""


@pytest.mark.soak
async def test_fleet_believes_in_nobodys_death_when_its_server_stood_still(fleet: Fleet, tmp_path: Path) -> None:
    """The server stands still for longer than a heartbeat lives: all have expired, nobody died, and no claim is swept."""
    fleet.write(PATIENT, PATIENT_HANDLERS)
    await fleet.up()
    door = tmp_path / "door"
    async with fleet.bus() as desk:
        ids = [(await desk.ask("shop/coder", str(door))).id for _ in range(4)]
        for id_ in ids:
            await desk.story.event(id_, "claimed")
        server = await fleet.pid("nats-server")
        os.kill(server, signal.SIGSTOP)
        try:
            await asyncio.sleep(HEARTBEAT_TTL_S + 3)
        finally:
            os.kill(server, signal.SIGCONT)
        # Long enough for a sweep that is to come.
        await asyncio.sleep(3)
        door.touch()
        await desk.all_ended(ids)
        assert [desk.story.events[id_] for id_ in ids] == [["requested", "claimed", "completed"]] * 4


async def test_retry_survives_its_server(fleet: Fleet) -> None:
    """A retry that waits at the server when that is killed comes after its restart, and not before its time."""
    fleet.write(PATIENT, PATIENT_HANDLERS)
    await fleet.up()
    async with fleet.bus() as desk:
        accepted = await desk.ask("shop/retry")
        failed = await desk.story.event(accepted.id, "failed")
        await fleet.kill("nats-server")
        done = await desk.story.event(accepted.id, "completed")
        late = (done.stored_at - failed.data.retry_at).total_seconds()
        # A server that starts anew has kept the time of a delivery in whole seconds.
        assert late >= -1.1, f"the retry came {-late:.1f} s before its time"
