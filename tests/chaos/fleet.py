"""A whole fleet as processes, brought up as `systems up` does, for tests that kill parts of it.

Processes are found by the fleet's state directory, which no other test shares, and are signalled by their own pid.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from bus import context
from bus.author import Author
from bus.refusal import GuardRefused, Reason
from bus.store import CONTROL, DEAD_LETTERS
from services.cli.fleet import launcher_command, until_ready
from services.daemon import Bus, open_bus
from services.fleet.registry import Registry
from services.home import Home
from services.launcher import control
from services.launcher.supervisor import ChildStatus
from services.requests.requests import Accepted, Ask, Requests
from tests.chaos.story import LIMIT_S, Story

#: The `systems` command of this installation.
SYSTEMS = str(Path(sys.executable).parent / "systems")


class Ended:
    """What a command came to."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err

    def json(self) -> Any:
        """Its output as JSON."""
        return msgspec.json.decode(self.out)


class Fleet:
    """One fleet in its own home; nothing runs until :meth:`up`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = Home(folder / "home")
        self.file = folder / "fleet.toml"
        self.launcher: subprocess.Popen[bytes] | None = None
        #: What its environment has beside this process's.
        self.more: dict[str, str] = {}

    def write(self, toml: str, handlers: str = "") -> None:
        """The fleet file, and the module `handlers` beside it."""
        self.file.write_text(toml)
        (self.folder / "handlers.py").write_text(handlers)

    @property
    def environ(self) -> dict[str, str]:
        """What a command of this fleet runs in."""
        mine = {"SYSTEMS_HOME": str(self.home.path), "SYSTEMS_ACTOR": "tester", "COLUMNS": "200"}
        return os.environ | mine | self.more

    async def up(self) -> None:
        """Start the launcher, and wait until everything is there."""
        self.home.prepare()
        with (self.home.logs / "launcher.log").open("ab") as out:
            self.launcher = subprocess.Popen(  # noqa: ASYNC220 (a fork of milliseconds, in a test)
                launcher_command(self.home, self.file),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=self.environ,
            )
        await until_ready(self.home, self.launcher)

    async def children(self) -> dict[str, ChildStatus]:
        """What the launcher supervises, by name."""
        return {child.name: child for child in (await control.ask(self.home, control.Status())).children}

    async def pid(self, name: str, *, other_than: int = 0) -> int:
        """Pid of a running child; with `other_than`, of the one that came after that."""
        async with asyncio.timeout(LIMIT_S):
            while True:
                child = (await self.children())[name]
                if child.pid not in (0, other_than):
                    return child.pid
                await asyncio.sleep(0.02)

    async def kill(self, name: str) -> int:
        """SIGKILL to a child of the launcher: the pid that it had."""
        pid = await self.pid(name)
        os.kill(pid, signal.SIGKILL)
        return pid

    def processes(self) -> list[int]:
        """Every process of this fleet: its home is in their environment or on their command line."""
        mine, found = str(self.home.path).encode(), []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with suppress(OSError):
                    if mine in (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes():
                        found.append(int(entry.name))
        return found

    async def gone(self, *, limit_s: float = LIMIT_S) -> None:
        """Wait until nothing of the fleet runs."""
        async with asyncio.timeout(limit_s):
            while True:
                left = self.processes()
                if self.launcher is not None:
                    self.launcher.poll()  # a dead one that nobody looked at is no process of the fleet, and a zombie of ours
                if not left:
                    return
                await asyncio.sleep(0.05)

    async def down(self) -> None:
        """End whatever runs, gracefully if a launcher is there; then nothing may be left."""
        with suppress(ProcessLookupError):
            if self.launcher is not None and self.launcher.poll() is None:
                self.launcher.terminate()
                with suppress(TimeoutError):
                    async with asyncio.timeout(LIMIT_S):
                        while self.launcher.poll() is None:
                            await asyncio.sleep(0.02)
        try:
            await self.gone()
        except TimeoutError:
            left = self.processes()
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            raise AssertionError(f"expected no process of the fleet to be left, got: {left}") from None

    async def systems(self, *arguments: str, limit_s: float = LIMIT_S) -> Ended:
        """Run the command line of this fleet to its end."""
        return await self.run(SYSTEMS, *arguments, limit_s=limit_s)

    async def run(self, *command: str, limit_s: float = LIMIT_S, environ: Mapping[str, str] = {}) -> Ended:
        """Run any command in the fleet's environment, and what `environ` adds to it, to its end."""
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=self.folder,
            env=self.environ | dict(environ),
        )
        try:
            async with asyncio.timeout(limit_s):
                out, err = await process.communicate()
        except BaseException:
            process.kill()
            await process.wait()
            raise
        assert process.returncode is not None
        return Ended(process.returncode, out.decode(), err.decode())

    @asynccontextmanager
    async def bus(self) -> AsyncIterator[Desk]:
        """The test's own place on the fleet's bus."""
        where = context.load(self.home.path, None, None, {})
        bus = await open_bus(where, "test", Author("/test/chaos", actor="tester"))
        try:
            registry = Registry(bus.bucket("registry"))
            await registry.load()
            desk = Desk(bus, registry)
            async with desk.story.followed(), desk.control.followed(), desk.dead.followed():
                yield desk
        finally:
            await bus.close()


class Desk:
    """A connection to a running fleet, with its streams followed."""

    def __init__(self, bus: Bus, registry: Registry) -> None:
        self.bus = bus
        self.registry = registry
        self.requests = Requests(registry, bus.store, bus.author, bus.artifacts, bus.schedules)
        self.story = Story(bus.connection)
        self.control = Story(bus.connection, CONTROL)
        self.dead = Story(bus.connection, DEAD_LETTERS)

    async def ask(self, path: str, input: Any = None, **more: Any) -> Accepted:
        """Request a role; again, when the server was away for so long that the kill switch could not be read."""
        while True:
            try:
                return await self.requests.submit(Ask(role=path, input=msgspec.Raw(msgspec.json.encode(input)), **more))
            except GuardRefused as exc:
                if exc.refusal.reason is not Reason.UNVERIFIED_FLAG:
                    raise
                await self.bus.gate.opened()

    async def ask_many(self, path: str, count: int, *, at_once: int = 64) -> list[str]:
        """Request a role `count` times with the inputs 0, 1, 2, …: the ids of what was accepted."""
        gate = asyncio.Semaphore(at_once)

        async def one(n: int) -> str:
            async with gate:
                return (await self.ask(path, n)).id

        return await asyncio.gather(*(one(n) for n in range(count)))

    async def completed(self, count: int) -> None:
        """Wait until so many invocations were completed."""
        await self.story.until(lambda: sum("completed" in names for names in self.story.events.values()) >= count)

    async def all_ended(self, ids: list[str], *, limit_s: float = LIMIT_S) -> None:
        """Wait until each of these has ended."""
        waiting = set(ids)

        def over() -> bool:
            waiting.difference_update(
                [
                    i
                    for i in waiting
                    if "completed" in (names := self.story.events.get(i, ())) or "dead_lettered" in names
                ]
            )
            return not waiting

        try:
            await self.story.until(over, limit_s=limit_s)
        except TimeoutError:
            some = {id_: self.story.events.get(id_) for id_ in list(waiting)[:5]}
            raise AssertionError(f"{len(waiting)} of {len(ids)} have not ended, such as {some}") from None
