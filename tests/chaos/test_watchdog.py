"""Daemons of a real fleet that hang, block, and wait for a person: what the watchdog sees, does, and leaves alone."""

from __future__ import annotations

import asyncio
import os
import re
import signal

import pytest

from bus.events import card as cards
from bus.events import finding, ops
from bus.events.daemon import Exited, Started
from bus.events.finding import Kind
from bus.store import Recorded
from tests.chaos.fleet import SYSTEMS, Desk, Fleet
from tests.chaos.story import LIMIT_S

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

FLEET = """
[monitor]
every = "1h"
look = "500ms"

[daemons]
watchdog = { silent = "10s", busy = "12s" }
MORE

[projects.shop.roles]
coder = { handler = { kind = "function", target = "handlers:work" }, max_crashes = 1 }
"""
HANDLERS = """
import time

async def work(input, ctx):
    if input == "block":
        time.sleep(600)  # what many a synchronous client of a model does
    return input
"""


def write(fleet: Fleet, more: str = "") -> None:
    """The fleet file."""
    fleet.write(FLEET.replace("MORE", more), HANDLERS)


def kills(desk: Desk, name: str) -> list[Recorded]:
    """The requests of the launcher to kill a daemon."""
    return [
        r
        for r in desk.control.records
        if isinstance(r.data, ops.Requested) and (r.data.action, r.data.target) == ("kill", name)
    ]


async def started(desk: Desk, name: str, after: int) -> Recorded:
    """The start of a daemon after a sequence of CONTROL."""
    return await desk.control.subject(
        lambda r: r.seq > after and isinstance(r.data, Started) and r.subject.split(".")[2].startswith(f"{name}_")
    )


async def at_work(desk: Desk, pid: int) -> None:
    """Wait until a process has heard from the bus: a fault in the midst of its start is another one."""
    async with asyncio.timeout(LIMIT_S):
        while not any(b.pid == pid and b.last_empty_at is not None for b in await desk.bus.liveness.all()):
            await asyncio.sleep(0.1)


@pytest.mark.soak
async def test_runner_whose_loop_a_handler_blocks_is_named_and_killed(fleet: Fleet) -> None:
    """A blocking handler leaves the runner beating and deaf, the finding names invocation and line; then the launcher kills it, and others' work goes on."""
    write(fleet)
    await fleet.up()
    async with fleet.bus() as desk:
        pid = await fleet.pid("agent_runner-1")
        await at_work(desk, pid)
        blocked = await desk.ask("shop/coder", "block")
        waiting = await desk.ask("shop/coder", 1)
        async with asyncio.timeout(LIMIT_S):
            while not (stuck := [b for b in await desk.bus.liveness.all() if b.pid == pid and b.stuck_s > 1]):
                await asyncio.sleep(0.1)
        (beat,) = stuck
        assert beat.in_flight >= 1
        # Another daemon, and this one before, may have been slow for a moment.
        await desk.control.subject(
            lambda r: (
                isinstance(r.data, finding.Opened)
                and r.data.kind in {Kind.DAEMON_LATE, Kind.DAEMON_DEAF}
                and r.data.subject.startswith("agent_runner-1@")
                and f"shop/coder {blocked.id}: handlers.py:6 in work" in r.data.title
            )
        )
        asked = await desk.control.subject(lambda r: r in kills(desk, "agent_runner-1"))
        assert asked.data.who == "launcher"
        # It beat all the while: what is old is its last turn.
        ages = re.search(r"last beat (\d+) s ago, last turn of its loop (\d+) s ago", asked.data.why)
        assert ages is not None, asked.data.why
        assert int(ages[1]) < 10 <= int(ages[2]), asked.data.why
        assert f"it stands in shop/coder {blocked.id}: handlers.py:6 in work" in asked.data.why
        exited = await desk.control.subject(lambda r: isinstance(r.data, Exited) and r.seq > asked.seq)
        assert (exited.data.pid, exited.data.status) == (pid, -signal.SIGKILL)
        again = await started(desk, "agent_runner-1", asked.seq)
        assert again.data.boot_id != beat.boot_id
        # What blocked has had its one crash; what waited behind it is done by the next process.
        # It was handed out to the dead process, perhaps unclaimed: then the warden has to find it stranded first.
        await desk.all_ended([waiting.id], limit_s=90)
        await desk.story.event(blocked.id, "dead_lettered")
        assert not await desk.bus.cards.waiting()


@pytest.mark.soak
async def test_daemon_that_only_a_person_restarts_waits_for_one(fleet: Fleet) -> None:
    """With restart = "human" a dead runner stays down and a hung one is left alone; each has a card with the command, which closes itself."""
    write(fleet, 'agent_runner = { restart = "human" }')
    await fleet.up()
    async with fleet.bus() as desk:
        pid = await fleet.kill("agent_runner-1")
        opened = await desk.control.subject(lambda r: isinstance(r.data, cards.Opened))
        assert (opened.data.instance, opened.data.pid, opened.data.reason) == ("agent_runner-1", pid, "human")
        assert opened.data.command == f"{SYSTEMS} start agent_runner-1 --home {fleet.home.path}"
        await desk.control.subject(lambda r: isinstance(r.data, finding.Opened) and r.data.kind is Kind.PERSON_NEEDED)
        shown = await fleet.systems("status")
        assert shown.status == 2
        assert f"\n  {opened.data.command}\n" in shown.out
        assert f"agent_runner-1 on {opened.data.host} (pid {pid}): it ended (signal 9)" in shown.out
        listed = await fleet.systems("cards")
        assert listed.status == 1
        assert f"  {opened.data.command}\n" in listed.out
        done = await fleet.run("sh", "-c", opened.data.command)
        assert done.status == 0, done.err
        back = await started(desk, "agent_runner-1", opened.seq)
        closed = await desk.control.subject(lambda r: isinstance(r.data, cards.Closed))
        assert (closed.data.reason, closed.data.boot_id) == ("back", back.data.boot_id)
        # Hung: seen, told, and not touched.
        pid = await fleet.pid("agent_runner-1")
        await at_work(desk, pid)
        os.kill(pid, signal.SIGSTOP)
        hung = await desk.control.subject(lambda r: isinstance(r.data, cards.Opened) and r.seq > closed.seq)
        assert (hung.data.pid, hung.data.reason, hung.data.boot_id) == (pid, "hung", back.data.boot_id)
        assert kills(desk, "agent_runner-1") == []
        os.kill(pid, signal.SIGCONT)
        heard = await desk.control.subject(lambda r: isinstance(r.data, cards.Closed) and r.seq > hung.seq)
        assert heard.data.reason == "heard"
        assert (await fleet.systems("cards")).out == "nothing waits for a person\n"
        assert await fleet.pid("agent_runner-1") == pid


@pytest.mark.soak
async def test_server_that_hangs_is_replaced(fleet: Fleet) -> None:
    """A server that is stopped greets nobody: the launcher ends it, starts another, kills no daemon for its silence, and nothing accepted is lost."""
    write(fleet)
    await fleet.up()
    async with fleet.bus() as desk:
        ids = await desk.ask_many("shop/coder", 20)
        pids = {name: child.pid for name, child in (await fleet.children()).items()}
        os.kill(pids["nats-server"], signal.SIGSTOP)
        assert await fleet.pid("nats-server", other_than=pids["nats-server"])
        await desk.all_ended(ids)
        async with asyncio.timeout(LIMIT_S):
            while desk.bus.gate.closed:  # nobody could read the flags meanwhile
                await desk.bus.gate.changed(1.0)
        after = await desk.ask("shop/coder", 1)
        await desk.story.event(after.id, "completed")
        assert {name: child.pid for name, child in (await fleet.children()).items() if name != "nats-server"} == {
            name: pid for name, pid in pids.items() if name != "nats-server"
        }
        exited = await desk.control.subject(lambda r: isinstance(r.data, Exited))
        assert (exited.data.pid, exited.data.status) == (pids["nats-server"], -signal.SIGKILL)
