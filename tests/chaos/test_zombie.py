"""The fence: a runner that was stopped in mid-work, and taken for dead, wakes up when its work was done elsewhere."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from bus.events import invocation as ev
from bus.liveness import Heartbeat
from bus.store import Recorded
from tests.chaos.fleet import Desk, Fleet
from tests.chaos.story import LIMIT_S

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

FLEET = """
[daemons]
agent_runner = { instances = 2 }

[projects.shop.roles.coder]
handler = { kind = "function", target = "handlers:work" }
concurrency = 4
grace = "1s"
"""
#: Waits until the test opens the door; says in the end which process did the work.
HANDLERS = """
import asyncio, os
from pathlib import Path

async def work(input):
    while not Path(input).exists():
        await asyncio.sleep(0.01)
    return os.getpid()
"""


async def held(desk: Desk, door: Path) -> tuple[str, Recorded, Heartbeat]:
    """An invocation that runs and waits at the door: its id, its claim, and who holds it."""
    accepted = await desk.ask("shop/coder", str(door))
    claimed = await desk.story.event(accepted.id, "claimed")
    beats = {beat.boot_id: beat for beat in await desk.bus.liveness.all()}
    return accepted.id, claimed, beats[claimed.data.holder]


def check_life(desk: Desk, id_: str) -> None:
    """One sweep, one more claim, one completion. In between a put-back for each time that the server handed it to the stopped one."""
    names = desk.story.events[id_]
    put_back = ["released", "requested"] * names.count("released")
    assert names == ["requested", "claimed", "swept", *put_back, "claimed", "completed"]


async def check_zombie_is_refused(fleet: Fleet, desk: Desk, id_: str, door: Path, zombie: Heartbeat) -> None:
    """The work is completed elsewhere; the zombie wakes up, is refused, and works on as if nothing had happened."""
    second = await desk.story.event(id_, "claimed", count=2)
    assert second.data.holder != zombie.boot_id
    door.touch()
    done = await desk.story.event(id_, "completed")
    assert done.data.holder == second.data.holder
    # The one who woke up has the door open as well: it hands in, and is refused.
    log = fleet.home.logs / f"{zombie.instance}.log"
    os.kill(zombie.pid, signal.SIGCONT)
    async with asyncio.timeout(LIMIT_S):
        while f'"invocation": "{id_}"' not in log.read_text() or "claim_lost" not in log.read_text():
            await asyncio.sleep(0.02)
    check_life(desk, id_)
    # It goes on working: of what is asked from now on it gets its share.
    async with asyncio.timeout(LIMIT_S):
        while True:
            more = await desk.ask("shop/coder", str(door))
            if (await desk.story.event(more.id, "completed")).data.holder == zombie.boot_id:
                break
    async with asyncio.timeout(LIMIT_S):
        while (await desk.bus.connection.api("CONSUMER.INFO.INVOCATIONS.shop_coder"))["num_ack_pending"]:
            await asyncio.sleep(0.02)


async def test_zombie_is_refused_after_its_heartbeat_was_taken(fleet: Fleet, tmp_path: Path) -> None:
    """A stopped runner whose liveness key is deleted, as the launcher does for the dead: swept at once, and fenced."""
    fleet.write(FLEET, HANDLERS)
    await fleet.up()
    async with fleet.bus() as desk:
        id_, _, zombie = await held(desk, tmp_path / "door")
        os.kill(zombie.pid, signal.SIGSTOP)
        await desk.bus.liveness.end("agent_runner", zombie.boot_id)
        swept = await desk.story.event(id_, "swept")
        assert (swept.data.holder, swept.data.reason) == (zombie.boot_id, ev.SweepReason.HOLDER_GONE)
        await check_zombie_is_refused(fleet, desk, id_, tmp_path / "door", zombie)


async def test_zombie_is_refused_after_its_seat_was_taken(fleet: Fleet, tmp_path: Path) -> None:
    """A new boot id in the seat of a stopped runner sweeps its claims, though its heartbeat has not expired."""
    fleet.write(FLEET, HANDLERS)
    await fleet.up()
    async with fleet.bus() as desk:
        id_, _, zombie = await held(desk, tmp_path / "door")
        os.kill(zombie.pid, signal.SIGSTOP)
        running = Heartbeat(
            daemon="agent_runner",
            instance=zombie.instance,
            boot_id="the-next-boot",
            host=zombie.host,
            home=zombie.home,
            pid=os.getpid(),
            started_at=desk.bus.author.now(),
            at=desk.bus.author.now(),
        )
        await desk.bus.liveness.beat(running)
        swept = await desk.story.event(id_, "swept")
        assert (swept.data.holder, swept.data.reason) == (zombie.boot_id, ev.SweepReason.HOLDER_REPLACED)
        await desk.bus.liveness.end("agent_runner", "the-next-boot")
        await check_zombie_is_refused(fleet, desk, id_, tmp_path / "door", zombie)


async def test_zombie_that_wakes_first_does_not_end_the_other_delivery(fleet: Fleet, tmp_path: Path) -> None:
    """A zombie that wakes while the other still works is refused, and the other's delivery stays its own."""
    fleet.write(FLEET, HANDLERS)
    await fleet.up()
    door = tmp_path / "door"
    async with fleet.bus() as desk:
        id_, _, zombie = await held(desk, door)
        os.kill(zombie.pid, signal.SIGSTOP)
        await desk.bus.liveness.end("agent_runner", zombie.boot_id)
        other = await desk.story.event(id_, "claimed", count=2)
        # Stop the rescuer too, so that only the zombie can come through the door; then it hands in and is refused.
        rescuer = next(b for b in await desk.bus.liveness.all() if b.boot_id == other.data.holder)
        os.kill(rescuer.pid, signal.SIGSTOP)
        door.touch()
        os.kill(zombie.pid, signal.SIGCONT)
        log = fleet.home.logs / f"{zombie.instance}.log"
        async with asyncio.timeout(LIMIT_S):
            while "claim_lost" not in log.read_text():
                await asyncio.sleep(0.02)
        info = await desk.bus.connection.api("CONSUMER.INFO.INVOCATIONS.shop_coder")
        assert info["num_ack_pending"] >= 1, "the zombie acknowledged what was not its own any more"
        os.kill(rescuer.pid, signal.SIGCONT)
        done = await desk.story.event(id_, "completed")
        assert done.data.holder == rescuer.boot_id
        check_life(desk, id_)


@pytest.mark.soak
async def test_zombie_is_swept_soon_after_its_heartbeat_expires(fleet: Fleet, tmp_path: Path) -> None:
    """With nobody to say that it is dead, the claim of a silent holder is swept for its heartbeat's expiry, long before ack-wait."""
    fleet.write(FLEET, HANDLERS)
    await fleet.up()
    async with fleet.bus() as desk:
        id_, _, zombie = await held(desk, tmp_path / "door")
        os.kill(zombie.pid, signal.SIGSTOP)
        swept = await desk.story.event(id_, "swept", limit_s=60)
        assert swept.data.reason is ev.SweepReason.HOLDER_GONE
        assert zombie.boot_id not in {beat.boot_id for beat in await desk.bus.liveness.all()}
        await check_zombie_is_refused(fleet, desk, id_, tmp_path / "door", zombie)
