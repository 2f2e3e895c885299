"""Daemons are restarted, and settings changed, on a whole fleet of processes: by evidence, recorded, and over every restart."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import msgspec
import pytest

from bus.events import ops as ev
from bus.store import Recorded
from tests.chaos.fleet import SYSTEMS, Desk, Fleet
from tests.chaos.story import LIMIT_S

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

FLEET = """
[reload]
watch = true

[prompts.tone]
file = "tone.txt"

[projects.shop.roles]
coder = { handler = { kind = "function", target = "handlers:echo" }, prompt = "tone" }
slow = { handler = { kind = "function", target = "handlers:slow" }, grace = 20 }
inside = { handler = { kind = "function", target = "handlers:inside" }, max_attempts = 1 }
outside = { handler = { kind = "exec", command = ["python3", "outside.py"] }, max_attempts = 1 }
"""
ASK = """
import subprocess

def asked():
    command = ["SYSTEMS", "restart", "agent_runner-1", "--reason", "I feel slow"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return {"status": done.returncode, "err": done.stderr}
"""
HANDLERS = """
import asyncio
from ask import asked

async def echo(input, ctx):
    return [input, ctx.prompt]

async def slow(input, ctx):
    ctx.progress("begun")
    await asyncio.sleep(1.5)
    return input

def inside(input):
    return asked()
"""
OUTSIDE = """
import json
from ask import asked

print(json.dumps({"result": asked()}))
"""


def write(fleet: Fleet) -> None:
    """The fleet file with what stands beside it."""
    fleet.write(FLEET, HANDLERS)
    (fleet.folder / "tone.txt").write_text("be brief")
    (fleet.folder / "ask.py").write_text(ASK.replace("SYSTEMS", SYSTEMS))
    (fleet.folder / "outside.py").write_text(OUTSIDE)


async def output(desk: Desk, id_: str) -> object:
    """What an invocation gave back."""
    return msgspec.json.decode((await desk.story.event(id_, "completed")).data.output)


def actions(desk: Desk) -> list[Recorded]:
    """The events of actions so far."""
    return [r for r in desk.control.records if r.subject.startswith("ctl.ops.")]


@pytest.mark.soak
async def test_daemons_are_restarted_by_evidence_and_never_by_themselves(fleet: Fleet) -> None:
    """A restart drains and ends with evidence, a pause outlives it, and a handler is only told what a person would run."""
    write(fleet)
    await fleet.up()
    async with fleet.bus() as desk:
        pid = await fleet.pid("agent_runner-1")
        running = await desk.ask("shop/slow", 1)
        await desk.story.event(running.id, "claimed")
        done = await fleet.systems("restart", "agent_runner-1", "--reason", "a test", "--output", "json", limit_s=90)
        assert done.status == 0, done.err
        told = done.json()
        assert told["before"]["pid"] == pid
        assert told["after"]["pid"] == await fleet.pid("agent_runner-1") != pid
        assert told["after"]["boot_id"] != told["before"]["boot_id"]
        assert told["after"]["last_empty_at"] or told["after"]["last_message_at"]
        # It was drained: what ran was finished by the process that began it.
        await desk.story.event(running.id, "completed")
        assert desk.story.events[running.id] == ["requested", "claimed", "completed"]
        await desk.control.until(lambda: len(actions(desk)) >= 3)
        names = [type(r.data).__name__ for r in actions(desk)]
        assert names == ["Requested", "Started", "Finished"]
        assert (actions(desk)[0].data.who, actions(desk)[0].data.why) == ("tester", "a test")

        for role in ("shop/inside", "shop/outside"):
            refused = await output(desk, (await desk.ask(role)).id)
            assert isinstance(refused, dict)
            assert refused["status"] == 1, refused
            command = f"{SYSTEMS} restart agent_runner-1 --reason 'I feel slow' --home {fleet.home.path}"
            assert f"run: {command}\n" in refused["err"]
        assert await fleet.pid("agent_runner-1") == told["after"]["pid"]
        # Asked from inside, it is a person's to do: the card has the command, and the boot id that it replaces.
        (card,) = await desk.bus.cards.waiting()
        assert (card.reason, card.command, card.boot_id) == ("inside", command, told["after"]["boot_id"])

        paused = await fleet.systems("pause", "shop/coder", "--reason", "to be looked at")
        assert paused.status == 0, paused.err
        late = await fleet.systems("restart", "warden", "--reason", "x", "--within", "10ms")
        assert (late.status, "expected warden to be alive by evidence" in late.err) == (2, True), late.err
        again = await fleet.systems("restart", "warden", "--reason", "x", limit_s=90)
        assert again.status == 0, again.err
        waiting = await desk.ask("shop/coder", 2)
        shown = (await fleet.systems("status", "--output", "json")).json()
        (trip,) = shown["trips"]
        assert trip["scope"] == "shop/coder"
        assert "to be looked at (tester)" in trip["sentence"]
        assert desk.story.events[waiting.id] == ["requested"]
        assert (await fleet.systems("resume", "shop/coder", "--reason", "done")).status == 0
        assert await output(desk, waiting.id) == [2, "be brief"]
        failed = [r.data for r in actions(desk) if isinstance(r.data, ev.Finished) and not r.data.ok]
        assert len(failed) == 1
        unknown = await fleet.systems("restart", "wardn", "--reason", "x")
        assert (unknown.status, "did you mean 'warden'?" in unknown.err) == (64, True)
        itself = await fleet.systems("restart", "launcher", "--reason", "x")
        assert (itself.status, f"{SYSTEMS} up --detach" in itself.err) == (1, True)


async def test_server_is_restarted_under_work(fleet: Fleet) -> None:
    """A restart of the server itself loses nothing that runs."""
    write(fleet)
    await fleet.up()
    async with fleet.bus() as desk:
        pid = await fleet.pid("nats-server")
        ids = await desk.ask_many("shop/coder", 50)
        done = await fleet.systems("restart", "nats-server", "--reason", "a test", limit_s=90)
        assert done.status == 0, done.err
        assert await fleet.pid("nats-server") != pid
        await desk.all_ended(ids)


@pytest.mark.soak
async def test_settings_outlive_the_fleet_and_the_file_is_watched(fleet: Fleet) -> None:
    """What was set by command holds after a new start; a watched file is taken when it is good, and only then."""
    write(fleet)
    await fleet.up()
    async with fleet.bus() as desk:
        (fleet.folder / "tone.txt").write_text("be kind")
        await desk.control.subject(lambda r: r.subject == "ctl.registry.prompts_tone.changed" and r.data.replaced > 0)
        assert await output(desk, (await desk.ask("shop/coder", 1)).id) == [1, "be kind"]
        fleet.file.write_text(FLEET.replace("coder = ", "coder == "))
        refused = await desk.control.subject(lambda r: r.subject == "ctl.registry.settings_file.refused")
        assert f"{fleet.file}:9: expected TOML" in refused.data.sentence
        (fleet.folder / "tone.txt").write_text("x" * 5_000_000)
        fleet.file.write_text(FLEET)
        large = await desk.control.subject(
            lambda r: r.subject == "ctl.registry.settings_file.refused" and "5,000,000" in r.data.sentence
        )
        assert "expected a prompt of at most 524,288 bytes, got: 5,000,000" in large.data.sentence
        shown = (await fleet.systems("status", "--output", "json")).json()
        assert any("the fleet file cannot be used" in reason for reason in shown["reasons"])
        assert await output(desk, (await desk.ask("shop/coder", 2)).id) == [2, "be kind"]
        (fleet.folder / "tone.txt").write_text("be kind")
        await desk.control.subject(lambda r: r.seq > large.seq and r.subject == "ctl.registry.settings_file.changed")
        set_ = await fleet.systems(
            "config", "set", "daemons.agent_runner.instances=2", "shop/coder.concurrency=9", "--reason", "more"
        )
        assert set_.status == 0, set_.err
        assert "daemons.agent_runner.instances: in effect after the next start" in set_.err
        assert set(await fleet.children()) == {"nats-server", "warden", "projector", "agent_runner-1"}
    async with asyncio.timeout(LIMIT_S):
        while "the launcher runs its daemons by older settings" not in (await fleet.systems("drift")).out:
            await asyncio.sleep(0.1)
    assert (await fleet.systems("down", limit_s=60)).status == 0
    assert fleet.launcher is not None
    fleet.launcher.wait()
    await fleet.up()
    assert set(await fleet.children()) == {"nats-server", "warden", "projector", "agent_runner-1", "agent_runner-2"}
    shown = (await fleet.systems("status", "--output", "json")).json()
    assert [c["field"] for c in shown["config"]["file_changes"]] == [
        "daemons.agent_runner.instances",
        "projects.shop.roles.coder.concurrency",
    ]
    assert not shown["config"]["at_next_start"]
    assert {d["config_revision"] for d in shown["daemons"]} == {shown["config"]["revision"]}


@pytest.mark.soak
async def test_doctor_says_what_to_do(fleet: Fleet) -> None:
    """A fleet that runs is fine; logins open to others, a damaged file and what a killed launcher left are named with the remedy."""
    write(fleet)
    await fleet.up()

    async def looked() -> tuple[int, dict[str, dict[str, str]]]:
        ended = await fleet.systems("doctor", "--fleet", str(fleet.file), "--output", "json")
        worst: dict[str, dict[str, str]] = {}
        for check in json.loads(ended.out)["checks"]:
            if check["name"] not in worst or check["level"] != "ok":
                worst[check["name"]] = check
        return ended.status, worst

    status, found = await looked()
    assert found.pop("calls")["found"].startswith("an incident would wake nobody: no escalation policy is named")
    assert (status, {check["level"] for check in found.values()}) == (1, {"ok"}), found
    assert {"python", "nats-server", "home", "disk", "port", "clock", "clock skew", "bus", "shape"} <= set(found)
    login = fleet.home.credentials / "operator.json"
    login.chmod(0o644)
    fleet.file.write_text(FLEET.replace("grace = 20", "grace = -1"))
    status, found = await looked()
    assert status == 2
    assert found["home"]["remedy"] == f"chmod 600 {login}"
    assert found["fleet file"]["remedy"] == f"systems check {fleet.file}"
    login.chmod(0o600)
    fleet.write(FLEET, HANDLERS)
    assert fleet.launcher is not None
    os.kill(fleet.launcher.pid, signal.SIGKILL)
    fleet.launcher.wait()
    await fleet.gone()
    status, found = await looked()
    assert (status, found["leftovers"]["level"]) == (1, "warning"), found
    assert f"systems up --detach --home {fleet.home.path}" in found["leftovers"]["remedy"]
    assert Path(fleet.home.launcher_file).exists()
