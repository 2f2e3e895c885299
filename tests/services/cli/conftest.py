"""A fleet of real processes, and the real command against it."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
import pytest_asyncio

from bus.context import Context
from bus.server import EmbeddedServer, Options
from services.home import Home, write_json

SYSTEMS = str(Path(sys.executable).parent / "systems")
#: Seconds that a command may take on a busy machine.
LIMIT_S = 60.0

FLEET = """
[projects.shop]
owners = ["ann@example.com"]
[projects.shop.roles.echo]
handler = { kind = "function", target = "work:echo" }
[projects.shop.roles.strict]
handler = { kind = "function", target = "work:echo" }
input_schema = { type = "object", required = ["order"] }
[projects.shop.roles.parent]
handler = { kind = "function", target = "work:parent" }
[projects.shop.roles.slow]
handler = { kind = "function", target = "work:slow" }
[projects.shop.roles.broken]
handler = { kind = "function", target = "work:broken" }
max_attempts = 2
backoff = { base = 0.05, jitter = 0 }
[projects.shop.roles.hopeless]
handler = { kind = "function", target = "work:hopeless" }
[projects.shop.roles.asker]
handler = { kind = "exec", command = ["sh", "-c", "systems invoke shop/echo --input '[1]' --output json >&2"] }
"""
WORK = """
import asyncio
import msgspec
from services.runner.handler import FollowUp, Permanent, Result

async def echo(value, ctx):
    return value

async def parent(value, ctx):
    await ctx.request("shop/echo", {"from": "ctx"})
    return Result(output=msgspec.Raw(b'"done"'), follow_ups=(FollowUp(role="shop/echo", input=msgspec.Raw(b'2')),))

async def slow(value, ctx):
    await asyncio.Event().wait()

async def broken(value, ctx):
    raise RuntimeError("the oven is cold")

async def hopeless(value, ctx):
    raise Permanent(f"nobody can do {value}")
"""


class Done(NamedTuple):
    """A command that has ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, as JSON."""
        return msgspec.json.decode(self.out)


class Cli:
    """Runs the real command, with nothing of this process' environment that could name another fleet."""

    def __init__(self, home: Path) -> None:
        self.home = home
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("NATS_", "SYSTEMS_"))}
        path = os.pathsep.join([str(Path(SYSTEMS).parent), os.environ.get("PATH", os.defpath)])
        own = {"SYSTEMS_HOME": str(home), "SYSTEMS_ACTOR": "ann", "COLUMNS": "120", "PATH": path}
        self.environment = kept | own

    async def start(self, *arguments: str, env: Mapping[str, str] | None = None) -> Process:
        """A command that goes on."""
        return await asyncio.create_subprocess_exec(
            SYSTEMS, *arguments, stdin=PIPE, stdout=PIPE, stderr=PIPE, env={**self.environment, **(env or {})}
        )

    async def __call__(self, *arguments: str, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> Done:
        """A command from its start to its end."""
        process = await self.start(*arguments, env=env)
        out, err = await asyncio.wait_for(process.communicate(stdin), LIMIT_S)
        assert process.returncode is not None
        return Done(process.returncode, out.decode(), err.decode())

    async def ended(self, id_: str, status: str) -> Any:
        """An invocation's story, once it has the status."""
        async with asyncio.timeout(LIMIT_S):
            while True:
                told = (await self("show", id_, "--output", "json")).json
                if told["status"] == status:
                    return told


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """The command without a fleet."""
    return Cli(tmp_path / "home")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bare(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cli]:
    """The command with a server that has nothing on it, and a fleet file beside it."""
    folder = tmp_path_factory.mktemp("fleet")
    (folder / "fleet.toml").write_text(FLEET)
    (folder / "work.py").write_text(WORK)
    home = Home(folder / "home")
    home.prepare()
    async with EmbeddedServer(Options(store_dir=home.nats)) as server:
        write_json(home.server_file, Context(url=server.url))
        yield Cli(home.path)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(bare: Cli) -> AsyncIterator[Cli]:
    """The command with a fleet: a warden and a runner, as processes."""
    file = bare.home.parent / "fleet.toml"
    applied = await bare("apply", "--fleet", str(file))
    assert applied.status == 0, applied.err
    daemons = []
    for kind in ("warden", "agent_runner"):
        with (bare.home / f"{kind}.log").open("wb") as log:
            daemon = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "services.app", kind, "--home", str(bare.home), "--fleet", str(file),
                "--instance", f"{kind}-1", stderr=log, env=bare.environment,
            )  # fmt: skip
        daemons.append(daemon)
    yield bare
    for daemon in daemons:
        if daemon.returncode is None:
            daemon.terminate()
        await asyncio.wait_for(daemon.wait(), 30)
