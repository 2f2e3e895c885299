"""The leash: what it reports, and that no process outlives the one that wanted it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from bus import leashed

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the tests wait for processes by pidfd")

LIMIT_S = 30.0
#: Says that it is ready, then outlives everything but SIGKILL.
STUBBORN = "trap '' TERM INT HUP; echo ready $$; while :; do sleep 1000; done"
#: A shell whose grandchild leaves the process group and ignores SIGTERM; prints both pids and stays.
DAEMONISING = (
    "import os,signal,sys,time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "if os.fork() == 0:\n"
    "    os.setsid()\n"
    "    if os.fork() == 0:\n"
    "        print('ready', os.getpid(), flush=True)\n"
    "        time.sleep(1000)\n"
    "    os._exit(0)\n"
    "os.wait()\n"
)


def python(source: str) -> list[str]:
    """A Python program that starts quickly."""
    return [sys.executable, "-I", "-S", "-c", source]


async def start(command: list[str], **more: object) -> leashed.Leashed:
    """The program on a leash, with its output to read and a short grace."""
    return await leashed.start(command, stdout=leashed.PIPE, **{"grace": 0.2, **more})  # type: ignore[arg-type]


async def line(tree: leashed.Leashed) -> str:
    """The next line that the program prints."""
    assert tree.stdout is not None
    async with asyncio.timeout(LIMIT_S):
        return (await tree.stdout.readline()).decode().strip()


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


@pytest.mark.parametrize("status", [0, 3, 255, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGSEGV])
async def test_leash_gives_the_status_of_the_program(status: int) -> None:
    """Exit codes and signals of the program come back as ``subprocess`` gives them."""
    tree = await start(["sh", "-c", f"kill {status} $$" if status < 0 else f"exit {status}"])
    assert await tree.exited() == status
    assert await tree.wait() == status
    assert tree.returncode == status


async def test_leash_knows_the_pid_of_the_program() -> None:
    """`child_pid` is the program's own pid, which leads its own session; the leash is another process."""
    tree = await start(python("import os; print(os.getpid(), os.getsid(0))"))
    assert await line(tree) == f"{tree.child_pid} {tree.child_pid}"
    assert tree.pid != tree.child_pid
    assert await tree.wait() == 0


async def test_leash_passes_environment_folder_and_pipes(tmp_path: Path) -> None:
    """The program sees exactly the environment, folder and standard input that were given."""
    source = "import os,sys; print(sorted(os.environ), os.getcwd(), sys.stdin.read(), sorted(os.listdir('/proc/self/fd'))[:-1])"
    tree = await start(python(source), env={"ONLY": "this", "LC_CTYPE": "C"}, cwd=tmp_path, stdin=leashed.PIPE)
    assert tree.stdin is not None
    tree.stdin.write(b"input")
    tree.stdin.close()
    assert await line(tree) == f"['LC_CTYPE', 'ONLY'] {tmp_path} input ['0', '1', '2']"
    assert await tree.wait() == 0


@pytest.mark.parametrize(
    ("program", "error"), [("no-such-program", FileNotFoundError), ("/etc/passwd", PermissionError)]
)
async def test_leash_says_why_a_program_cannot_start(program: str, error: type[OSError]) -> None:
    """A program that cannot be executed raises what ``subprocess`` would, with the program's name."""
    with pytest.raises(error, match=program):
        await start([program])


async def test_leash_says_that_the_folder_is_missing(tmp_path: Path) -> None:
    """A working directory that does not exist is an error, and leaves nothing behind."""
    with pytest.raises(FileNotFoundError):
        await start(["true"], cwd=tmp_path / "none")


async def test_leash_lets_the_program_end_well() -> None:
    """`terminate` is SIGTERM to the program, which may use its grace to finish and say so."""
    tree = await start(
        ["sh", "-c", "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.05; done"], grace=LIMIT_S
    )
    assert await line(tree) == "ready"
    tree.terminate()
    assert await line(tree) == "bye"
    assert await tree.wait() == 7


@pytest.mark.parametrize("way", ["terminate", "kill", "signal"])
async def test_leash_kills_what_does_not_stop(way: str) -> None:
    """A program that ignores SIGTERM is killed after the grace, or at once by `kill`; a signal to the leash is an order to stop."""
    tree = await start(["sh", "-c", STUBBORN], grace=1000.0 if way == "kill" else 0.1)
    assert (await line(tree)).startswith("ready")
    match way:
        case "terminate":
            tree.terminate()
        case "kill":
            tree.kill()
        case _:
            os.kill(tree.pid, signal.SIGTERM)
    async with asyncio.timeout(LIMIT_S):
        assert await tree.wait() == -signal.SIGKILL


async def test_leash_kills_what_daemonised_itself() -> None:
    """A grandchild in a session of its own that ignores SIGTERM goes with the tree."""
    tree = await start(python(DAEMONISING + "time.sleep(1000)"))
    daemon = int((await line(tree)).split()[1])
    tree.terminate()
    await gone(daemon)
    assert await tree.wait() == -signal.SIGKILL


async def test_leash_clears_up_after_a_program_that_ends() -> None:
    """What a finished program leaves behind is killed, so its pipes end too; the status is the program's own."""
    tree = await start(python(DAEMONISING + "sys.exit(5)"))
    daemon = int((await line(tree)).split()[1])
    assert await tree.exited() == 5
    assert tree.stdout is not None
    async with asyncio.timeout(LIMIT_S):
        assert await tree.stdout.read() == b""
    await gone(daemon)
    assert await tree.wait() == 5


async def test_leash_wins_against_a_tree_that_keeps_forking() -> None:
    """A chain of processes in which each forks the next and exits ends as well."""
    source = "import os,time\nprint('ready', flush=True)\nwhile True:\n    if os.fork(): os._exit(0)\n    os.setsid(); time.sleep(0.001)"
    tree = await start(python(source))
    assert await line(tree) == "ready"
    async with asyncio.timeout(LIMIT_S):
        assert await tree.wait() == 0


@pytest.mark.chaos
async def test_leash_ends_the_tree_of_a_parent_killed_by_force() -> None:
    """No process of the tree survives kill -9 of the one that started it: program, leash, nested leash, daemonised grandchild."""
    inner = python(DAEMONISING + "time.sleep(1000)")
    middle = (
        "import asyncio\nfrom bus import leashed\n"
        "async def main():\n"
        f"    tree = await leashed.start({inner!r}, grace=0.1)\n"
        "    print('pids', tree.pid, tree.child_pid, flush=True)\n"
        "    await tree.wait()\n"
        "asyncio.run(main())"
    )
    outer = middle.replace(repr(inner), repr([sys.executable, "-c", middle]))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", outer, stdout=leashed.PIPE, cwd=Path(leashed.__file__).parents[1]
    )
    assert process.stdout is not None
    pids: list[int] = []
    async with asyncio.timeout(LIMIT_S):
        while len(pids) < 5:
            pids += [int(word) for word in (await process.stdout.readline()).split()[1:]]
    process.kill()
    await process.wait()
    for pid in pids:
        await gone(pid)
    # To its end: a pipe that is still open would be closed by the garbage collector, in somebody else's test.
    await process.stdout.read()


@pytest.mark.chaos
async def test_leash_killed_by_force_takes_the_program_along() -> None:
    """Kill -9 of the leash itself ends the program, and the parent gets -9."""
    tree = await start(["sh", "-c", STUBBORN])
    assert (await line(tree)).startswith("ready")
    os.kill(tree.pid, signal.SIGKILL)
    await gone(tree.child_pid)
    async with asyncio.timeout(LIMIT_S):
        assert await tree.exited() == -signal.SIGKILL
        assert await tree.wait() == -signal.SIGKILL
        assert tree.stdout is not None
        assert await tree.stdout.read() == b""


async def test_leash_leaves_nested_leashes_their_own_grace() -> None:
    """Stopping a tree signals the program's group only: a nested leash stops its tree when its own parent ends, not before."""
    nested = ["sh", "-c", "trap 'echo too early' TERM; echo ready; read line; echo $line"]
    source = (
        "import asyncio,signal\nfrom bus import leashed\n"
        "async def main():\n"
        "    stop = asyncio.Event()\n"
        "    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)\n"
        f"    tree = await leashed.start({nested!r}, stdin=leashed.PIPE)\n"
        "    await stop.wait()\n"
        "    tree.stdin.write(b'in time\\n')\n"
        "    await tree.wait()\n"
        "asyncio.run(main())"
    )
    tree = await start([sys.executable, "-c", source], grace=LIMIT_S, cwd=Path(leashed.__file__).parents[1])
    assert await line(tree) == "ready"
    tree.terminate()
    assert await line(tree) == "in time"
    assert await tree.wait() == 0


async def test_leash_as_a_context_stops_its_tree() -> None:
    """Leaving the context terminates the tree and waits for it; orders to a tree that is gone do nothing."""
    async with await start(["sh", "-c", STUBBORN]) as tree:
        assert (await line(tree)).startswith("ready")
    assert tree.returncode == -signal.SIGKILL
    tree.terminate()
    tree.kill()


def test_leash_works_on_uvloop() -> None:
    """The parent's side needs nothing that uvloop does not have."""
    uvloop = pytest.importorskip("uvloop")

    async def scenario() -> tuple[int, str]:
        tree = await start(["sh", "-c", "echo $$; kill -9 $$"])
        said = await line(tree)
        return await tree.wait(), said if said != str(tree.child_pid) else "itself"

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(scenario()) == (-signal.SIGKILL, "itself")
