"""Handler ``exec``: any command. JSON in on stdin, JSON lines out on stdout.

A line of stdout that is a JSON object with nothing but these keys is an order, and every other line is log::

    {"progress": "text"}                                                          shown to people who watch
    {"usage": {"input_tokens": N, "output_tokens": N, "model": "…"}}              added up
    {"artifact": {"name": "…", "path": "…", "media_type": "…"}}                   kept; the path is relative to its folder
    {"request": {"role": "project/role", "input": …, "key": "…"}}                 asked for if the work completes
    {"result": …}                                                                 the output; the last one wins

Everything that is written counts as progress. Exit codes: 0 completes (without a result the output is null); 64, 65 and 78
(usage, data, configuration, as in sysexits.h) are permanent; all others and signals are transient. 75, with which
``systems gate`` ends when it refuses, costs no attempt where a guard did refuse the work meanwhile. The process tree is on a
leash: it ends with the command, at the latest a second later, and with the runner; when the work is called off it gets
SIGTERM and the role's grace.

What is dropped: of each stream the middle beyond :data:`~services.runner.handlers.childlog.WHOLE_LIMIT`. What blocks: a child
that writes faster than its artifacts are kept waits. What is not promised: that a tree which the kernel cannot end is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from pathlib import Path

from bus import leashed
from bus.errors import did_you_mean
from bus.refusal import EXIT_LATER
from services.fleet import spec
from services.runner.failure import DETAIL_LIMIT, HandlerError
from services.runner.handler import Context, Permanent, Result
from services.runner.handlers.childlines import ChildLines
from services.runner.handlers.childlog import ChildLog

#: Exit codes of sysexits.h that no retry can mend: EX_USAGE, EX_DATAERR, EX_CONFIG.
PERMANENT_EXITS = frozenset({64, 65, 78})
#: Characters of each stream's end that go into a failure; together they fill its detail.
STDERR_TAIL, STDOUT_TAIL = 2_400, DETAIL_LIMIT - 2_400 - 100
#: Bytes read at once.
_CHUNK = 65_536
#: Seconds that called-off work gets for what it still has to keep, after its tree is gone.
_KEEP_S = 5.0


class ExecRunner:
    """Runs one role's command, once per invocation."""

    def __init__(self, handler: spec.ExecHandler, role: spec.Role, folder: Path) -> None:
        self._folder = (folder / handler.cwd).resolve()
        if not self._folder.is_dir():
            raise Permanent(f"expected the working directory of an exec role to be a folder, got: {self._folder}")
        # Variables that the runner does not have either are left out.
        self._environment = {name: os.environ[name] for name in handler.env if name in os.environ}
        self._name = handler.command[0]
        self._command = (_program(handler.command[0], folder, self._environment), *handler.command[1:])
        self._grace = role.grace

    async def __call__(self, context: Context) -> Result:
        """Run the command to its end.

        Raises:
            HandlerError: ``exit_N``, ``signal_N``, or an order that cannot be followed.
            OSError: the command could not be started just now.
        """
        with ChildLog("stdout.log", STDOUT_TAIL) as out, ChildLog("stderr.log", STDERR_TAIL) as err:
            tree = await leashed.start(
                self._command, env={**self._environment, **context.environment}, cwd=self._folder, grace=self._grace,
                stdin=leashed.PIPE, stdout=leashed.PIPE, stderr=leashed.PIPE,
            )  # fmt: skip
            lines = ChildLines(context, self._folder)
            pumps = (
                asyncio.create_task(_feed(tree, bytes(context.input))),
                asyncio.create_task(_follow(tree, out, lines)),
                asyncio.create_task(_listen(tree, err, context)),
            )
            ended = asyncio.create_task(tree.exited())
            try:
                async with tree:
                    # Also when a pump breaks: a child whose pipes nobody serves would never end.
                    await asyncio.wait((ended, *pumps), return_when=asyncio.FIRST_EXCEPTION)
                await asyncio.gather(*pumps)
            except asyncio.CancelledError as stop:
                await self._called_off(stop, pumps, context, out, err)
                raise
            finally:
                for task in (ended, *pumps):
                    task.cancel()
                await asyncio.wait((ended, *pumps))
            await _keep(context, out, err)
            self._judge(await tree.wait(), lines.error, out, err)
            return Result(
                output=lines.result,
                follow_ups=tuple(lines.follow_ups),
                artifacts=tuple(context.kept),
                tail=_detail(out, err),
            )

    async def _called_off(
        self, stop: BaseException, pumps: tuple[asyncio.Task[None], ...], context: Context, out: ChildLog, err: ChildLog
    ) -> None:
        """The tree is gone: take what it said last, for the people who want to know why it hung."""
        await asyncio.wait(pumps, timeout=_KEEP_S)
        stop.add_note(_detail(out, err))
        try:
            async with asyncio.timeout(_KEEP_S):
                await _keep(context, out, err)
        except Exception as exc:  # noqa: BLE001 - it must not hide why the work was called off
            stop.add_note(f"the logs of {self._name} could not be kept: {exc!r}")

    def _judge(self, status: int, error: Exception | None, out: ChildLog, err: ChildLog) -> None:
        """Raise what the end of the command means, if it is no success."""
        detail = _detail(out, err)
        if error is not None:
            if isinstance(error, HandlerError) and not error.detail:
                error.detail = detail
            raise error
        if status == 0:
            return
        last = next((line.strip() for line in reversed(err.tail.splitlines()) if line.strip()), "nothing on stderr")
        if status < 0:
            with contextlib.suppress(ValueError):  # a real-time signal has no name
                last = f"{signal.Signals(-status).name}; {last}"
            message = f"expected {self._name} to exit with 0, but it was killed by signal {-status} ({last[:500]})"
            raise HandlerError(f"signal_{-status}", message, detail=detail)
        raise HandlerError(
            f"exit_{status}",
            f"expected {self._name} to exit with 0, got: {status} ({last[:500]})",
            detail=detail,
            permanent=status in PERMANENT_EXITS,
            guarded=status == EXIT_LATER,
        )

    async def close(self) -> None:
        """Nothing to give back: each call ends its own tree."""


async def _feed(tree: leashed.Leashed, content: bytes) -> None:
    """Write the input; a child that does not read it to the end is within its rights."""
    assert tree.stdin is not None  # asked for as PIPE
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        tree.stdin.write(content)
        await tree.stdin.drain()
    tree.stdin.close()


async def _follow(tree: leashed.Leashed, log: ChildLog, lines: ChildLines) -> None:
    """Read stdout to its end, whatever happens: a child must never wait for a reader that gave up."""
    assert tree.stdout is not None  # asked for as PIPE
    while chunk := await tree.stdout.read(_CHUNK):
        log.write(chunk)
        if lines.error is None and not await lines.take(chunk):
            tree.terminate()
    if lines.error is None:
        await lines.end()


async def _listen(tree: leashed.Leashed, log: ChildLog, context: Context) -> None:
    assert tree.stderr is not None  # asked for as PIPE
    while chunk := await tree.stderr.read(_CHUNK):
        log.write(chunk)
        context.progress()


async def _keep(context: Context, *logs: ChildLog) -> None:
    for log in logs:
        if log.is_cut:
            await context.artifact(log.name, log.whole(), "text/plain; charset=utf-8")


def _detail(out: ChildLog, err: ChildLog) -> str:
    parts = [f"--- {log.name}, {log.size:,} bytes\n{log.tail}" for log in (out, err) if log.size]
    return "\n".join(parts)


def _program(name: str, folder: Path, environment: dict[str, str]) -> str:
    """The program's path.

    Raises:
        Permanent: there is none, or it cannot be executed.
    """
    if "/" not in name:
        found = shutil.which(name, path=environment.get("PATH", os.defpath))
        if found is None:
            remedy = f"; write './{name}' for the one beside the fleet file" if (folder / name).is_file() else ""
            where = environment.get("PATH", os.defpath)
            raise Permanent(f"expected a command on the PATH of the runner ({where}), got: {name!r}{remedy}")
        return found
    path = folder / name
    if not path.is_file():
        known = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        raise Permanent(f"expected a program at {path}, found none{did_you_mean(path.name, known)}")
    if not os.access(path, os.X_OK):
        raise Permanent(f"expected {path} to be executable; make it so with: chmod +x {path}")
    return str(path.resolve())
