"""The real nats command against a running fleet: it is part of the user interface."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import shlex
from contextlib import suppress

import msgspec
import pytest

from tests.chaos.fleet import Ended, Fleet
from tests.chaos.story import LIMIT_S

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

FLEET = """
[daemons]
agent_runner = { instances = 1 }

[projects.shop.roles.coder]
handler = { kind = "function", target = "handlers:echo" }

[projects.shop.roles.broken]
handler = { kind = "function", target = "handlers:broken" }
max_attempts = 1
"""
HANDLERS = """
async def echo(input):
    return input

async def broken(input):
    raise LookupError("the book is gone")
"""


async def environment(fleet: Fleet) -> dict[str, str]:
    """What `eval "$(systems env)"` would set."""
    printed = await fleet.systems("env")
    assert printed.status == 0, printed.err
    exports = [line.removeprefix("export ") for line in printed.out.splitlines() if line.startswith("export ")]
    return dict(shlex.split(line)[0].split("=", 1) for line in exports)


async def on_terminal(fleet: Fleet, login: dict[str, str], *command: str) -> str:
    """What a command that pages shows on a terminal, up to its first pause."""
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *command, stdin=theirs, stdout=theirs, stderr=theirs, env=fleet.environ | login | {"TERM": "dumb"}
    )
    os.close(theirs)
    shown = bytearray()
    loop, news = asyncio.get_running_loop(), asyncio.Event()

    def read() -> None:
        try:
            shown.extend(os.read(ours, 65536))
        except OSError:  # the other side was closed: how Linux says that a terminal has ended
            loop.remove_reader(ours)
        news.set()

    loop.add_reader(ours, read)
    try:
        async with asyncio.timeout(LIMIT_S):
            while process.returncode is None and b"}\r\n" not in shown:
                news.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(news.wait(), 0.5)
    finally:
        loop.remove_reader(ours)
        os.close(ours)
        if process.returncode is None:
            process.kill()
        await process.wait()
    return shown.decode()


async def test_nats_command_works_on_a_fleet(fleet: Fleet, nats_cli: str) -> None:
    """Watch, list, read and change a running fleet with nothing but the nats command and `systems env`."""
    fleet.write(FLEET, HANDLERS)
    await fleet.up()
    login = await environment(fleet)

    async def nats(*arguments: str) -> Ended:
        return await fleet.run(nats_cli, *arguments, environ=login)

    # nats sub: one completion, seen by somebody who only has the subject.
    heard = asyncio.create_task(nats("sub", "inv.*.*.*.completed", "--count", "1", "--raw"))
    async with fleet.bus() as desk:
        async with asyncio.timeout(LIMIT_S):
            while not heard.done():
                answer = await nats("req", "requests.shop.coder", '{"a": 1}', "--raw")
                assert answer.status == 0, answer.err
                await asyncio.wait({heard}, timeout=0.3)
        completed = msgspec.json.decode((await heard).out)
        assert (completed["type"], completed["data"]["output"]) == ("systems.invocation.completed", {"a": 1})
        await desk.story.event(msgspec.json.decode(answer.out)["id"], "completed")

        # A refusal comes as an error of the services API.
        refused = await nats("req", "requests.shop.codr", "{}", "--raw")
        assert "did you mean 'shop/coder'" in refused.out

        streams = await nats("stream", "ls", "--names")
        assert {"INVOCATIONS", "CONTROL", "DEAD_LETTERS", "SCHEDULES"} <= set(streams.out.split())

        # Registry: read a role, put another one, ask it.
        value = await nats("kv", "get", "registry", "roles.shop.coder", "--raw")
        assert msgspec.json.decode(value.out)["handler"] == {"kind": "function", "target": "handlers:echo"}
        put = await nats("kv", "put", "registry", "roles.shop.fresh", value.out.strip())
        assert put.status == 0, put.err
        await desk.control.subject(lambda r: r.subject == "ctl.registry.roles_shop_fresh.changed")
        async with asyncio.timeout(LIMIT_S):
            while "id" not in (
                found := msgspec.json.decode((await nats("req", "requests.shop.fresh", "5", "--raw")).out)
            ):
                await asyncio.sleep(0.05)
        await desk.story.event(found["id"], "completed")

        # A dead letter, whole.
        dead = msgspec.json.decode((await nats("req", "requests.shop.broken", "5", "--raw")).out)["id"]
        await desk.dead.subject(lambda r: r.subject.endswith(dead))
        got = await nats("stream", "get", "DEAD_LETTERS", "--last-for", f"dlq.shop.broken.{dead}", "--json")
        assert got.status == 0, got.err
        viewed = await on_terminal(fleet, login, nats_cli, "stream", "view", "DEAD_LETTERS", "10", "--raw")
        letter = next(msgspec.json.decode(line) for line in viewed.splitlines() if dead in line)
        assert letter["type"] == "systems.deadletter.kept"
        assert [a["error"]["message"] for a in letter["data"]["attempts"]] == ["the book is gone"]

        # The flag that a person puts is what the panel shows, and taking it back too.
        assert (await nats("kv", "put", "flags", "kill_switch", "frozen")).status == 0
        shown = (await fleet.systems("status", "--output", "json")).json()
        assert shown["kill_switch"]["mode"] == "soft"
        assert any("kill switch" in reason for reason in shown["reasons"])
        assert (await nats("kv", "put", "flags", "kill_switch", "clear")).status == 0
        shown = (await fleet.systems("status", "--output", "json")).json()
        assert shown["kill_switch"]["mode"] == "clear"

        # The services of the fleet.
        # The command waits a moment after each answer, and not for a daemon that is busy just then.
        async with asyncio.timeout(LIMIT_S):
            while not {"requests", "fleet"} <= set(re.findall(r"\w+", (await nats("micro", "ls")).out)):
                await asyncio.sleep(0.2)
        status = msgspec.json.decode((await nats("req", "fleet.status", "", "--raw")).out)
        assert {"position", "lag", "roles", "running", "last_errors"} <= status.keys()
