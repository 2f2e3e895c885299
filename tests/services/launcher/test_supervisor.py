"""The supervisor, on real processes: restarts, giving up, order, and that nothing holds it up."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import nats
import pytest

from bus import errors
from bus.server import EmbeddedServer, Options
from services.fleet.daemons import Restart, RestartBy
from services.launcher import program
from services.launcher.intensity import GiveUp
from services.launcher.program import Child, ChildSpec
from services.launcher.supervisor import NOT_STARTED, ChildStatus, State, Supervisor

LIMIT_S = 30.0
#: Runs until it is told to stop.
QUIET = "exec sleep 1000"
#: Outlives SIGTERM.
STUBBORN = "trap '' TERM; echo up > {fifo}; while :; do sleep 1000; done"


class Recorder:
    """Keeps every report and lets a test wait for one."""

    def __init__(self) -> None:
        self.reports: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()

    async def child_started(self, name: str, pid: int) -> None:
        self.reports.put_nowait(("started", name, pid))

    async def child_exited(self, name: str, pid: int, status: int, restart_in_s: float | None) -> None:
        self.reports.put_nowait(("exited", name, pid, status, restart_in_s))

    async def child_gave_up(self, name: str, pid: int, gave_up: GiveUp, status: int, command: str) -> None:
        self.reports.put_nowait(("gave_up", name, pid, gave_up, status, command))

    async def next(self, kind: str, name: str) -> tuple[Any, ...]:
        """The next report of this kind about this child; others are passed over."""
        async with asyncio.timeout(LIMIT_S):
            while (report := await self.reports.get())[:2] != (kind, name):
                pass
        return report


@pytest.fixture
def child(tmp_path: Path) -> Callable[..., Child]:
    """Makes a child that runs a line of shell."""

    def make(name: str, line: str = QUIET, **more: Any) -> Child:
        spec = ChildSpec(
            name=name, command=("sh", "-c", line), log_path=tmp_path / f"{name}.log", **{"grace": 5.0, **more}
        )
        return Child(spec)

    return make


def told(fifo: Path) -> Callable[[int], Awaitable[None]]:
    """Ready when the child has written a line into the pipe."""
    os.mkfifo(fifo)

    async def ready(_: int) -> None:
        descriptor = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
        loop, readable = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(descriptor, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)

    return ready


def status(supervisor: Supervisor, name: str) -> ChildStatus:
    """How a child stands."""
    return next(child for child in supervisor.status() if child.name == name)


async def test_child_that_was_killed_is_restarted(child: Callable[..., Child]) -> None:
    """A kill -9 is reported with its signal and the delay, and a new process takes the place."""
    recorder = Recorder()
    async with Supervisor(Restart(), recorder) as supervisor:
        await supervisor.add(child("a"), "bring a back")
        pid = status(supervisor, "a").pid
        os.kill(pid, signal.SIGKILL)
        assert await recorder.next("exited", "a") == ("exited", "a", pid, -9, 0.1)
        _, _, again = await recorder.next("started", "a")
        assert again != pid
        now = status(supervisor, "a")
        assert (now.state, now.pid, now.restarts, now.last_status) == (State.RUNNING, again, 1, -9)


async def test_child_beyond_the_intensity_is_given_up_on(child: Callable[..., Child]) -> None:
    """A child that keeps dying is left down and reported with the command; the other one is not touched."""
    recorder = Recorder()
    async with Supervisor(Restart(exits=2), recorder) as supervisor:
        await supervisor.add(child("good"), "")
        await supervisor.add(child("bad", "exit 3"), "bring bad back")
        _, _, pid, gave_up, ended, command = await recorder.next("gave_up", "bad")
        assert (pid > 0, gave_up, ended, command) == (True, GiveUp(3, 300.0), 3, "bring bad back")
        good, bad = supervisor.status()
        assert (bad.state, bad.pid, bad.restarts, bad.last_status) == (State.GAVE_UP, 0, 2, 3)
        assert (good.state, good.restarts) == (State.RUNNING, 0)
        os.kill(good.pid, 0)


async def test_child_given_up_on_starts_again_when_asked(child: Callable[..., Child], tmp_path: Path) -> None:
    """start() brings a child back with a clean record: the intensity counts from zero."""
    recorder = Recorder()
    async with Supervisor(Restart(exits=1), recorder) as supervisor:
        await supervisor.add(child("a", f"test -e {tmp_path}/repaired && exec sleep 1000; exit 1"), "")
        await recorder.next("gave_up", "a")
        (tmp_path / "repaired").touch()
        supervisor.start("a")
        _, _, pid = await recorder.next("started", "a")
        os.kill(pid, signal.SIGKILL)
        await recorder.next("started", "a")
        assert status(supervisor, "a").state is State.RUNNING


async def test_child_that_only_a_person_restarts_stays_down(child: Callable[..., Child]) -> None:
    """Its first end is its last until somebody starts it; the other children are restarted as ever."""
    recorder = Recorder()
    async with Supervisor(Restart(exits=9), recorder) as supervisor:
        await supervisor.add(child("a"), "bring a back", RestartBy.HUMAN)
        pid = status(supervisor, "a").pid
        assert not supervisor.kill("a", pid + 1)
        assert supervisor.kill("a", pid)
        assert await recorder.next("exited", "a") == ("exited", "a", pid, -9, None)
        assert (await recorder.next("gave_up", "a"))[2:] == (pid, GiveUp(1, 300.0, RestartBy.HUMAN), -9, "bring a back")
        assert status(supervisor, "a").state is State.GAVE_UP
        supervisor.start("a")
        await recorder.next("started", "a")
        assert status(supervisor, "a").state is State.RUNNING


async def test_restart_on_request_is_no_failure(child: Callable[..., Child]) -> None:
    """Asked restarts replace the process at once, however many they are, and are not counted."""
    recorder = Recorder()
    async with Supervisor(Restart(exits=1), recorder) as supervisor:
        await supervisor.add(child("a"), "")
        pids = {(await recorder.next("started", "a"))[2]}
        for _ in range(4):
            supervisor.request_restart("a")
            pids.add((await recorder.next("started", "a"))[2])
        assert len(pids) == 5
        assert status(supervisor, "a").state is State.RUNNING


async def test_children_stop_in_reverse_order(child: Callable[..., Child], tmp_path: Path) -> None:
    """The last one started stops first, and each has ended before the next is asked."""
    order = tmp_path / "order"
    async with Supervisor(Restart()) as supervisor:
        for name in "abc":
            fifo = tmp_path / f"{name}.fifo"
            line = f"trap 'echo {name}- >> {order}; sleep 0.1; echo {name} >> {order}; exit' TERM; echo up > {fifo}; while :; do sleep 1000 & wait; done"
            await supervisor.add(child(name, line, ready=told(fifo)), "")
    assert order.read_text().split() == ["c-", "c", "b-", "b", "a-", "a"]


async def test_stop_of_all_keeps_what_is_named(child: Callable[..., Child]) -> None:
    """What everything else needs can be stopped last."""
    async with Supervisor(Restart()) as supervisor:
        for name in "abc":
            await supervisor.add(child(name), "")
        await supervisor.stop_all(keep={"b"})
        assert [each.state for each in supervisor.status()] == [State.STOPPED, State.RUNNING, State.STOPPED]


async def test_stop_waits_for_no_restart(child: Callable[..., Child]) -> None:
    """A child that waits for its restart is stopped at once, and stays down until it is started."""
    recorder = Recorder()
    async with Supervisor(Restart(exits=50), recorder) as supervisor:
        await supervisor.add(child("a", "exit 1"), "")
        for _ in range(4):
            await recorder.next("exited", "a")  # it now waits for most of a second
        async with asyncio.timeout(LIMIT_S):
            await supervisor.stop("a")
        assert status(supervisor, "a").state is State.STOPPED
        supervisor.start("a")
        await recorder.next("started", "a")


async def test_child_that_outlives_sigterm_is_killed_after_its_grace(
    child: Callable[..., Child], tmp_path: Path
) -> None:
    """A stubborn child gets its grace and then SIGKILL."""
    fifo = tmp_path / "fifo"
    async with Supervisor(Restart()) as supervisor:
        await supervisor.add(child("a", STUBBORN.format(fifo=fifo), ready=told(fifo), grace=0.1), "")
        async with asyncio.timeout(LIMIT_S):
            await supervisor.stop("a")
        assert status(supervisor, "a").last_status == -9


async def test_hurry_gives_no_more_grace(child: Callable[..., Child], tmp_path: Path) -> None:
    """A child with a long grace is killed as soon as somebody is in a hurry, and so are those after it."""
    async with Supervisor(Restart()) as supervisor:
        for name in "ab":
            fifo = tmp_path / name
            await supervisor.add(child(name, STUBBORN.format(fifo=fifo), ready=told(fifo), grace=60), "")
        stopping = asyncio.create_task(supervisor.stop_all())
        async with asyncio.timeout(LIMIT_S):
            await asyncio.sleep(0)  # let it ask the first one
            assert status(supervisor, "b").state is State.STOPPING
            supervisor.hurry()
            await stopping
        assert [each.last_status for each in supervisor.status()] == [-9, -9]


async def test_child_that_ends_before_it_is_ready_counts_as_an_exit(
    child: Callable[..., Child], tmp_path: Path
) -> None:
    """Waiting for readiness ends with the process; the intensity ends the loop."""
    recorder = Recorder()
    async with Supervisor(Restart(exits=1), recorder) as supervisor:
        await supervisor.add(child("a", "exit 7", ready=told(tmp_path / "fifo")), "")
        assert (await recorder.next("gave_up", "a"))[4] == 7


async def test_program_that_does_not_exist_is_not_kept(tmp_path: Path) -> None:
    """A command that cannot be run is the caller's error, at once."""
    async with Supervisor(Restart()) as supervisor:
        spec = ChildSpec(name="a", command=("/no/such/program",), log_path=tmp_path / "a.log")
        with pytest.raises(FileNotFoundError, match="/no/such/program"):
            await supervisor.add(Child(spec), "")
        assert supervisor.status() == []


async def test_program_that_vanished_is_given_up_on(tmp_path: Path) -> None:
    """A restart that cannot be carried out counts as an exit, and the status says why."""
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\nexec sleep 1000\n")
    tool.chmod(0o700)
    recorder = Recorder()
    async with Supervisor(Restart(exits=1), recorder) as supervisor:
        await supervisor.add(Child(ChildSpec(name="a", command=(str(tool),), log_path=tmp_path / "a.log")), "")
        tool.unlink()
        os.kill(status(supervisor, "a").pid, signal.SIGKILL)
        assert (await recorder.next("gave_up", "a"))[4] == NOT_STARTED
        assert "No such file" in status(supervisor, "a").error


async def test_supervision_waits_for_no_reporter(child: Callable[..., Child]) -> None:
    """A reporter that never returns and one that fails hold up neither the restart nor the others."""

    class Stuck(Recorder):
        async def child_exited(self, *_: Any) -> None:
            await asyncio.Event().wait()

    class Broken(Recorder):
        async def child_started(self, *_: Any) -> None:
            raise RuntimeError("broken on purpose")

    recorder, stuck = Recorder(), Stuck()
    async with Supervisor(Restart(), stuck, Broken(), recorder) as supervisor:
        await supervisor.add(child("a"), "")
        _, _, pid = await recorder.next("started", "a")
        os.kill(pid, signal.SIGKILL)
        await recorder.next("started", "a")
        await supervisor.unlisten(stuck, 0.05)
        assert status(supervisor, "a").restarts == 1


async def test_child_is_named_once_and_suggested(child: Callable[..., Child]) -> None:
    """A second child of the same name is refused; a misspelt name is answered with the one that was meant."""
    async with Supervisor(Restart()) as supervisor:
        await supervisor.add(child("warden"), "")
        with pytest.raises(errors.Conflict, match="warden is already supervised"):
            await supervisor.add(child("warden"), "")
        with pytest.raises(errors.UnknownName, match="did you mean 'warden'"):
            supervisor.start("wardn")


async def test_server_is_supervised_like_a_daemon(server: EmbeddedServer, store_dir: Path) -> None:
    """A nats-server that was killed comes back on its port, and a client that waits goes on."""
    await server.stop()
    embedded = EmbeddedServer(Options(store_dir=store_dir))
    recorder = Recorder()
    async with Supervisor(Restart(), recorder) as supervisor:
        await supervisor.add(embedded, "")
        url, back = embedded.url, asyncio.Event()

        async def reconnected() -> None:
            back.set()

        async def lost(_: Exception) -> None:
            """Expected: the server is away for a moment."""

        client = await nats.connect(
            url,
            reconnected_cb=reconnected,
            error_cb=lost,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.02,
        )
        os.kill(embedded.pid, signal.SIGKILL)
        assert (await recorder.next("exited", "nats-server"))[3] == -9
        await recorder.next("started", "nats-server")
        assert embedded.url == url
        async with asyncio.timeout(LIMIT_S):
            await back.wait()
            await client.flush()
        await client.close()


async def test_output_of_a_child_is_appended_to_its_log(child: Callable[..., Child], tmp_path: Path) -> None:
    """Both streams of every run are in the log, in order."""
    recorder = Recorder()
    async with Supervisor(Restart(exits=1), recorder) as supervisor:
        await supervisor.add(child("a", "echo out; echo err >&2; exit 1"), "")
        await recorder.next("gave_up", "a")
    assert (tmp_path / "a.log").read_text() == "out\nerr\nout\nerr\n"


def test_log_is_rotated_by_size(tmp_path: Path) -> None:
    """A log over the limit is renamed once, a smaller one stays, a missing one is no error."""
    log = tmp_path / "a.log"
    program.rotate(log, 4)
    log.write_text("123")
    program.rotate(log, 4)
    assert log.read_text() == "123"
    log.write_text("1234")
    program.rotate(log, 4)
    assert not log.exists()
    assert (tmp_path / "a.log.1").read_text() == "1234"


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through pidfd")
async def test_supervisor_that_fails_leaves_nothing_behind(child: Callable[..., Child]) -> None:
    """An error in the body stops all children before it goes on, and goes on as it is."""
    pids = []

    async def fail() -> None:
        async with Supervisor(Restart()) as supervisor:
            await supervisor.add(child("a"), "")
            pids.append(status(supervisor, "a").pid)
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        await fail()
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)
