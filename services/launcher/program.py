"""A process as the supervisor sees it, and the one that runs a command on a leash.

:class:`bus.server.EmbeddedServer` is a Program too: the server is supervised like every daemon.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

import msgspec

from bus import leashed

#: Bytes from which a log is rotated away when its process starts.
LOG_LIMIT = 8 * 1024 * 1024


class Program(Protocol):
    """Something that is started, ends, and may be started again."""

    @property
    def name(self) -> str:
        """What people call it: ``agent_runner-1``."""
        ...

    @property
    def pid(self) -> int:
        """Process id of the last start; 0 before the first, and it may be 0 after the end."""
        ...

    async def start(self) -> None:
        """Start it, and return when it is ready or has ended.

        Raises:
            BusError, OSError: it could not be started.
        """
        ...

    async def wait(self) -> int:
        """Wait for the end of its whole tree: the status as in ``subprocess`` (negative is a signal)."""
        ...

    def terminate(self) -> None:
        """Ask it to stop; it is killed after its grace."""
        ...

    def kill(self) -> None:
        """End it now."""
        ...


class ChildSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A command to be kept running."""

    name: str
    command: tuple[str, ...]
    #: The interpreter that runs the command, asked at each start; None for the one that it names.
    interpreter: Callable[[], Path | None] | None = None
    #: The whole environment; None passes this process's own.
    env: dict[str, str] | None = None
    #: Where its output is appended; a file over LOG_LIMIT is first renamed to ``.1``.
    log_path: Path
    #: Seconds between SIGTERM and SIGKILL.
    grace: float = 15.0
    #: Waits until the process with this pid is ready; None takes a process that runs for ready.
    ready: Callable[[int], Awaitable[None]] | None = None


class Child:
    """A :class:`Program` that runs a command."""

    def __init__(self, spec: ChildSpec) -> None:
        self.spec = spec
        self._tree: leashed.Leashed | None = None

    @property
    def name(self) -> str:
        """The spec's name."""
        return self.spec.name

    @property
    def pid(self) -> int:
        """Process id of the command itself at its last start; 0 before the first."""
        return 0 if self._tree is None else self._tree.child_pid

    def command(self) -> tuple[str, ...]:
        """What is run at the next start.

        Raises:
            BusError: the interpreter that is meant is not there.
        """
        other = None if self.spec.interpreter is None else self.spec.interpreter()
        if other is None:
            return self.spec.command
        # -P: the folder that the launcher was started in may hold another version, which would be imported instead.
        return (str(other), "-P", *self.spec.command[1:])

    async def start(self) -> None:
        """Start it and wait until it is ready, or has ended before that."""
        rotate(self.spec.log_path)
        with self.spec.log_path.open("ab") as log:
            self._tree = await leashed.start(
                self.command(), env=self.spec.env, stdout=log, stderr=log, grace=self.spec.grace
            )
        if self.spec.ready is None:
            return
        ready = asyncio.ensure_future(self.spec.ready(self._tree.child_pid))
        ended = asyncio.create_task(self._tree.exited())
        try:
            await asyncio.wait({ready, ended}, return_when=asyncio.FIRST_COMPLETED)
            if ready.done():
                ready.result()
        except BaseException:
            self._tree.kill()
            await self._tree.wait()
            raise
        finally:
            ready.cancel()
            ended.cancel()
            await asyncio.wait({ready, ended})

    async def wait(self) -> int:
        """Wait for the end of its whole tree: the status. 0 if it never ran."""
        return 0 if self._tree is None else await self._tree.wait()

    def terminate(self) -> None:
        """SIGTERM, and SIGKILL after the grace."""
        if self._tree is not None:
            self._tree.terminate()

    def kill(self) -> None:
        """SIGKILL to the whole tree."""
        if self._tree is not None:
            self._tree.kill()


def rotate(log: Path, limit: int = LOG_LIMIT) -> None:
    """Rename a log of `limit` bytes or more to ``.1``, over the one before. Only while nobody writes to it."""
    if log.exists() and log.stat().st_size >= limit:
        log.replace(log.with_name(f"{log.name}.1"))
