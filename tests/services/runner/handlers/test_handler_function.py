"""The function handler: how it finds, calls and survives a callable."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from services.fleet import spec
from services.runner.failure import HandlerError, classify
from services.runner.handler import Context, Handler, Permanent
from services.runner.handlers import build

LIMIT_S = 30.0
_numbers = itertools.count()

MODULE = """
import asyncio, functools, sys, threading
from services.runner.handler import FollowUp, Result
entered = threading.Event()
let_go = threading.Event()

async def coroutine(input, ctx): return {"got": input, "attempt": ctx.attempt}
def plain(input): return [input, threading.current_thread() is threading.main_thread()]
def second_default(input, verbose=False): return verbose
def named(input, ctx=None): return ctx is not None
def anything(*arguments): return len(arguments)
def none(input): return None
def awaitable(input): return asyncio.sleep(0, "awaited")
class Instance:
    async def __call__(self, input): return "instance"
    def method(self, input, ctx): return "method"
instance = Instance()
partial = functools.partial(coroutine, ctx=None)
def follow(input, ctx):
    return Result(output={"n": 1}, follow_ups=[FollowUp(role="shop/b", input={"x": 1}, idempotency_key="k")])
def wrong_follow(input): return Result(follow_ups=["shop/b"])
def generator(input): yield 1
def unencodable(input): return {"x": object()}
def surrogate(input): return "\\ud800"
def raises(input): raise ValueError("bad luck")
def leaves(input): sys.exit(3)
async def leaves_async(input): sys.exit(3)
def interrupts(input): raise KeyboardInterrupt
async def interrupts_async(input): raise KeyboardInterrupt
def stops(input): raise StopIteration
def cancels(input): raise asyncio.CancelledError
async def cancels_async(input): raise asyncio.CancelledError
def asks(input, ctx):
    ctx.progress("asking")
    reference = ctx.artifact_sync("log", b"text")
    return [ctx.request_sync("shop/b", {"n": input}, key="k"), reference.size]
async def asks_async(input, ctx): return await ctx.request("shop/b")
async def asks_wrongly(input, ctx): return ctx.request_sync("shop/b")
def hangs(input, ctx):
    entered.set()
    let_go.wait()
    return ctx.cancelled
async def hangs_async(input, ctx):
    entered.set()
    await asyncio.Event().wait()
def two_more(input, ctx, third): ...
def nothing(): ...
number = 5
builtin = str
"""


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Handler]:
    """Builds a handler for a name in a fresh module beside the fleet file."""
    module = f"agents_{os.getpid()}_{next(_numbers)}"
    (tmp_path / f"{module}.py").write_text(MODULE)

    def build_one(name: str, **more: Any) -> Handler:
        return build(spec.Role(handler=spec.FunctionHandler(target=f"{module}:{name}"), **more), tmp_path)

    return build_one


@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("coroutine", {"got": 7, "attempt": 2}),
        ("plain", [7, False]),
        ("second_default", False),
        ("named", True),
        ("anything", 2),
        ("none", None),
        ("awaitable", "awaited"),
        ("instance", "instance"),
        ("instance.method", "method"),
        ("builtin", "7"),
    ],
)
async def test_function_gets_input_and_gives_output(
    make: Callable[..., Handler], context: Callable[..., Context], name: str, output: Any
) -> None:
    """Async functions run on the loop, others in a thread, with the context if they want it; what they return is the output."""
    result = await make(name)(context(7))
    assert msgspec.json.decode(result.output) == output


async def test_function_returns_follow_ups(make: Callable[..., Handler], context: Callable[..., Context]) -> None:
    """A Result keeps its follow-ups, and its plain values become JSON."""
    result = await make("follow")(context())
    (follow_up,) = result.follow_ups
    assert (bytes(result.output), bytes(follow_up.input), follow_up.role) == (b'{"n":1}', b'{"x":1}', "shop/b")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("generator", "generator"),
        ("unencodable", "dict .*object"),
        ("surrogate", "str"),
        ("wrong_follow", "FollowUp.* str"),
    ],
)
async def test_function_result_must_be_json(
    make: Callable[..., Handler], context: Callable[..., Context], name: str, words: str
) -> None:
    """What JSON cannot hold is refused for good, naming its type."""
    with pytest.raises(Permanent, match=words):
        await make(name)(context())


@pytest.mark.parametrize(
    ("name", "kind"),
    [("raises", "ValueError"), ("leaves", "SystemExit"), ("leaves_async", "SystemExit"), ("interrupts", "KeyboardInterrupt"),
     ("interrupts_async", "KeyboardInterrupt"), ("stops", "StopIteration"), ("cancels", "CancelledError"),
     ("cancels_async", "CancelledError")],
)  # fmt: skip
async def test_function_cannot_take_the_runner_along(
    make: Callable[..., Handler], context: Callable[..., Context], name: str, kind: str
) -> None:
    """Whatever it raises, exits and interrupts included, is an ordinary failure of its kind."""
    async with asyncio.timeout(LIMIT_S):
        with pytest.raises(Exception) as caught:  # noqa: PT011 - that it is an Exception at all is the fact
            await make(name)(context())
    assert classify(caught.value)[0].kind == kind


async def test_function_in_a_thread_can_ask_and_keep(
    make: Callable[..., Handler],
    context: Callable[..., Context],
    notes: list[str],
    asked: list[Any],
    kept: dict[str, bytes],
) -> None:
    """Requests, artifacts and progress work from a thread."""
    result = await make("asks")(context(1))
    assert msgspec.json.decode(result.output) == ["id-1", 4]
    assert asked == [("shop/b", {"n": 1}, "k")]
    assert kept == {"log": b"text"}
    assert "asking" in notes


async def test_function_on_the_loop_asks_by_awaiting(
    make: Callable[..., Handler], context: Callable[..., Context]
) -> None:
    """An async function awaits its requests; the blocking call would stop the loop and is refused with the remedy."""
    assert bytes((await make("asks_async")(context())).output) == b'"id-1"'
    with pytest.raises(RuntimeError, match=r"await ctx\.request"):
        await make("asks_wrongly")(context())


@pytest.mark.parametrize("name", ["hangs", "hangs_async"])
async def test_function_that_hangs_can_be_called_off(
    make: Callable[..., Handler], context: Callable[..., Context], name: str
) -> None:
    """Cancellation comes back at once; the thread learns of it by ctx.cancelled, and its place goes to other work."""
    handler, ctx = make(name, concurrency=1), context()
    names = getattr(handler, "_function").__globals__  # noqa: B009 - the module's own events, whatever the class
    for _ in range(2):
        names["entered"].clear()
        task = asyncio.ensure_future(handler(ctx))
        assert await asyncio.to_thread(names["entered"].wait, LIMIT_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ctx.cancelled
    names["let_go"].set()
    for thread in threading.enumerate():
        if thread.name.endswith(":hangs"):
            await asyncio.to_thread(thread.join, LIMIT_S)


async def test_function_stops_starting_threads_that_hang(
    make: Callable[..., Handler], context: Callable[..., Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A role whose threads hang one after the other is refused new ones with the remedy."""
    monkeypatch.setattr("services.runner.handlers.function.ABANDONED_LIMIT", 1)
    handler = make("hangs")
    names = getattr(handler, "_function").__globals__  # noqa: B009 - as above
    task = asyncio.ensure_future(handler(context()))
    assert await asyncio.to_thread(names["entered"].wait, LIMIT_S)
    task.cancel()
    await asyncio.wait([task])
    with pytest.raises(HandlerError, match="restart the runner") as caught:
        await handler(context())
    assert caught.value.kind == "threads_hang"
    names["let_go"].set()


async def test_function_sees_the_context_variables_of_its_work(context: Callable[..., Context], tmp_path: Path) -> None:
    """Context variables (log bindings) reach the thread."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    (tmp_path / "seen.py").write_text(
        "def look(input): return {v.name: x for v, x in __import__('contextvars').copy_context().items()}.get('variable')"
    )
    variable.set("here")
    handler = build(spec.Role(handler=spec.FunctionHandler(target="seen:look")), tmp_path)
    assert bytes((await handler(context())).output) == b'"here"'


@pytest.mark.parametrize(
    ("name", "words"),
    [("corutine", "did you mean 'coroutine'"), ("instance.metod", "did you mean 'method'"), ("number", "callable, got: int"),
     ("two_more", r"take \(input\) or \(input, ctx\), got: two_more\(input, ctx, third\)"), ("nothing", r"got: nothing\(\)")],
)  # fmt: skip
def test_function_that_cannot_be_called_is_refused_when_built(
    make: Callable[..., Handler], name: str, words: str
) -> None:
    """A missing or unfit callable is a permanent error that says what is there instead."""
    with pytest.raises(Permanent, match=words):
        make(name)


@pytest.mark.parametrize(
    ("target", "content", "words"),
    [
        ("no_colon", "", "module:callable"),
        ("workerz_here:run", "", "did you mean 'workers_here'"),
        ("broken_syntax:run", "def", "SyntaxError"),
        ("missing_import:run", "import surely_not_installed", "surely_not_installed.*install"),
        ("exits:run", "raise SystemExit(1)", "SystemExit"),
    ],
)
def test_function_module_that_cannot_be_imported_is_refused(
    tmp_path: Path, target: str, content: str, words: str
) -> None:
    """A missing or broken module is a permanent error that says why, even if the module tries to exit."""
    (tmp_path / "workers_here.py").write_text("def run(input): ...")
    if content:
        (tmp_path / f"{target.partition(':')[0]}.py").write_text(content)
    with pytest.raises(Permanent, match=words):
        build(spec.Role(handler=spec.FunctionHandler(target=target)), tmp_path)
