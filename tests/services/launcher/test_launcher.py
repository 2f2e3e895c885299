"""The launcher as a process of its own: start, order, refusals, and that nothing outlives it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import nats
import pytest

from bus import context, errors, port
from bus.context import Context
from services.fleet.daemons import AgentRunner, Daemons
from services.fleet.spec import Fleet, Projector, Server
from services.home import Home
from services.launcher import control
from services.launcher.control import Phase
from services.launcher.main import child_environment, daemons
from services.launcher.supervisor import State

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through pidfd"),
]

LIMIT_S = 30.0
#: Runs a launcher with daemons that are lines of shell; what it sets up on the bus is written to HOME/order.
HOST = """
import asyncio, json, sys
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
import msgspec, nats
from bus import errors
from services import logs
from services.fleet.daemons import AgentRunner
from services.fleet.spec import Fleet
from services.home import Home
from services.launcher.main import Launcher, Options

home, fleet, lines = Home(Path(sys.argv[1])), msgspec.json.decode(sys.argv[2], type=Fleet), json.loads(sys.argv[3])

@asynccontextmanager
async def on_server_ready(context):
    client = await nats.connect(context.url, **context.connect_options())
    yield None
    await client.flush()
    await client.close()
    with (home.path / "order").open("a") as order:
        order.write("bus\\n")

async def main():
    launcher = Launcher(Options(
        home=home, fleet=fleet, boot_id="boot", now=datetime.now(UTC), on_server_ready=on_server_ready,
        daemons=tuple((name, ("sh", "-c", line)) for name, line in lines.items()),
    ))
    running = asyncio.create_task(launcher.run())
    waiting = asyncio.create_task(launcher.ready.wait())
    await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if waiting.done():
        print("ready", flush=True)
    waiting.cancel()
    await running

logs.configure()
try:
    asyncio.run(main())
except errors.BusError as exc:
    sys.exit(f"{type(exc).__name__}: {exc}")
"""
QUIET = "exec sleep 1000"

Start = Callable[..., Awaitable[asyncio.subprocess.Process]]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Where the fleet lives."""
    return Home(tmp_path / "home")


@pytest.fixture
async def start(home: Home) -> AsyncIterator[Start]:
    """Starts launchers and returns when they are ready; stops what is left."""
    started: list[asyncio.subprocess.Process] = []

    async def begin(fleet: Fleet = Fleet(), *, ready: bool = True, **lines: str) -> asyncio.subprocess.Process:  # noqa: B008 - it is frozen
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", HOST, str(home.path), msgspec.json.encode(fleet).decode(), msgspec.json.encode(lines).decode(),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        started.append(process)
        if ready:
            assert process.stdout is not None
            async with asyncio.timeout(LIMIT_S):
                assert await process.stdout.readline() == b"ready\n"
        return process

    yield begin
    for process in started:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def ended(process: asyncio.subprocess.Process) -> tuple[int | None, str]:
    """The launcher's status and what it said on stderr."""
    async with asyncio.timeout(LIMIT_S):
        _, said = await process.communicate()
    return process.returncode, said.decode()


@asynccontextmanager
async def outlived(*pids: int) -> AsyncIterator[None]:
    """Watches processes from the beginning of the block; after it, waits until all of them are gone."""
    loop, gone = asyncio.get_running_loop(), []
    for pid in pids:
        descriptor, event = os.pidfd_open(pid), asyncio.Event()
        loop.add_reader(descriptor, event.set)
        gone.append((descriptor, event))
    try:
        yield
        async with asyncio.timeout(LIMIT_S):
            for _, event in gone:
                await event.wait()
    finally:
        for descriptor, _ in gone:
            loop.remove_reader(descriptor)
            os.close(descriptor)


async def pids(home: Home) -> dict[str, int]:
    """Name -> pid of what runs."""
    return {child.name: child.pid for child in (await control.ask(home, control.Status())).children if child.pid}


def grandchild(fifo: Path) -> tuple[str, Callable[[], Awaitable[int]]]:
    """A daemon with a process of its own that ignores SIGTERM, and how to learn that one's pid."""
    os.mkfifo(fifo)
    line = f"sh -c 'trap \"\" TERM; echo $$ > {fifo}; while :; do sleep 1000; done' & wait"
    return line, lambda: asyncio.to_thread(lambda: int(fifo.read_text()))


async def test_launcher_starts_and_stops_a_fleet(start: Start, home: Home, tmp_path: Path) -> None:
    """SIGTERM stops daemons in reverse order, then what is on the bus, then the server; then nothing is left but logs."""
    lines = {}
    for name in ("warden", "runner"):
        os.mkfifo(tmp_path / name)
        trap = f"trap 'echo {name} >> {home.path}/order; exit' TERM; echo trapped > {tmp_path / name}"
        lines[name] = f"{trap}; while :; do sleep 1000 & wait $!; done"
    process = await start(**lines)
    for name in lines:
        assert await asyncio.to_thread((tmp_path / name).read_text) == "trapped\n"
    address = context.load(home.path, None, None, {})
    client = await nats.connect(address.url, **address.connect_options())
    await client.close()
    running = await pids(home)
    assert list(running) == ["nats-server", "warden", "runner"]
    async with outlived(*running.values()):
        process.send_signal(signal.SIGTERM)
        assert (await ended(process))[0] == 0
    assert (home.path / "order").read_text().split() == ["runner", "warden", "bus"]
    assert home.launcher() is None
    assert not home.server_file.exists()
    assert "Server Exiting" in (home.logs / "nats-server.log").read_text()


async def test_launcher_that_is_killed_leaves_no_orphan(start: Start, home: Home, tmp_path: Path) -> None:
    """After kill -9 of the launcher the server, the daemons and their children are gone, and the next one starts on the same port."""
    line, pid = grandchild(tmp_path / "fifo")
    process = await start(warden=line)
    deep = await pid()
    url = context.load(home.path, None, None, {}).url
    async with outlived(deep, *(await pids(home)).values()):
        process.kill()
        # The grandchild ignores SIGTERM: it is killed as what a daemon left behind.
    successor = await start(warden=QUIET)
    assert context.load(home.path, None, None, {}).url == url
    successor.send_signal(signal.SIGINT)
    assert (await ended(successor))[0] == 0


async def test_launcher_is_alone_in_its_home(start: Start, home: Home) -> None:
    """A second launcher on the same home is refused with the pid of the first, which goes on."""
    first = await start(warden=QUIET)
    before = await pids(home)
    status, said = await ended(await start(ready=False))
    assert status == 1
    assert f"HomeUnusable: expected no launcher in {home.path}, got: pid {first.pid} runs there since " in said
    assert await pids(home) == before


async def test_launcher_says_that_its_port_is_taken(start: Start, home: Home) -> None:
    """A fixed port that is taken ends the start with one sentence."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        number = other.getsockname()[1]
        status, said = await ended(await start(Fleet(server=Server(port=number)), ready=False, warden=QUIET))
    assert status == 1
    assert f"PortTaken: expected port {number} of 127.0.0.1 to be free, got: it is taken by " in said
    assert home.launcher() is None


async def test_launcher_says_that_its_store_cannot_be_written(start: Start, home: Home) -> None:
    """A file in the place of the store ends the start with one sentence."""
    home.path.mkdir()
    home.nats.touch()
    status, said = await ended(await start(ready=False))
    assert status == 1
    assert f"HomeUnusable: expected a directory at {home.nats}, got: a file is in the way" in said


async def test_launcher_takes_orders(start: Start, home: Home) -> None:
    """Daemons are stopped, started and restarted by name, and shutdown ends the fleet."""
    process = await start(warden=QUIET, runner=QUIET)
    first = await pids(home)
    answer = await control.ask(home, control.Stop("runner"))
    assert answer.ok
    assert answer.phase is Phase.READY
    assert answer.pid == process.pid
    assert {child.name: child.state for child in answer.children}["runner"] is State.STOPPED
    assert (await control.ask(home, control.Start())).ok
    async with outlived(first["warden"]):
        assert (await control.ask(home, control.RestartChild("warden"))).ok
    refused = await control.ask(home, control.Stop("wardn"))
    assert not refused.ok
    assert "unknown child 'wardn', did you mean 'warden'?" in refused.error
    assert (await control.ask(home, control.Shutdown())).ok
    assert (await ended(process))[0] == 0


async def test_launcher_asked_twice_gives_no_more_grace(start: Start, home: Home, tmp_path: Path) -> None:
    """A second signal kills what is still stopping."""
    line, pid = grandchild(tmp_path / "fifo")
    fleet = msgspec.json.decode(
        b'{"projects":{"p":{"roles":{"r":{"handler":{"kind":"exec","command":["x"]},"grace":60}}}}}', type=Fleet
    )
    process = await start(fleet, warden=f"trap '' TERM; {line}; wait")
    async with outlived(await pid(), *(await pids(home)).values()):
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(LIMIT_S):
            while (await control.ask(home, control.Status())).phase is not Phase.STOPPING:
                pass
        process.send_signal(signal.SIGTERM)
        assert (await ended(process))[0] == 0


async def test_launcher_is_stopped_while_it_starts(start: Start, home: Home) -> None:
    """A signal during the start breaks it off and leaves nothing behind."""
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and says nothing
        url = f"nats://127.0.0.1:{silent.getsockname()[1]}"
        process = await start(Fleet(server=Server(url=url)), ready=False, warden=QUIET)
        async with asyncio.timeout(LIMIT_S):
            connection, _ = await asyncio.to_thread(silent.accept)
        with connection:
            process.send_signal(signal.SIGTERM)
            assert (await ended(process))[0] == 0
    assert home.launcher() is None
    assert not home.server_file.exists()


async def test_launcher_with_a_server_of_somebody_else_starts_none(start: Start, home: Home, store_dir: Path) -> None:
    """A fleet that names its server runs only daemons."""
    from bus.server import EmbeddedServer, Options  # noqa: PLC0415 - only here

    async with EmbeddedServer(Options(store_dir=store_dir)) as server:
        process = await start(Fleet(server=Server(url=server.url)), warden=QUIET)
        assert list(await pids(home)) == ["warden"]
        assert context.load(home.path, None, None, {}) == Context(url=server.url)
        process.send_signal(signal.SIGTERM)
        assert (await ended(process))[0] == 0
        assert server.pid


def test_daemons_are_named_with_their_commands(home: Home) -> None:
    """One warden, one projector unless there is to be none, and as many runners as the fleet says, each told what it needs."""
    two = Daemons(agent_runner=AgentRunner(instances=2))
    named = dict(daemons(Fleet(daemons=two), home, Path("fleet.toml")))
    assert list(named) == ["warden", "projector", "agent_runner-1", "agent_runner-2"]
    without = Fleet(daemons=two, projector=Projector(enabled=False))
    assert list(dict(daemons(without, home, Path("fleet.toml")))) == ["warden", "agent_runner-1", "agent_runner-2"]
    other = dict(daemons(Fleet(projector=Projector(memory_mb=512, publish=0.5)), home, Path("fleet.toml")))
    assert other["projector"][-6:] == ("--memory-mb", "512", "--publish-s", "0.5", "--archive", "{}")
    assert named["agent_runner-2"] == (
        *(sys.executable, "-m", "services.app", "agent_runner", "--home", str(home.path)),
        *("--fleet", "fleet.toml", "--instance", "agent_runner-2"),
    )


def test_environment_of_daemons_leads_to_their_own_server(home: Home) -> None:
    """What the shell says of another server does not reach the daemons."""
    environ = {"PATH": "/bin", "NATS_URL": "nats://x", "NATS_CONTEXT": "prod", "SYSTEMS_HOME": "/other"}
    assert child_environment(environ, home) == {"PATH": "/bin", "SYSTEMS_HOME": str(home.path)}


def test_slack_tokens_reach_one_daemon(home: Home) -> None:
    """Slack's tokens are in the environment of slack_mirror, and in that of no daemon that runs agents' work."""
    token = {"SYSTEMS_SLACK_BOT_TOKEN": "xoxb-1"}
    assert token.items() <= child_environment(token, home, "slack_mirror").items()
    for name in ("warden", "projector", "agent_runner-1", ""):
        assert not token.keys() & child_environment(token, home, name).keys()


def test_port_errors_are_conflicts() -> None:
    """A taken port is what the command line maps to a refusal."""
    assert issubclass(port.PortTaken, errors.Conflict)
