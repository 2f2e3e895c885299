"""Commands for the fleet as a whole: up, down, start, status, watch, replay, run. Each returns its exit status."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import msgspec
from rich.console import Console
from rich.live import Live

from bus import errors, leashed
from bus.liveness import Heartbeat
from services.app import requests_of, run_launcher
from services.cli import panel as drawing
from services.cli.session import Session, session
from services.fleet.file import load
from services.health import Panel, State, Verdict, gather
from services.home import Home, resolve
from services.launcher import control
from services.launcher.control import Phase
from services.logs import configure
from services.replay import Replay, Tally
from services.replay_file import TraceRow, read_trace

Output = Literal["text", "json"]

#: The fleet that ships with the project, and the trace beside it.
EXAMPLE = Path(__file__).parents[2] / "infra" / "example" / "fleet.toml"
TRACE = EXAMPLE.parent / "azure-llm-2023-code.csv"
EXAMPLE_ROLE = "shop/coder"
EXAMPLE_SPEED = 200.0
#: Seconds that a fleet has to come up, and to go down beyond the longest grace of its roles.
_READY_S = 60.0
#: Seconds between two looks at something that is about to change.
_LOOK_S = 0.1

_EXIT = {Verdict.NOMINAL: 0, Verdict.CONCERN: 1, Verdict.ULTRA: 2}


def fleet_file(given: Path | None) -> Path:
    """The fleet file that is meant: the given one, ``fleet.toml`` in the working directory, else the example."""
    if given is not None:
        return given.resolve()
    here = Path("fleet.toml")
    return here.resolve() if here.is_file() else EXAMPLE


def up(*, fleet: Path | None = None, detach: bool = False, home: Path | None = None) -> int:
    """Start a fleet: server, launcher, daemons.

    Parameters
    ----------
    fleet: the fleet file; default: fleet.toml here, else the example that ships with the project
    detach: return when everything is ready, and leave it running
    home: state directory; default $SYSTEMS_HOME, else .systems
    """
    place, file = resolve(home, os.environ), fleet_file(fleet)
    load(file)  # every mistake is told here, and not in a log
    if place.launcher() is not None:
        print(f"the fleet of {place.path} is up already: systems status")
        return 0
    if detach:
        place.prepare()
        process = _spawn(place, file)
        try:
            asyncio.run(_until_ready(place, process))
        except errors.BusError:
            process.terminate()
            raise
        print(f"the fleet of {place.path} is up: systems status, systems down")
        return 0
    configure()
    asyncio.run(run_launcher(place, file))
    return 0


def _spawn(place: Home, file: Path) -> subprocess.Popen[bytes]:
    """The launcher as a process of its own session, that outlives us."""
    with (place.logs / "launcher.log").open("ab") as out:
        return subprocess.Popen(
            launcher_command(place, file),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )


def launcher_command(place: Home, file: Path) -> list[str]:
    """How the launcher is started as a process."""
    return [sys.executable, "-m", "services.app", "launcher", "--home", str(place.path), "--fleet", str(file)]


async def _until_ready(place: Home, process: subprocess.Popen[bytes] | None) -> None:
    """Wait until the launcher is ready and every child of it has given a sign of life.

    Raises:
        HomeUnusable: the launcher ended, or was not ready in time; with the last line that it logged.
    """
    deadline = asyncio.get_running_loop().time() + _READY_S
    while asyncio.get_running_loop().time() < deadline:
        if process is not None and process.poll() is not None:
            raise errors.HomeUnusable(f"the launcher ended with status {process.returncode}: {_last_words(place)}")
        try:
            answer = await control.ask(place, control.Status())
        except errors.BusError:
            await asyncio.sleep(_LOOK_S)
            continue
        if answer.phase is Phase.READY:
            names = {child.name for child in answer.children} - {"nats-server"}
            async with session(place) as at:
                beats: list[Heartbeat] = await at.bus.liveness.all()
            if names <= {beat.instance for beat in beats}:
                return
        await asyncio.sleep(_LOOK_S)
    raise errors.HomeUnusable(f"expected the fleet to be ready within {_READY_S:g} s; see {place.logs}")


def _last_words(place: Home) -> str:
    lines = (place.logs / "launcher.log").read_text(errors="replace").strip().splitlines()
    if not lines:
        return f"it logged nothing in {place.logs / 'launcher.log'}"
    try:
        said = msgspec.json.decode(lines[-1], type=dict[str, object])
    except msgspec.DecodeError:
        return lines[-1]
    return str(said.get("error") or said.get("event") or lines[-1])


def down(*, home: Path | None = None) -> int:
    """Stop a fleet: runners drain, then daemons and server end in reverse order. Nothing is lost.

    Parameters
    ----------
    home: state directory; default $SYSTEMS_HOME, else .systems
    """
    place = resolve(home, os.environ)
    record = place.launcher()
    if record is None:
        print(f"no fleet runs in {place.path}")
        return 0
    asyncio.run(_shut_down(place))
    print(f"the fleet of {place.path} is down")
    return 0


async def _shut_down(place: Home) -> None:
    record = place.launcher()
    try:
        await control.ask(place, control.Shutdown())
    except errors.BusError:
        # Too early or too late for its socket: the signal says the same.
        if record is not None and place.launcher() is not None:
            os.kill(record.pid, signal.SIGTERM)
    while place.launcher() is not None:
        await asyncio.sleep(_LOOK_S)


def start(name: str = "", *, home: Path | None = None) -> int:
    """Bring a daemon back that the launcher has given up on, or that was stopped.

    Parameters
    ----------
    name: the daemon as `systems status` shows it; all that are down if left out
    home: state directory; default $SYSTEMS_HOME, else .systems
    """
    place = resolve(home, os.environ)
    if place.launcher() is None:
        raise errors.HomeUnusable(f"no launcher runs in {place.path}; start the fleet: systems up --home {place.path}")
    answer = asyncio.run(control.ask(place, control.Start(name)))
    if not answer.ok:
        raise errors.Conflict(answer.error)
    for child in answer.children:
        print(f"{child.name}  {child.state}")
    return 0


def status(*, home: Path | None = None, server: str | None = None, context: str | None = None, output: Output = "text") -> int:
    """Show the fleet-health panel. Exit status: 0 nominal, 1 concern, 2 ultra.

    Parameters
    ----------
    home: state directory; default $SYSTEMS_HOME, else .systems
    server: URL of another server
    context: name of a nats context
    output: text or json
    """
    view = asyncio.run(_status(resolve(home, os.environ), server, context))
    if output == "json":
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(view)) + b"\n")
    else:
        Console().print(drawing.panel(view))
    return _EXIT[view.verdict]


async def _status(place: Home, server: str | None, context: str | None) -> Panel:
    async with session(place, server=server, context=context) as at:
        return await gather(at.bus, at.registry)


def watch(
    *, home: Path | None = None, server: str | None = None, context: str | None = None, every: float = 1.0
) -> int:
    """Show the panel and keep it up to date until Ctrl-C.

    Parameters
    ----------
    home: state directory; default $SYSTEMS_HOME, else .systems
    server: URL of another server
    context: name of a nats context
    every: seconds between two looks
    """
    asyncio.run(_watch(resolve(home, os.environ), server, context, every))
    return 0


async def _watch(place: Home, server: str | None, context: str | None, every: float) -> None:
    async with session(place, server=server, context=context) as at:
        await _show_until(at, None, every, asyncio.Event())


async def _show_until(at: Session, tally: Tally | None, every: float, over: asyncio.Event) -> None:
    """Draw the panel again and again: in place on a terminal, as one line each time elsewhere."""
    console = Console()
    if not console.is_terminal:
        while not over.is_set():
            print(_line(await gather(at.bus, at.registry), tally), flush=True)
            await _pause(over, every)
        return
    with Live(console=console, auto_refresh=False, screen=False) as live:
        while not over.is_set():
            try:
                live.update(drawing.panel(await gather(at.bus, at.registry), tally), refresh=True)
            except errors.BusUnreachable as exc:
                live.update(f"[bold yellow]{exc}[/]", refresh=True)
            await _pause(over, every)
        live.update(drawing.panel(await gather(at.bus, at.registry), tally), refresh=True)


async def _pause(over: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(over.wait(), seconds)
    except TimeoutError:
        return


def _line(view: Panel, tally: Tally | None) -> str:
    alive = sum(1 for line in view.daemons if line.state is State.ALIVE)
    said = [
        f"{view.at:%H:%M:%S} {view.verdict.value}",
        f"{alive} of {len(view.daemons)} daemons alive",
        f"backlog {sum(r.backlog for r in view.roles):,}",
        f"in flight {sum(r.in_flight for r in view.roles):,}",
        f"dead letters {view.dead_letters:,}",
    ]
    if tally is not None:
        said.append(f"{tally.requested:,} requested, {tally.completed:,} completed")
        said.append(f"{tally.input_tokens:,} + {tally.output_tokens:,} tokens")
    return " | ".join(said)


def replay(
    file: Path,
    *,
    role: str,
    speed: str = "1",
    wait: bool = False,
    limit: int = 0,
    home: Path | None = None,
    server: str | None = None,
    context: str | None = None,
    output: Output = "text",
) -> int:
    """Ask a role for every row of a recorded trace, at its recorded time.

    Parameters
    ----------
    file: a trace in the format of the Azure LLM inference traces
    role: PROJECT/ROLE that is asked; its input is {"input_tokens": N, "output_tokens": N}
    speed: how many times faster than recorded, or max
    wait: wait until every invocation has ended, and compare the sums
    limit: only the first rows; 0 is all
    home: state directory; default $SYSTEMS_HOME, else .systems
    server: URL of another server
    context: name of a nats context
    output: text or json
    """
    factor = _speed(speed)
    rows = list(_rows(file, limit))
    tally = asyncio.run(_replay(resolve(home, os.environ), server, context, rows, role, factor, wait=wait))
    if output == "json":
        sys.stdout.buffer.write(msgspec.json.encode(tally) + b"\n")
    else:
        Console().print(drawing.replay_line(tally))
    return 0 if not wait or matches(tally) else 2


def _rows(file: Path, limit: int) -> list[TraceRow]:
    rows: list[TraceRow] = []
    for row in read_trace(file):
        rows.append(row)
        if len(rows) == limit:
            break
    return rows


def _speed(text: str) -> float | None:
    if text == "max":
        return None
    try:
        factor = float(text)
    except ValueError:
        factor = 0.0
    if not 0 < factor < float("inf"):
        raise ValueError(f"expected --speed to be a positive number or max, got: {text!r}")
    return factor


def matches(tally: Tally) -> bool:
    """Every request completed, and the completed token sums are those that were asked for."""
    return (
        tally.completed == tally.requested
        and tally.input_tokens == tally.asked_input_tokens
        and tally.output_tokens == tally.asked_output_tokens
    )


async def _replay(
    place: Home,
    server: str | None,
    context: str | None,
    rows: list[TraceRow],
    role: str,
    speed: float | None,
    *,
    wait: bool,
) -> Tally:
    async with session(place, server=server, context=context) as at:
        return await Replay(at.bus, requests_of(at.bus, at.registry), role, rows, speed=speed).run(wait=wait)


def run(*, fleet: Path | None = None, home: Path | None = None, speed: str = "200", keep: bool | None = None) -> int:
    """Bring the example fleet up, replay the recorded trace through it, and show the panel meanwhile.

    On a terminal the fleet stays up afterwards until Ctrl-C; elsewhere it goes down and the command ends.

    Parameters
    ----------
    fleet: the fleet file; it must have the role shop/coder
    home: state directory; default $SYSTEMS_HOME, else .systems
    speed: how many times faster than recorded, or max
    keep: keep the fleet up after the trace; default: on a terminal
    """
    place = resolve(home, os.environ)
    file = fleet.resolve() if fleet is not None else EXAMPLE
    loaded = load(file)
    if EXAMPLE_ROLE not in {f"{p}/{r}" for p, r in loaded.fleet.roles()}:
        raise errors.UnknownName("role", EXAMPLE_ROLE, (f"{p}/{r}" for p, r in loaded.fleet.roles()))
    stay = sys.stdout.isatty() if keep is None else keep
    try:
        return asyncio.run(_run(place, file, _speed(speed), stay=stay))
    except KeyboardInterrupt:
        return 0


async def _run(place: Home, file: Path, speed: float | None, *, stay: bool) -> int:
    rows = list(read_trace(TRACE))
    async with _fleet(place, file), session(place) as at:
        replaying = Replay(at.bus, requests_of(at.bus, at.registry), EXAMPLE_ROLE, rows, speed=speed)
        over = asyncio.Event()
        showing = asyncio.create_task(_show_until(at, replaying.tally, 1.0, over))
        try:
            tally = await replaying.run()
        finally:
            over.set()
            await showing
        good = matches(tally) and tally.requested == len(rows)
        _summarize(tally, rows, good=good)
        if stay:
            print("\nThe fleet stays up: try `systems status`, `systems roles`, `systems dlq ls` in another terminal. Ctrl-C ends it.\n")
            await _show_until(at, tally, 1.0, asyncio.Event())
    return 0 if good else 2


def _summarize(tally: Tally, rows: list[TraceRow], *, good: bool) -> None:
    tokens_in, tokens_out = sum(r.input_tokens for r in rows), sum(r.output_tokens for r in rows)
    print(
        f"\ntrace done: {tally.requested:,} requested, {tally.completed:,} completed, "
        f"{tally.dead_lettered:,} dead letters, {tally.cancelled:,} cancelled"
    )
    print(
        f"tokens: {tally.input_tokens:,} input and {tally.output_tokens:,} output completed; "
        f"the file has {tokens_in:,} and {tokens_out:,}" + (": equal" if good else ": NOT EQUAL")
    )


@asynccontextmanager
async def _fleet(place: Home, file: Path) -> AsyncIterator[None]:
    """A running fleet: the one that is up already, or one that goes down with us, also if we are killed."""
    if place.launcher() is not None:
        print(f"the fleet of {place.path} is up already and stays up")
        await _until_ready(place, None)
        yield
        return
    place.prepare()
    with (place.logs / "launcher.log").open("ab") as out:
        launcher = await leashed.start(launcher_command(place, file), stdout=out, stderr=out, grace=30)
    try:
        ready = asyncio.create_task(_until_ready(place, None))
        ended = asyncio.create_task(launcher.wait())
        await asyncio.wait([ready, ended], return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            ready.cancel()
            raise errors.HomeUnusable(f"the launcher ended with status {ended.result()}: {_last_words(place)}")
        await ready
        yield
    finally:
        launcher.terminate()
        await launcher.wait()
