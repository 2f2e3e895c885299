"""The skeleton of daemons: teardown in order, heartbeats that survive an absent server, a farewell."""

from __future__ import annotations

import asyncio
from typing import Any

from bus.events import daemon as ev
from services import alive
from services.daemon import Teardown, control_id
from tests.services.rig import Rig


async def echo(input: Any) -> Any:
    """A handler that gives back what it gets."""
    return input


async def test_teardown_runs_every_step_last_first() -> None:
    """A step that fails, or takes too long, does not stop those below it, and is remembered."""
    ran: list[str] = []

    async def step(name: str) -> None:
        ran.append(name)
        if name == "b":
            raise ValueError(name)
        if name == "c":
            await asyncio.Event().wait()

    teardown = Teardown()
    for name in "abcd":
        teardown.push(name, lambda name=name: step(name), 0.1)  # type: ignore[misc]  # bound in its round
    await teardown.run()
    assert ran == ["d", "c", "b", "a"]
    assert teardown.failed
    ran.clear()
    await teardown.run()
    assert ran == []


def test_control_id_is_one_token() -> None:
    """Whatever a host is called, its seat is one token of a subject."""
    assert control_id("agent_runner-1", "my.host.example") == "agent_runner-1_my-host-example"
    assert len(control_id("x" * 100, "y" * 100)) == 128


async def test_daemon_says_that_it_began_and_ended(rig: Rig) -> None:
    """A daemon beats while it lives; at its end its heartbeat is taken back and its farewell written."""
    await rig.role("shop/coder", echo)
    running, _ = await rig.runner()
    assert [beat.boot_id for beat in await rig.bus.liveness.all()] == [running.boot_id]
    started = await rig.control.subject(lambda r: isinstance(r.data, ev.Started))
    assert started.data.boot_id == running.boot_id
    # Asked whether it lives it answers, over the loop that does its work; nobody does for a boot id that is not there.
    assert await alive.ask(rig.connection, running.boot_id, timeout=5)
    assert not await alive.ask(rig.connection, "another", timeout=5)
    await rig.end(running)
    assert not await alive.ask(rig.connection, running.boot_id, timeout=5)
    assert await rig.bus.liveness.all() == []
    stopped = await rig.control.subject(lambda r: isinstance(r.data, ev.Stopped))
    assert stopped.subject.split(".")[2] == started.subject.split(".")[2] == control_id(running.instance, running.host)
