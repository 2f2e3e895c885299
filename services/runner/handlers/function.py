"""Handler ``function``: a Python callable in the runner's own process, async on its loop, sync in a thread.

It is called with ``(input, ctx)``, the input as plain Python values; a callable with one parameter gets the input alone.
`ctx` goes to the second parameter if that has no default or is called ``ctx`` or ``context``. It returns None, a value
that JSON can hold, or a :class:`~services.runner.handler.Result`.

What blocks: an async function that computes or calls blocking code holds up every other handler of the runner. What is not
promised: a thread cannot be stopped. When its work is called off, the function runs on by itself, its result is dropped, and
``ctx.cancelled`` tells it to stop; its place is given to other work, until too many such threads run. A module is loaded
once: a runner that shall see a changed one must be restarted.
"""

from __future__ import annotations

import asyncio
import contextvars
import importlib
import inspect
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bus.errors import did_you_mean
from services.fleet import spec
from services.runner.failure import HandlerError
from services.runner.handler import Context, Permanent, Result
from services.runner.handlers import output

#: Threads that run on although their work was called off, beyond which a role starts no more: each holds a stack and
#: whatever it locked, and only a restart of the runner ends it.
ABANDONED_LIMIT = 16
_CONTEXT_NAMES = ("ctx", "context")


class FunctionRunner:
    """Calls one role's function."""

    def __init__(self, handler: spec.FunctionHandler, role: spec.Role, folder: Path) -> None:
        self._target = handler.target
        self._function = _find(handler.target, folder)
        self._takes_context = _takes_context(self._function, handler.target)
        self._async = any(inspect.iscoroutinefunction(f) for f in (self._function, type(self._function).__call__))
        self._slots = asyncio.Semaphore(role.concurrency)
        self._abandoned: set[threading.Thread] = set()

    async def __call__(self, context: Context) -> Result:
        """Call the function and take its result.

        Raises:
            Permanent: what it returned cannot be JSON.
            HandlerError: it tried to end the process, or it is not started because too many of its threads hang.
            Exception: whatever it raised.
        """
        arguments = (context.json(), context) if self._takes_context else (context.json(),)
        try:
            value = await (self._function(*arguments) if self._async else self._in_thread(arguments, context))
            if inspect.isawaitable(value):
                value = await value
        except asyncio.CancelledError as exc:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                context.cancelled = True
                raise
            raise self._understood(exc, "it was not told to stop") from exc
        except (SystemExit, KeyboardInterrupt, GeneratorExit) as exc:
            # Left alone, these would end the runner and all that it runs.
            raise self._understood(exc, "only its own work can fail, the runner goes on") from exc
        return output.result(value, f"the result of {self._target}")

    def _understood(self, exc: BaseException, why: str) -> HandlerError:
        return HandlerError(
            type(exc).__name__,
            f"expected {self._target} to return or to raise an error, got: {exc!r}; {why}",
            detail="",
        )

    async def _in_thread(self, arguments: tuple[Any, ...], context: Context) -> Any:
        self._abandoned = {thread for thread in self._abandoned if thread.is_alive()}
        if len(self._abandoned) >= ABANDONED_LIMIT:
            raise HandlerError(
                "threads_hang",
                f"expected fewer than {ABANDONED_LIMIT} called-off calls of {self._target} still to run in this runner, "
                f"got: {len(self._abandoned)}; restart the runner, and let the function look at ctx.cancelled",
            )
        async with self._slots:
            loop = context.loop = asyncio.get_running_loop()
            call = _Call(self._function, arguments, loop)
            # A daemon, or a function that hangs would keep the runner from exiting.
            thread = threading.Thread(target=call.run, name=self._target, daemon=True)
            thread.start()
            try:
                await call.done.wait()
            except asyncio.CancelledError:
                context.cancelled = True
                self._abandoned.add(thread)
                raise
        if isinstance(call.error, StopIteration):
            raise self._understood(call.error, "a coroutine cannot pass it on") from call.error
        if call.error is not None:
            raise call.error
        return call.value

    async def close(self) -> None:
        """Nothing to give back: threads that run on end by themselves, or with the process."""


class _Call:
    """One call in a thread. Its outcome is kept here because a future takes neither SystemExit nor StopIteration."""

    def __init__(
        self, function: Callable[..., Any], arguments: tuple[Any, ...], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._function, self._arguments, self._loop = function, arguments, loop
        self._variables = contextvars.copy_context()
        self.done = asyncio.Event()
        self.value: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        """In the thread: call, and tell the loop."""
        try:
            self.value = self._variables.run(self._function, *self._arguments)
        except BaseException as exc:  # noqa: BLE001 - whatever it raised is its outcome
            self.error = exc
        if not self._loop.is_closed():  # a called-off function may outlive the runner's loop
            self._loop.call_soon_threadsafe(self.done.set)


def _find(target: str, folder: Path) -> Callable[..., Any]:
    module_name, colon, path = target.partition(":")
    if not colon or not module_name or not path:
        raise Permanent(f"expected a function as module:callable, got: {target!r}")
    value: Any = _load(module_name, target, folder)
    for name in path.split("."):
        try:
            value = getattr(value, name)
        except AttributeError as exc:
            known = [other for other in dir(value) if not other.startswith("_")]
            raise Permanent(f"unknown name {name!r} in function {target!r}{did_you_mean(name, known)}") from exc
    if not callable(value):
        raise Permanent(f"expected {target!r} to be callable, got: {type(value).__name__}")
    function: Callable[..., Any] = value
    return function


def _load(name: str, target: str, folder: Path) -> Any:
    place = str(folder.resolve())
    if place not in sys.path:
        sys.path.insert(0, place)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not f"{name}.".startswith(f"{exc.name}."):
            raise Permanent(
                f"module {name!r} of function {target!r} cannot be imported: {exc}; install what it imports"
            ) from exc
        known = [path.stem for path in folder.glob("*.py")]
        raise Permanent(
            f"unknown module {name!r} of function {target!r}, looked for in {place}{did_you_mean(name, known)}"
        ) from exc
    except BaseException as exc:
        if isinstance(exc, asyncio.CancelledError):
            raise
        # A module may raise anything, SystemExit too, and must not take the runner along.
        raise Permanent(
            f"module {name!r} of function {target!r} cannot be imported: {type(exc).__name__}: {exc}"
        ) from exc


def _takes_context(function: Callable[..., Any], target: str) -> bool:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except ValueError:  # some built-in functions keep theirs a secret
        return False
    places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    many = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    needed = [p for p in places if p.default is p.empty]
    keywords = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    if len(needed) > 2 or keywords or not (places or many):
        shape = f"{target.partition(':')[2]}{inspect.signature(function)}"
        raise Permanent(f"expected function {target!r} to take (input) or (input, ctx), got: {shape}")
    if len(places) < 2:
        return many
    return len(needed) == 2 or places[1].name in _CONTEXT_NAMES
