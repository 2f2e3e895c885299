"""Start a process tree that cannot outlive this process: the parent's side of :mod:`bus.leash`.

Linux and macOS. Nothing here blocks the loop. The tree is stopped when this process ends in any way, so a parent needs
no cleanup of its own. That holds as long as nobody forks this process without exec (``multiprocessing`` with ``fork``): a copy
of the lifeline keeps the tree alive.

What is not promised: see :mod:`bus.leash`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Self

from bus import leash

__all__ = ["DEVNULL", "PIPE", "STDOUT", "Leashed", "start"]

#: A file, a descriptor, or one of PIPE, DEVNULL and STDOUT.
Stream = int | IO[Any]


def _program() -> str:
    """The leash as compiled by its import above, which starts 3 ms sooner than its source; the source otherwise."""
    compiled = getattr(leash, "__cached__", None)
    return compiled if compiled and Path(compiled).is_file() else str(leash.__file__)


class Leashed:
    """A running tree. Made by :func:`start`."""

    def __init__(self, process: Process, lifeline: int, report: _Report) -> None:
        self._process = process
        self._lifeline = lifeline
        self._report = report

    @property
    def pid(self) -> int:
        """Process id of the leash. To end the tree, signal this one (SIGTERM) or use the methods."""
        return self._process.pid

    @property
    def child_pid(self) -> int:
        """Process id of the program itself, which leads its own session and process group."""
        return self._report.pid

    @property
    def stdin(self) -> asyncio.StreamWriter | None:
        """The program's standard input, if it was asked for as PIPE."""
        return self._process.stdin

    @property
    def stdout(self) -> asyncio.StreamReader | None:
        """The program's standard output, if it was asked for as PIPE. Ends when the tree has closed it."""
        return self._process.stdout

    @property
    def stderr(self) -> asyncio.StreamReader | None:
        """The program's standard error, if it was asked for as PIPE."""
        return self._process.stderr

    @property
    def returncode(self) -> int | None:
        """The program's status as in ``subprocess`` once it ended; its leftovers may still be about. None while it runs."""
        if self._report.status is None and self._process.returncode is not None:
            return -signal.SIGKILL  # the leash was killed, and took the program with it
        return self._report.status

    async def exited(self) -> int:
        """Wait for the program itself: its status. Its leftovers, and what they write, may go on for a moment."""
        await self._report.ended.wait()
        return await self.wait() if self._report.status is None else self._report.status

    async def wait(self) -> int:
        """Wait until the whole tree is gone: the program's status as in ``subprocess`` (negative is a signal).

        -9 also stands for a leash that was itself killed by force, upon which the program's group is killed too.
        """
        await self._report.closed.wait()
        await self._process.wait()
        self._let_go()
        status = self.returncode
        assert status is not None  # the process has ended
        return status

    def terminate(self) -> None:
        """SIGTERM to the program's group, and SIGKILL to the tree after the grace. Again: no effect."""
        self._order(b"T")

    def kill(self) -> None:
        """SIGKILL to the whole tree, now."""
        self._order(b"K")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Terminate the tree and wait for its end; killed at once if the wait is cancelled."""
        self.terminate()
        try:
            await self.wait()
        except asyncio.CancelledError:
            self.kill()
            await self.wait()
            raise

    def _order(self, order: bytes) -> None:
        if self._lifeline >= 0:
            with contextlib.suppress(BrokenPipeError):  # the tree is gone already
                os.write(self._lifeline, order)

    def _let_go(self) -> None:
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1


class _Report:
    """The parent's end of the report pipe."""

    def __init__(self, descriptor: int) -> None:
        self.pid = 0
        self.error = 0
        self.status: int | None = None
        #: The program runs, could not be started, or its leash is gone.
        self.started = asyncio.Event()
        #: The program has ended, or its leash is gone.
        self.ended = asyncio.Event()
        #: The leash is gone.
        self.closed = asyncio.Event()
        self._buffer = b""
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        os.set_blocking(descriptor, False)
        self._loop.add_reader(descriptor, self._read)

    def _read(self) -> None:
        try:
            chunk = os.read(self._descriptor, 4096)
        except BlockingIOError:
            return
        *lines, self._buffer = (self._buffer + chunk).split(b"\n")
        for line in lines:
            word, _, value = line.decode().partition(" ")
            if word == "pid":
                self.pid = int(value)
                self.started.set()
            elif word == "error":
                self.error = int(value)
            elif word == "exit":
                self.status = int(value)
                self.ended.set()
        if not chunk:
            if self.status is None and self.pid:  # the leash was killed: its group is still ours to clear up
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.pid, signal.SIGKILL)
            self.close()

    def close(self) -> None:
        """Nothing more will come, or nobody wants it."""
        if not self.closed.is_set():
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            for event in (self.started, self.ended, self.closed):
                event.set()


async def start(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    stdin: Stream | None = DEVNULL,
    stdout: Stream | None = None,
    stderr: Stream | None = None,
    grace: float = 10.0,
    limit: int = 65536,
) -> Leashed:
    """Start a program on a leash; returns when it runs.

    Args:
        command: program and arguments; looked up on the PATH of `env` unless the program has a slash, and then relative to `cwd`.
        env: the whole environment; None passes this process's own.
        cwd: where it starts; None is where this process is.
        stdin: what it reads; nothing by default.
        stdout: where it writes; None is where this process does.
        stderr: the same for its errors.
        grace: seconds between SIGTERM and SIGKILL.
        limit: bytes that a PIPE's reader holds before it stops reading.

    Raises:
        OSError: the program or `cwd` cannot be used (FileNotFoundError, PermissionError ...), as from ``subprocess``.
    """
    lifeline_read, lifeline = os.pipe()
    report_read, report_write = os.pipe()
    report = _Report(report_read)
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", _program(), str(lifeline_read), str(report_write), repr(grace), *command,
            env=env, cwd=cwd, stdin=stdin, stdout=stdout, stderr=stderr, limit=limit,
            pass_fds=(lifeline_read, report_write),
            start_new_session=True,  # the terminal's Ctrl-C is the parent's to handle
        )  # fmt: skip
    except BaseException:
        os.close(lifeline)
        report.close()
        raise
    finally:
        os.close(lifeline_read)
        os.close(report_write)
    leashed = Leashed(process, lifeline, report)
    try:
        await report.started.wait()
    except BaseException:
        leashed.kill()
        await leashed.wait()
        raise
    if report.pid == 0:
        status = await leashed.wait()
        if report.error:
            raise OSError(report.error, os.strerror(report.error), command[0])
        raise ChildProcessError(
            f"expected the leash of {command[0]!r} to start it, got: the leash ended with status {status}"
        )
    return leashed
