"""Releases are rolled out over a whole fleet of processes, from real wheels, and come back by themselves when they do not hold."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from bus.events import card
from services.daemon import Bus
from services.ops.operation import Status
from services.ops.performing import operations
from services.release.release import ALL, Releases, Standing
from tests.chaos.fleet import SYSTEMS, Desk, Fleet
from tests.chaos.wheels import AT_ONCE, LATER, wheel

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

T = TypeVar("T")

WARDEN, RUNNER = "services/app/warden.py", "services/app/agent_runner.py"
FLEET = """
[projector]
enabled = false

[deploy]
watch = "500ms"

[projects.shop.roles]
coder = { handler = { kind = "function", target = "handlers:echo" } }
inside = { handler = { kind = "function", target = "handlers:inside" }, timeout = "4m", max_attempts = 1 }
"""
HANDLERS = f"""
import subprocess

async def echo(input):
    return input

def inside(input):
    command = ["{SYSTEMS}", "deploy", input, "--reason", "I can do better", "--output", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    return {{"status": done.returncode, "out": done.stdout, "err": done.stderr}}
"""


@pytest.fixture
async def deployed(fleet: Fleet) -> Fleet:
    """A fleet that is up, in its own installation."""
    fleet.write(FLEET, HANDLERS)
    await fleet.up()
    return fleet


#: Seconds for a command that rolls something out, on a machine that has other things to do.
DEPLOY_S = 150.0


async def versions(bus: Bus) -> dict[str, str]:
    """What each daemon says that it runs."""
    return {beat.instance: beat.version for beat in await bus.liveness.all()}


def _last(desk: Desk, event: type[T]) -> T | None:
    """The last event of a kind in the record, if there is one."""
    return next((r.data for r in reversed(desk.control.records) if isinstance(r.data, event)), None)


async def works(desk: Desk) -> None:
    """The fleet does its own work."""
    accepted = await desk.ask("shop/coder", [1])
    assert bytes((await desk.story.event(accepted.id, "completed")).data.output) == b"[1]"


@pytest.mark.soak
async def test_release_is_rolled_out_and_a_bad_one_comes_back(deployed: Fleet, tmp_path: Path) -> None:
    """A good wheel ends up in every daemon; a bad one is taken back to it, is marked, and is refused from then on."""
    good = await asyncio.to_thread(wheel, tmp_path, "9.1.0")
    bad = await asyncio.to_thread(wheel, tmp_path, "9.2.0", {WARDEN: AT_ONCE})
    rolled = {"launcher": "0.1.0", "warden": "9.1.0", "agent_runner-1": "9.1.0"}
    async with deployed.bus() as desk:
        done = await deployed.systems("deploy", str(good), "--reason", "better", "--output", "json", limit_s=DEPLOY_S)
        assert done.status == 0, done.err
        evidence = done.json()
        assert [step["daemon"] for step in evidence["steps"]] == ["warden", "agent_runner-1"]
        assert all(step["after"]["version"] == "9.1.0" and step["canary"]["invocation"] for step in evidence["steps"])
        (left,) = evidence["left"]
        assert left["who"] == "launcher"
        assert left["command"].startswith(
            f"{deployed.home.releases}/{evidence['release']}/venv/bin/systems down --home "
        )
        assert await versions(desk.bus) == rolled
        failed = await deployed.systems("deploy", str(bad), "--reason", "worse", limit_s=DEPLOY_S)
        assert failed.status == 2
        assert "RuntimeError: a bad day; taken back: warden; " in failed.err
        assert await versions(desk.bus) == rolled
        releases = Releases(deployed.home)
        assert releases.current() == {ALL: evidence["release"]}
        assert [one.standing for one in releases.all()] == [Standing.GOOD, Standing.BAD]
        refused = await deployed.systems("deploy", "9.2.0", "--reason", "once more")
        assert refused.status == 1
        assert "RuntimeError: a bad day" in refused.err
        assert refused.err.rstrip().endswith("--again")
        await works(desk)
        bad_one = releases.get("9.2.0").name
        assert [(one.action, one.target, one.status.value) for one in (await operations(desk.bus)).values()] == [
            ("deploy", evidence["release"], "done"),
            ("roll-out", "warden", "done"),
            ("roll-out", "agent_runner-1", "done"),
            ("deploy", bad_one, "failed"),
            ("roll-out", "warden", "failed"),
            ("roll-back", "warden", "done"),
            ("deploy", bad_one, "refused"),
        ]


@pytest.mark.soak
async def test_release_that_dies_later_comes_back(deployed: Fleet, tmp_path: Path) -> None:
    """A wheel whose runner starts, works, and dies while it is watched is taken back from every daemon that had it."""
    bad = await asyncio.to_thread(wheel, tmp_path, "9.3.0", {RUNNER: LATER.format(seconds=15)})
    failed = await deployed.systems("deploy", str(bad), "--reason", "worse", "--watch", "20s", limit_s=DEPLOY_S)
    assert failed.status == 2
    assert "ended by itself: exit 3" in failed.err
    async with deployed.bus() as desk:
        done = list((await operations(desk.bus)).values())
        assert [(one.action, one.target, one.status.value) for one in done[1:]] == [
            ("roll-out", "warden", "done"),
            ("roll-out", "agent_runner-1", "failed"),
            ("roll-back", "agent_runner-1", "done"),
            ("roll-back", "warden", "done"),
        ]
        step = done[2]
        assert step.evidence is not None
        assert msgspec.json.decode(step.evidence)["canary"]["invocation"]
        assert set((await versions(desk.bus)).values()) == {"0.1.0"}
        await works(desk)
    assert Releases(deployed.home).get("9.3.0").standing is Standing.BAD
    assert Releases(deployed.home).current() == {}


@pytest.mark.soak
async def test_wheel_that_cannot_be_imported_touches_nothing(deployed: Fleet, tmp_path: Path) -> None:
    """A wheel that raises at its first import is refused before any daemon is stopped, and leaves nothing on the disk."""
    bad = await asyncio.to_thread(wheel, tmp_path, "9.4.0", {"services/__init__.py": AT_ONCE})
    pids = {name: child.pid for name, child in (await deployed.children()).items()}
    failed = await deployed.systems("deploy", str(bad), "--reason", "worse", limit_s=DEPLOY_S)
    assert failed.status == 2
    assert "RuntimeError: a bad day; nothing was started from it" in failed.err
    assert {name: child.pid for name, child in (await deployed.children()).items()} == pids
    assert Releases(deployed.home).all() == []


@pytest.mark.soak
async def test_two_at_once(deployed: Fleet, tmp_path: Path) -> None:
    """Of two roll-outs at the same time one is refused, and says which the other is; the other is done."""
    one, two = [await asyncio.to_thread(wheel, tmp_path, version) for version in ("9.1.0", "9.5.0")]
    both = await asyncio.gather(
        *(deployed.systems("deploy", str(file), "--reason", "mine first", limit_s=DEPLOY_S) for file in (one, two))
    )
    assert sorted(done.status for done in both) == [0, 1]
    (refused,) = [done for done in both if done.status == 1]
    assert "expected nobody else at work on the releases of" in refused.err
    async with deployed.bus() as desk:
        found = await versions(desk.bus)
    assert found["warden"] == found["agent_runner-1"] in ("9.1.0", "9.5.0")


@pytest.mark.soak
async def test_from_inside_a_runner_a_person_does_the_last_step(deployed: Fleet, tmp_path: Path) -> None:
    """A handler that rolls a release out reaches all but its own runner, whose step is a command that a person runs."""
    good = await asyncio.to_thread(wheel, tmp_path, "9.1.0")
    async with deployed.bus() as desk:
        accepted = await desk.ask("shop/inside", str(good))
        done = await desk.story.event(accepted.id, "completed", limit_s=DEPLOY_S)
        told: Any = msgspec.json.decode(done.data.output)
        assert told["status"] == 0, told["err"]
        left = {one["who"]: one["command"] for one in msgspec.json.decode(told["out"])["left"]}
        assert set(left) == {"agent_runner-1", "launcher"}
        refused = [one.command for one in (await operations(desk.bus)).values() if one.status is Status.REFUSED]
        assert refused == [left["agent_runner-1"]]
        opened = await desk.control.until(lambda: _last(desk, card.Opened))
        assert (opened.instance, opened.reason, opened.command) == ("agent_runner-1", card.Reason.INSIDE, refused[0])
        assert await versions(desk.bus) == {"launcher": "0.1.0", "warden": "9.1.0", "agent_runner-1": "0.1.0"}
        panel = await deployed.systems("status")
        assert "daemons run different releases: agent_runner-1 0.1.0; warden 9.1.0-" in " ".join(panel.out.split())
        finished = await deployed.run("sh", "-c", left["agent_runner-1"], limit_s=DEPLOY_S)
        assert finished.status == 0, finished.err
        assert await versions(desk.bus) == {"launcher": "0.1.0", "warden": "9.1.0", "agent_runner-1": "9.1.0"}
        assert (await desk.control.until(lambda: _last(desk, card.Closed))).reason is card.End.BACK
        assert Releases(deployed.home).get("9.1.0").standing is Standing.GOOD
    relaunched = await deployed.run("sh", "-c", left["launcher"], limit_s=DEPLOY_S)
    assert relaunched.status == 0, relaunched.err
    async with deployed.bus() as desk:
        assert set((await versions(desk.bus)).values()) == {"9.1.0"}
        await works(desk)
    assert (await deployed.systems("down", limit_s=DEPLOY_S)).status == 0


@pytest.mark.soak
async def test_launcher_takes_back_what_its_doer_left(deployed: Fleet, tmp_path: Path) -> None:
    """When whoever rolls out is killed, a daemon that does not hold is started again from what it was before."""
    bad = await asyncio.to_thread(wheel, tmp_path, "9.6.0", {WARDEN: LATER.format(seconds=3)})
    arguments = ("deploy", str(bad), "--reason", "worse", "--watch", "1m")
    before = await deployed.pid("warden")
    process = await asyncio.create_subprocess_exec(SYSTEMS, *arguments, env=deployed.environ, cwd=deployed.folder)
    async with asyncio.timeout(DEPLOY_S):
        while (await deployed.children())["warden"].pid in (0, before):
            await asyncio.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    releases = Releases(deployed.home)
    async with deployed.bus() as desk:
        async with asyncio.timeout(DEPLOY_S):
            while releases.current().get("warden") != "installed":
                await asyncio.sleep(0.1)
            while (await versions(desk.bus)).get("warden") != "0.1.0":
                await asyncio.sleep(0.1)
        await works(desk)
