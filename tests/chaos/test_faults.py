"""Each daemon of a real fleet in turn is slowed down, deafened, stopped and killed: verdict, card, restart, recovery."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import pytest

from bus.events import card as cards
from bus.events import finding, ops
from bus.events.daemon import Exited, Started
from bus.events.finding import Kind
from bus.events.sweep import Finished, Trigger
from bus.liveness import Heartbeat
from bus.store import Recorded
from services.health.daemons import DaemonLine, State
from services.health.gather import gather
from tests.chaos.deafen import deafened
from tests.chaos.findings import clear, closed, standing
from tests.chaos.fleet import SYSTEMS, Desk, Fleet
from tests.chaos.story import LIMIT_S

pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.soak, pytest.mark.timeout(600)]

FLEET = """
[monitor]
every = "1h"
look = "500ms"

[daemons]
restart = { exits = 3, period = "15m" }
watchdog = { silent = "16s", busy = "16s" }

[slack]
enabled = true

[projects.shop.roles.coder]
handler = { kind = "function", target = "handlers:work" }
grace = "1s"
"""
HANDLERS = """
async def work(input, ctx):
    return input
"""
#: Times that a main thread is stopped anew, because it held the interpreter just then.
_TRIES = 10


class Case:
    """One daemon under faults."""

    def __init__(self, fleet: Fleet, desk: Desk, name: str) -> None:
        self.fleet, self.desk, self.name = fleet, desk, name
        #: Sequence of CONTROL from which on the present fault is told.
        self.seq = 0
        #: Why the fleet is not nominal, as the panel said last.
        self.reasons: tuple[str, ...] = ()

    def begin(self) -> None:
        """What is told from now on belongs to the next fault."""
        self.seq = self.desk.control.records[-1].seq

    async def told(self, kind: type, condition: Callable[[Any], bool] = lambda _: True) -> Recorded:
        """The first event of a kind since the fault began."""
        return await self.desk.control.subject(
            lambda r: r.seq > self.seq and isinstance(r.data, kind) and condition(r.data)
        )

    async def found(self, *kinds: Kind) -> Recorded:
        """A finding about the daemon since the fault began."""
        return await self.told(finding.Opened, lambda d: d.kind in kinds and d.subject.startswith(self.name))

    async def stands(self, *kinds: Kind) -> None:
        """Wait until a finding about the daemon is open, since this fault or since one before."""
        await self.desk.control.until(lambda: standing(self.desk, *kinds, subject=self.name))

    async def line(self) -> DaemonLine | None:
        """The daemon on the panel."""
        panel = await gather(self.desk.bus, self.desk.registry)
        self.reasons = panel.reasons
        return next((line for line in panel.daemons if line.name == self.name), None)

    async def seen(self, *states: State) -> DaemonLine:
        """The daemon on the panel, once it is in a state."""
        async with asyncio.timeout(LIMIT_S):
            while (line := await self.line()) is None or line.state not in states:
                await asyncio.sleep(0.1)
        return line

    async def replaced(self, pid: int, status: int) -> str:
        """Wait for the end of a process and for the next in its seat: the new boot id."""
        exited = await self.told(Exited, lambda d: d.pid == pid)
        assert exited.data.status == status
        back = await self.told(Started, lambda d: d.daemon == self.name.partition("-")[0] and d.pid != pid)
        assert back.data.boot_id != exited.data.boot_id
        alive = await self.seen(State.ALIVE)
        assert alive.boot_id == back.data.boot_id
        return alive.boot_id

    async def killed_by_launcher(self, pid: int) -> None:
        """Wait for the launcher's kill, what it saw before, and what became of it."""
        asked = await self.told(ops.Requested, lambda d: (d.action, d.target) == ("kill", self.name))
        assert asked.data.who == "launcher"
        done = await self.desk.control.subject(
            lambda r: isinstance(r.data, ops.Finished) and r.subject.split(".")[2] == asked.subject.split(".")[2]
        )
        assert done.data.ok, bytes(done.data.evidence)
        await self.replaced(pid, -signal.SIGKILL)

    async def beat(self, pid: int, condition: Callable[[Heartbeat], bool], limit_s: float = LIMIT_S) -> bool:
        """Whether a heartbeat of the process comes to fulfil a condition in time."""
        try:
            async with asyncio.timeout(limit_s):
                while not any(b.pid == pid and condition(b) for b in await self.desk.bus.liveness.all()):
                    await asyncio.sleep(0.1)
        except TimeoutError:
            return False
        return True

    @asynccontextmanager
    async def deaf(self, pid: int) -> AsyncIterator[None]:
        """The process beats on, and its event loop stands still."""
        with ExitStack() as stack:
            for _ in range(_TRIES):
                stack.enter_context(deafened(pid))
                if await self.beat(pid, lambda b: b.stuck_s > 0, 5):
                    break
                # It was stopped with the interpreter in its hand, which stops the beats as well: that is another fault.
                stack.close()
            else:
                raise AssertionError(f"pid {pid} beats no more whenever its main thread stands")
            yield


@asynccontextmanager
async def case(fleet: Fleet, name: str) -> AsyncIterator[Case]:
    """A fleet that has been looked at once."""
    fleet.write(FLEET, HANDLERS)
    await fleet.up()
    async with fleet.bus() as desk:
        made = Case(fleet, desk, name)
        await made.told(Finished, lambda d: d.trigger is Trigger.START)
        await made.seen(State.ALIVE)
        yield made


async def slow(one: Case, pid: int) -> None:
    """Slowed down: it is told, nobody kills it, and it is over by itself."""
    await clear(one.desk, Kind.DAEMON_LATE, subject=one.name)
    one.begin()
    os.kill(pid, signal.SIGSTOP)
    await asyncio.sleep(3.5)
    os.kill(pid, signal.SIGCONT)
    late = await one.found(Kind.DAEMON_LATE)
    assert f"{one.name} is slow: its event loop was late by " in late.data.title
    assert late.data.value >= 3
    await closed(one.desk, late)
    assert (await one.seen(State.ALIVE)).pid == pid


@pytest.mark.parametrize("name", ["agent_runner-1", "projector", "slack_mirror", "warden"])
async def test_daemon_is_slowed_deafened_stopped_and_killed(fleet: Fleet, name: str) -> None:
    """Slow it is told and left alone, deaf and stopped it is told and killed, dead it is restarted; once too often it waits for a person with the command."""
    async with case(fleet, name) as one:
        await slow(one, await fleet.pid(name))

        # Deaf: it beats, its loop stands; the panel says so, a sweep or the ring finds it, the launcher kills it.
        one.begin()
        pid = await fleet.pid(name)
        async with one.deaf(pid):
            deaf = await one.seen(State.DEAF)
            assert deaf.stuck_s > 1
            assert deaf.beat_age_s is not None
            assert f"{name} is deaf" in one.reasons
            if name != "warden":  # which is the one that writes findings
                told = await one.found(Kind.DAEMON_DEAF)
                assert "its event loop has stood still for" in told.data.title
            await one.killed_by_launcher(pid)

        # Stopped: no beat comes any more.
        one.begin()
        pid = await fleet.pid(name, other_than=pid)
        os.kill(pid, signal.SIGSTOP)
        await one.seen(State.LATE, State.DOWN)  # late for five seconds, then its last beat is gone
        await one.killed_by_launcher(pid)

        # Killed: back at once, and told.
        one.begin()
        pid = await fleet.kill(name)
        await one.stands(Kind.DAEMON_DOWN, Kind.DAEMON_ENDED)
        await one.replaced(pid, -signal.SIGKILL)

        # Killed once too often: down, and a person is handed the command.
        one.begin()
        pid = await fleet.kill(name)
        opened = await one.told(cards.Opened)
        assert (opened.data.instance, opened.data.pid, opened.data.reason) == (name, pid, "gave_up")
        assert opened.data.command == f"{SYSTEMS} start {name} --home {fleet.home.path}"
        await one.seen(State.DOWN)
        shown = await fleet.systems("status")
        assert shown.status == 2
        assert f"\n  {opened.data.command}\n" in shown.out
        pasted = await fleet.run("sh", "-c", opened.data.command)
        assert pasted.status == 0, pasted.err
        closed = await one.told(cards.Closed)
        assert (closed.data.reason, closed.data.boot_id) == ("back", (await one.seen(State.ALIVE)).boot_id)
        # All of it works again: a request goes through the warden to the runner and into the tables.
        asked = await fleet.systems("invoke", "shop/coder", "--input", "7", "--wait", "--output", "json")
        assert asked.status == 0, asked.err
        counted = "SELECT count(*) AS done FROM invocations WHERE state = 'completed'"
        async with asyncio.timeout(LIMIT_S):
            while '"done":1' not in (await fleet.systems("sql", counted, "--output", "json")).out.replace(" ", ""):
                await asyncio.sleep(0.2)


async def test_launcher_is_slowed_deafened_stopped_and_killed(fleet: Fleet) -> None:
    """Slow it is told; deaf and stopped the ring finds it and hands a card that starts another; killed it takes all with it, and `systems up` brings all back."""
    async with case(fleet, "launcher") as one:
        assert fleet.launcher is not None
        pid = fleet.launcher.pid
        await slow(one, pid)

        one.begin()
        async with one.deaf(pid):
            deaf = await one.seen(State.DEAF)
            assert deaf.stuck_s > 1
            opened = await one.told(cards.Opened)
            assert (opened.data.pid, opened.data.reason) == (pid, "silent")
            assert "its event loop has stood still for" in opened.data.why
        heard = await one.told(cards.Closed)
        assert (heard.data.reason, heard.data.boot_id) == ("heard", deaf.boot_id)
        assert (await one.seen(State.ALIVE)).pid == pid

        one.begin()
        os.kill(pid, signal.SIGSTOP)
        opened = await one.told(cards.Opened)
        up = f"{SYSTEMS} up --detach --fleet {fleet.file} --home {fleet.home.path}"
        assert opened.data.command == f"kill -9 {pid}; {up}"
        await one.found(Kind.DAEMON_SILENT)
        pasted = await fleet.run("sh", "-c", opened.data.command, limit_s=60)
        assert pasted.status == 0, pasted.err
        fleet.launcher.wait()
    async with fleet.bus() as desk:
        one = Case(fleet, desk, "launcher")
        back = await one.seen(State.ALIVE)
        closed = await one.told(cards.Closed, lambda d: d.reason == "back")
        assert closed.data.boot_id == back.boot_id != deaf.boot_id
        os.kill(back.pid, signal.SIGKILL)
    await fleet.gone()
    lost = await fleet.systems("status")
    assert lost.status == 69
    assert (await fleet.systems("up", "--detach", "--fleet", str(fleet.file), limit_s=60)).status == 0
    asked = await fleet.systems("invoke", "shop/coder", "--input", "7", "--wait")
    assert asked.status == 0, asked.err
    assert (await fleet.systems("down", limit_s=60)).status == 0
