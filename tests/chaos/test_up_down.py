"""A fleet's life by the command line: up, down, status, run; and the sentence for each way in which it cannot begin."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
from pathlib import Path

import pytest

from services.cli.fleet import EXAMPLE, launcher_command
from services.launcher import control
from services.replay_file import read_trace
from tests.chaos.fleet import SYSTEMS, Ended, Fleet
from tests.chaos.story import LIMIT_S

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

FLEET = """
[daemons]
agent_runner = { instances = 2 }

[projects.shop.roles.coder]
handler = { kind = "function", target = "handlers:echo" }
"""
HANDLERS = """
async def echo(input):
    return input
"""


def check_sentence(ended: Ended, status: int, *parts: str) -> None:
    """The command failed with this status and one line on stderr that holds all these parts."""
    assert ended.status == status, (ended.out, ended.err)
    lines = [line for line in ended.err.splitlines() if line.startswith("systems: ") and "warning:" not in line]
    assert len(lines) == 1, ended.err
    assert "Traceback" not in ended.err
    for part in parts:
        assert part in lines[0]


async def test_fleet_goes_up_and_down_any_number_of_times(fleet: Fleet) -> None:
    """`up --detach` and `down` are idempotent, and `status` says in between what there is, by output and exit code."""
    fleet.write(FLEET, HANDLERS)
    before = await fleet.systems("status")
    check_sentence(before, 69)
    first = await fleet.systems("up", "--detach", "--fleet", str(fleet.file), limit_s=60)
    assert first.status == 0, first.err
    try:
        again = await fleet.systems("up", "--detach", "--fleet", str(fleet.file))
        assert (again.status, "is up already" in again.out) == (0, True)
        # A daemon that has just come up may be too busy for a moment to answer.
        async with asyncio.timeout(LIMIT_S):
            while (shown := await fleet.systems("status", "--output", "json")).status:
                await asyncio.sleep(0.5)
        panel = shown.json()
        assert (shown.status, panel["verdict"], panel["reasons"], panel["unseen"]) == (0, "nominal", [], [])
        daemons = {d["name"]: d for d in panel["daemons"]}
        assert set(daemons) == {"launcher", "warden", "projector", "agent_runner-1", "agent_runner-2"}
        assert {d["state"] for d in daemons.values()} <= {"alive", "starting"}
        for name, child in (await fleet.children()).items():
            if name != "nats-server":
                assert daemons[name]["pid"] == child.pid
        assert len({d["boot_id"] for d in daemons.values()}) == 5
        assert (panel["dead_letters"], panel["quota"], panel["kill_switch"]["mode"]) == (0, None, "clear")
        assert {g["name"]: g["armed"] for g in panel["guards"]} == {
            "kill switch": True,
            "quota breaker": True,
            "loop breaker": True,
            "stuck-claim sweep": True,
            "poison-message breaker": True,
        }
        invoked = await fleet.systems("invoke", "shop/coder", "--input", '{"a": 1}', "--wait", "--output", "json")
        assert (invoked.status, invoked.json()["output"]) == (0, {"a": 1})
    finally:
        down = await fleet.systems("down", limit_s=60)
    assert down.status == 0, down.err
    assert (await fleet.systems("down")).status == 0
    await fleet.gone()
    left = await fleet.systems("status")
    assert (left.status, "fleet health at" in left.out) == (69, True), left.err
    assert "no NATS server answers" in left.err.splitlines()[-1]


async def test_status_names_what_it_could_not_see(fleet: Fleet) -> None:
    """Without a warden the panel is no nominal one: it names the daemon that is down, and what only that one knows."""
    fleet.write(FLEET, HANDLERS)
    await fleet.up()
    await control.ask(fleet.home, control.Stop("warden"))
    shown = await fleet.systems("status", "--output", "json")
    panel = shown.json()
    assert (shown.status, panel["verdict"]) == (1, "concern")
    assert "the warden does not answer" in panel["unseen"][0]
    assert not any(guard["armed"] for guard in panel["guards"])
    started = await fleet.systems("start", "warden")
    assert started.status == 0, started.err
    async with asyncio.timeout(LIMIT_S):
        while (await fleet.systems("status")).status != 0:
            await asyncio.sleep(0.1)


@pytest.mark.soak
async def test_status_sees_a_runner_that_hangs(fleet: Fleet) -> None:
    """A runner that is stopped is first late and then not there; the verdict is a concern while the other works on."""
    fleet.write(FLEET, HANDLERS)
    await fleet.up()
    pid = await fleet.pid("agent_runner-2")
    os.kill(pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(LIMIT_S):
            while True:
                shown = await fleet.systems("status", "--output", "json")
                states = {d["name"]: d["state"] for d in shown.json()["daemons"]}
                if states["agent_runner-2"] not in ("starting", "alive"):
                    break
                await asyncio.sleep(0.5)
        # Late for five seconds, then its last beat is gone.
        assert states["agent_runner-2"] in {"late", "down"}
        assert (shown.status, shown.json()["verdict"]) == (1, "concern")
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_fleet_says_why_it_cannot_begin(fleet: Fleet, tmp_path: Path) -> None:
    """A taken port, an unknown key, a home that is somebody's or cannot be written: one sentence each, nothing left running."""
    fleet.write(FLEET.replace("agent_runner =", "agent_runer ="), HANDLERS)
    wrong = await fleet.systems("up", "--detach", "--fleet", str(fleet.file))
    check_sentence(wrong, 64, "fleet.toml:3", "'agent_runer', did you mean 'agent_runner'?")
    missing = await fleet.systems("up", "--detach", "--fleet", str(tmp_path / "nothing.toml"))
    check_sentence(missing, 64, "nothing.toml")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        fleet.write(f"[server]\nport = {port}\n{FLEET}", HANDLERS)
        busy = await fleet.systems("up", "--detach", "--fleet", str(fleet.file), limit_s=60)
        check_sentence(busy, 2, str(port))
    (tmp_path / "file").write_text("")
    blocked = await fleet.systems("up", "--detach", "--fleet", str(fleet.file), "--home", str(tmp_path / "file"))
    check_sentence(blocked, 2, str(tmp_path / "file"), "name another")
    await fleet.gone()
    fleet.write(FLEET, HANDLERS)
    await fleet.up()
    second = await fleet.run(*launcher_command(fleet.home, fleet.file))
    assert second.status == 1
    assert "expected no launcher in" in second.err
    assert "Traceback" not in second.err


@pytest.mark.timeout(150)
async def test_run_works_through_the_whole_trace(fleet: Fleet) -> None:
    """`systems run` away from a terminal: a line a second, every request completed, sums equal, status 0, nothing left."""
    rows = list(read_trace(EXAMPLE.parent / "azure-llm-2023-code.csv"))
    ended = await fleet.systems("run", "--speed", "max", limit_s=120)
    assert ended.status == 0, ended.out[-2000:] + ended.err[-2000:]
    assert "8,819 requested, 8,819 completed, 0 dead letters, 0 cancelled" in ended.out
    assert f"{sum(r.input_tokens for r in rows):,} input" in ended.out
    assert ended.out.rstrip().endswith("equal")
    assert re.search(r"^\d\d:\d\d:\d\d (nominal|concern) \| \d of 5 daemons up \| ", ended.out, re.MULTILINE)
    await fleet.gone()


async def test_run_ends_at_once_when_it_is_interrupted(fleet: Fleet) -> None:
    """Ctrl-C in the middle of a run takes the fleet down, and nothing of it is left."""
    process = await asyncio.create_subprocess_exec(
        SYSTEMS,
        "run",
        "--speed",
        "20",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=fleet.environ,
        cwd=fleet.folder,
    )
    assert process.stdout is not None
    async with asyncio.timeout(LIMIT_S):
        while b"requested" not in await process.stdout.readline():
            pass
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(LIMIT_S):
        _, err = await process.communicate()
    assert process.returncode == 130, err.decode()
    assert b"Traceback" not in err
    await fleet.gone()
