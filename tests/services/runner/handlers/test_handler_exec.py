"""The exec handler: what a child may write and how it may end, and that the runner outlives all of it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bus.events.invocation import Usage
from services.fleet import spec
from services.runner.failure import HandlerError, classify
from services.runner.handler import Context, FollowUp, Handler, Permanent
from services.runner.handlers import build, childlines, childlog

LIMIT_S = 30.0


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Handler]:
    """Builds a handler for a Python program; `handler` and `role` change their fields."""

    def make(source: str, *, handler: dict[str, Any] | None = None, **role: Any) -> Handler:
        command = spec.ExecHandler(command=(sys.executable, "-I", "-S", "-c", source), **(handler or {}))
        return build(spec.Role(handler=command, **{"grace": 0.2, **role}), tmp_path)

    return make


def say(*lines: str) -> str:
    """A program that prints these lines."""
    return f"print({chr(10).join(lines)!r}, flush=True)\n"


async def test_exec_gets_the_input_and_gives_the_last_result(
    run: Callable[..., Handler], context: Callable[..., Context]
) -> None:
    """The child reads the exact bytes of the input; the last result line is the output, with or without a newline."""
    source = (
        'import sys; i = sys.stdin.read(); print(\'{"result": 1}\'); print(\'{"result": {"got":\' + i + "}}", end="")'
    )
    result = await run(source)(context({"text": "ä"}))
    assert msgspec.json.decode(result.output) == {"got": {"text": "ä"}}


async def test_exec_follows_the_orders_of_the_child(
    run: Callable[..., Handler],
    context: Callable[..., Context],
    notes: list[str],
    kept: dict[str, bytes],
    tmp_path: Path,
) -> None:
    """Progress, use, artifacts and requests are taken from stdout; everything else there is log."""
    (tmp_path / "out.txt").write_bytes(b"content")
    ctx = context()
    result = await run(
        say(
            "plain text", "[1]", '{"level": "info", "progress": "not an order"}', "{broken", '{"progress": 5}',
            '{"progress": "half way"}',
            '{"usage": {"input_tokens": 5, "output_tokens": 2, "model": "m", "cached": 1}}',
            '{"usage": {"output_tokens": 3}}',
            '{"artifact": {"path": "out.txt"}}',
            '{"artifact": {"name": "again", "path": "out.txt", "media_type": "text/plain"}}',
            '{"request": {"role": "shop/b", "input": {"x": 1}, "key": "k"}, "progress": "asked"}',
        )
    )(ctx)  # fmt: skip
    assert bytes(result.output) == b"null"
    assert ctx.spent == Usage(input_tokens=5, output_tokens=5, model="m")
    assert [note for note in notes if note] == ["half way", "asked"]
    assert kept == {"out.txt": b"content", "again": b"content"}
    assert [artifact.media_type for artifact in result.artifacts] == ["application/octet-stream", "text/plain"]
    assert result.follow_ups == (FollowUp(role="shop/b", input=msgspec.Raw(b'{"x": 1}'), idempotency_key="k"),)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ('{"usage": {"input_tokens": -1}}', "bad_usage"),
        ('{"usage": {"input_tokens": 1.5}}', "bad_usage"),
        ('{"usage": {"output_tokens": 1000000000001}}', "bad_usage"),
        ('{"usage": 7}', "bad_usage"),
        ('{"artifact": {"path": "none.txt"}}', "bad_artifact"),
        ('{"artifact": {}}', "bad_artifact"),
        ('{"request": {"role": "no slash"}}', "bad_request"),
        ('{"request": {"role": "a/b", "inptu": 1}}', "bad_request"),
        ('{"result": "\\ud800"}', "bad_result"),
        ('{"result": 1, "other": 2}', "bad_result"),
        ('{"result": "' + "x" * childlines.LINE_LIMIT + '"}', "result_too_large"),
    ],
)
async def test_exec_stops_a_child_that_gives_impossible_orders(
    run: Callable[..., Handler], context: Callable[..., Context], line: str, kind: str
) -> None:
    """An order that cannot be followed ends the child at once and is a failure that says what was expected."""
    source = f"import sys, time; sys.stdout.write({line[:80]!r} + 'x' * {max(len(line) - 80, 0)} + '\\n')"
    source = source if len(line) > 80 else f"import sys, time; sys.stdout.write({line!r} + '\\n')"
    async with asyncio.timeout(LIMIT_S):
        with pytest.raises((HandlerError, Permanent), match="expected") as caught:
            await run(f"{source}; sys.stdout.flush(); time.sleep(1000)")(context())
    assert classify(caught.value)[0].kind == kind


@pytest.mark.parametrize(
    ("source", "kind", "permanent", "words"),
    [
        ("import sys; print('first', file=sys.stderr); sys.exit('the reason')", "exit_1", False, "got: 1 .the reason"),
        ("raise SystemExit(75)", "exit_75", False, "nothing on stderr"),
        ("raise SystemExit(64)", "exit_64", True, "got: 64"),
        ("raise SystemExit(65)", "exit_65", True, "got: 65"),
        ("raise SystemExit(78)", "exit_78", True, "got: 78"),
        ("import os; os.kill(os.getpid(), 9)", "signal_9", False, "signal 9 .SIGKILL"),
    ],
)
async def test_exec_reads_the_end_of_the_child(
    run: Callable[..., Handler], context: Callable[..., Context], *, source: str, kind: str, permanent: bool, words: str
) -> None:
    """Exit codes and signals are failures of their own kind; usage, data and configuration errors are permanent."""
    with pytest.raises(HandlerError, match=words) as caught:
        await run(say('{"result": 1}') + source)(context())
    error, _ = classify(caught.value)
    assert (error.kind, error.permanent) == (kind, permanent)
    assert "stdout.log" in error.detail


@pytest.mark.slow
async def test_exec_survives_a_flood(
    run: Callable[..., Handler],
    context: Callable[..., Context],
    kept: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Floods on both pipes never block the child: the ends are in the failure, the beginnings in artifacts, which say what was cut."""
    monkeypatch.setattr(childlog, "WHOLE_LIMIT", 3_000_000)
    source = (
        "import sys\n"
        "for n in range(40):\n"
        "    sys.stdout.write('o' * 99_999 + '\\n'); sys.stderr.write('e' * 49_999 + '\\n')\n"
        "sys.stdout.write('x' * 3_000_000); sys.stderr.write('the end')\n"
        "sys.exit(1)"
    )
    with pytest.raises(HandlerError) as caught:
        await run(source)(context(["input"] * 50_000))
    detail = classify(caught.value)[0].detail
    assert len(detail) <= 4000
    assert "--- stdout.log, 7,000,000 bytes" in detail
    assert detail.endswith("the end")
    assert kept["stdout.log"][:3_000_000] == (b"o" * 99_999 + b"\n") * 30
    assert kept["stdout.log"][3_000_000:] == b"\n[cut: 7,000,000 bytes were written, the first 3,000,000 are kept]\n"
    assert len(kept["stderr.log"]) == 2_000_007


async def test_exec_takes_a_line_of_any_length_as_log(
    run: Callable[..., Handler], context: Callable[..., Context]
) -> None:
    """A line over the limit is log; the lines after it are orders again."""
    source = f"print('{{' + 'x' * {3 * childlines.LINE_LIMIT})\n" + say('{"result": 2}')
    assert bytes((await run(source)(context())).output) == b"2"


async def test_exec_passes_only_the_allowed_environment(
    run: Callable[..., Handler], context: Callable[..., Context], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The child sees the allowed variables that exist, what the context adds, and its folder; nothing else."""
    monkeypatch.setenv("ALLOWED", "yes")
    monkeypatch.setenv("SECRET", "no")
    (tmp_path / "sub").mkdir()
    source = "import os, json; print(json.dumps({'result': [dict(os.environ), os.getcwd()]}))".replace("json;", "json;")
    handler = run(
        source.replace("import os, json", "import os, json"), handler={"env": ("ALLOWED", "ABSENT"), "cwd": "sub"}
    )
    variables, folder = msgspec.json.decode((await handler(context(environment={"SYSTEMS_PARENT": "p"}))).output)
    variables.pop("LC_CTYPE", None)  # Python's own, in a C locale
    assert variables == {"ALLOWED": "yes", "SYSTEMS_PARENT": "p", "TRACEPARENT": context().traceparent}
    assert folder == str(tmp_path / "sub")


async def test_exec_input_may_stay_unread(run: Callable[..., Handler], context: Callable[..., Context]) -> None:
    """A child that closes its standard input early completes, however large the input is."""
    source = "import os; os.close(0)\n" + say('{"result": 1}')
    assert bytes((await run(source)(context(["x" * 100] * 20_000))).output) == b"1"


async def test_exec_does_not_wait_for_what_the_child_left(
    run: Callable[..., Handler], context: Callable[..., Context]
) -> None:
    """A grandchild that holds stdout open and ignores SIGTERM neither hangs the handler nor survives it."""
    source = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "if os.fork() == 0:\n    os.setsid(); time.sleep(1000)\n" + say('{"result": 1}')
    )
    async with asyncio.timeout(LIMIT_S):
        assert bytes((await run(source)(context())).output) == b"1"


@pytest.mark.parametrize("obeys", [True, False])
async def test_exec_called_off_stops_the_tree(
    run: Callable[..., Handler], context: Callable[..., Context], obeys: bool
) -> None:
    """Cancellation is SIGTERM to the child, which may finish within the grace, and SIGKILL after it; its last words are kept."""
    answer = "lambda *_: (os.write(1, b'bye'), os._exit(0))" if obeys else "signal.SIG_IGN"
    source = f"import os, signal, sys, time\nsignal.signal(signal.SIGTERM, {answer})\n"
    source += 'print(\'{"progress": "pid %d"}\' % os.getpid(), flush=True)\nwhile True: time.sleep(1000)'
    began = asyncio.Event()

    class Notes(list[str]):
        def append(self, note: str) -> None:
            super().append(note)
            if note:
                began.set()

    heard = Notes()
    ctx = context()
    ctx._progress = heard.append
    task = asyncio.ensure_future(run(source, grace=LIMIT_S if obeys else 0.1)(ctx))
    async with asyncio.timeout(LIMIT_S):
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
    assert ("bye" in caught.value.__notes__[0]) is obeys
    with pytest.raises(ProcessLookupError):
        os.kill(int(next(note for note in heard if note).split()[1]), 0)


async def test_exec_called_off_twice_kills_at_once(
    run: Callable[..., Handler], context: Callable[..., Context]
) -> None:
    """A second cancellation does not wait for the grace."""
    began = asyncio.Event()
    ctx = context()
    ctx._progress = lambda note: began.set() if note else None
    source = (
        'import os, signal, time\nsignal.signal(signal.SIGTERM, lambda *_: os.write(1, b\'{"progress": "no"}\\n\'))\n'
    )
    source += say('{"progress": "ready"}') + "while True: time.sleep(1000)"
    task = asyncio.ensure_future(run(source, grace=1000.0)(ctx))
    async with asyncio.timeout(LIMIT_S):
        for _ in range(2):
            await began.wait()
            began.clear()
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.parametrize(
    ("command", "more", "words"),
    [
        ("no-such-command", {}, "on the PATH"),
        ("agent.sh", {}, "write './agent.sh'"),
        ("./agnt.sh", {}, "did you mean 'agent.sh'"),
        ("./agent.sh", {}, r"chmod \+x"),
        ("true", {"cwd": "none"}, "working directory"),
    ],
)
def test_exec_that_cannot_run_is_refused_when_built(
    tmp_path: Path, command: str, more: dict[str, Any], words: str
) -> None:
    """A missing or unfit program or folder is a permanent error with its remedy."""
    (tmp_path / "agent.sh").write_text("#!/bin/sh\n")
    with pytest.raises(Permanent, match=words):
        build(spec.Role(handler=spec.ExecHandler(command=(command,), **more)), tmp_path)


async def test_exec_takes_a_relative_program_from_the_fleet_folder(
    tmp_path: Path, context: Callable[..., Context]
) -> None:
    """A program path with a slash is relative to the fleet file, also when the command runs elsewhere."""
    (tmp_path / "sub").mkdir()
    program = tmp_path / "agent.sh"
    program.write_text("#!/bin/sh\necho '{\"result\": \"'$1'\"}'\n")
    program.chmod(0o755)
    handler = build(spec.Role(handler=spec.ExecHandler(command=("./agent.sh", "argument"), cwd="sub")), tmp_path)
    assert bytes((await handler(context())).output) == b'"argument"'
