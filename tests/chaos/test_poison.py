"""Work that kills its runner ends in exactly one dead letter, whole, and without a runner to bury it."""

from __future__ import annotations

import pytest

from bus.events import invocation as ev
from services.launcher.supervisor import State
from tests.chaos.fleet import Fleet

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

FLEET = """
[daemons]
agent_runner = { instances = 1 }
restart = { exits = 2, period = "5m" }

[projects.shop.roles.bomb]
handler = { kind = "function", target = "handlers:bomb" }
max_crashes = 3

[projects.shop.roles.once]
handler = { kind = "function", target = "handlers:bomb" }
idempotent = false

[projects.shop.roles.coder]
handler = { kind = "function", target = "handlers:echo" }
"""
HANDLERS = """
import os, signal

async def bomb(input):
    os.kill(os.getpid(), signal.SIGKILL)

async def echo(input):
    return input
"""


async def test_poison_is_buried_with_no_runner_alive(fleet: Fleet) -> None:
    """The third runner that it kills is the last one: the launcher gives up, and the warden buries the work all the same."""
    fleet.write(FLEET, HANDLERS)
    await fleet.up()
    async with fleet.bus() as desk:
        bomb = await desk.ask("shop/bomb", {"secret": "recipe"})
        dead = await desk.story.event(bomb.id, "dead_lettered")
        assert (dead.data.reason, dead.data.crashes, dead.data.attempts) == (ev.DeathReason.CRASHES_SPENT, 3, 0)
        assert desk.story.events[bomb.id] == ["requested", *["claimed", "swept"] * 3, "dead_lettered"]
        copy = (await desk.dead.subject(lambda r: r.subject.endswith(bomb.id))).data
        assert [(a.number, a.outcome) for a in copy.attempts] == [(n, "swept") for n in (1, 2, 3)]
        assert len({a.holder for a in copy.attempts}) == 3
        assert bytes(copy.request.input) == b'{"secret":"recipe"}'
        assert (copy.reason, copy.died_seq) == (ev.DeathReason.CRASHES_SPENT, dead.seq)
        waiting = await desk.ask("shop/coder", "patience")
        await desk.control.subject(lambda r: r.subject.endswith(".gave_up"))
        assert (await fleet.children())["agent_runner-1"].state is State.GAVE_UP
        shown = await fleet.systems("status", "--output", "json")
        assert (shown.status, shown.json()["verdict"], shown.json()["dead_letters"]) == (2, "ultra", 1)
        runner = next(d for d in shown.json()["daemons"] if d["name"] == "agent_runner-1")
        assert runner["state"] == "down"
        assert "start agent_runner-1" in runner["note"]
        started = await fleet.systems("start", "agent_runner-1")
        assert started.status == 0, started.err
        await desk.story.event(waiting.id, "completed")
        assert desk.story.events[bomb.id].count("dead_lettered") == 1
        assert len([r for r in desk.dead.records if r.subject.endswith(bomb.id)]) == 1


async def test_poison_that_must_not_run_twice_goes_to_a_person(fleet: Fleet) -> None:
    """An orphan of a role with idempotent = false is a dead letter after its first crash; other work goes on."""
    fleet.write(FLEET, HANDLERS)
    await fleet.up()
    async with fleet.bus() as desk:
        once = await desk.ask("shop/once")
        dead = await desk.story.event(once.id, "dead_lettered")
        assert (dead.data.reason, dead.data.crashes) == (ev.DeathReason.NOT_IDEMPOTENT, 1)
        assert desk.story.events[once.id] == ["requested", "claimed", "swept", "dead_lettered"]
        other = await desk.ask("shop/coder", 1)
        await desk.story.event(other.id, "completed")
        await desk.dead.subject(lambda r: r.subject.endswith(once.id))
