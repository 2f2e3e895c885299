"""``systems up``, ``down``, ``start``: a fleet as processes on this machine."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from bus import errors, leashed
from services.app.launcher import run_launcher
from services.cli.common import DEFAULTS, Common, Flag
from services.cli.session import operator
from services.fleet.file import load
from services.home import Home, resolve
from services.launcher import control
from services.launcher.control import Phase
from services.logs import configure

#: The fleet that ships with the project.
EXAMPLE = Path(__file__).parents[2] / "infra" / "example" / "fleet.toml"
#: Seconds that a fleet has to come up.
_READY_S = 60.0
#: Seconds between two looks at something that is about to change.
_LOOK_S = 0.1


def fleet_file(given: Path | None) -> Path:
    """The fleet file that is meant: the given one, ``fleet.toml`` in the working directory, else the example."""
    if given is not None:
        return given.resolve()
    here = Path("fleet.toml")
    return here.resolve() if here.is_file() else EXAMPLE


async def up(*, fleet: Path | None = None, detach: Flag = False, common: Common = DEFAULTS) -> int:
    """Start a fleet: server, launcher, daemons.

    Parameters
    ----------
    fleet
        The fleet file. Else fleet.toml here, else the example that ships with the project.
    detach
        Return when everything is ready, and leave it running.
    """
    home, file = resolve(common.home, os.environ), fleet_file(fleet)
    load(file)  # every mistake is told here, and not in a log
    if home.launcher() is not None:
        await until_launched(home)
        # What was given up on comes back: the remedy that a person is told for the server is this command.
        await control.ask(home, control.Start())
        await until_ready(home)
        print(f"the fleet of {home.path} is up already: systems status")
        return 0
    if not detach:
        configure()
        await run_launcher(home, file)
        return 0
    home.prepare()
    process = _spawn(home, file)
    try:
        await until_ready(home, process)
    except BaseException:
        process.terminate()
        raise
    print(f"the fleet of {home.path} is up: systems status, systems down")
    return 0


def _spawn(home: Home, file: Path) -> subprocess.Popen[bytes]:
    """The launcher as a process of its own session, that outlives us."""
    with (home.logs / "launcher.log").open("ab") as out:
        return subprocess.Popen(
            launcher_command(home, file), stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )


def launcher_command(home: Home, file: Path) -> list[str]:
    """How the launcher is started as a process."""
    return [sys.executable, "-m", "services.app", "launcher", "--home", str(home.path), "--fleet", str(file)]


async def until_ready(home: Home, process: subprocess.Popen[bytes] | None = None) -> None:
    """Wait until the launcher is ready and every child of it has given a sign of life.

    Raises:
        HomeUnusable: the launcher ended, or was not ready in time; with what it said last.
    """
    deadline = asyncio.get_running_loop().time() + _READY_S
    while asyncio.get_running_loop().time() < deadline:
        if process is not None and process.poll() is not None:
            raise errors.HomeUnusable(f"the launcher ended with status {process.returncode}: {last_words(home)}")
        if await _is_ready(home):
            return
        await asyncio.sleep(_LOOK_S)
    raise errors.HomeUnusable(f"expected the fleet to be ready within {_READY_S:g} s; see {home.logs}")


async def until_launched(home: Home) -> None:
    """Wait until a launcher that runs has started everything once."""
    async with asyncio.timeout(_READY_S):
        while (await control.ask(home, control.Status())).phase is not Phase.READY:
            await asyncio.sleep(_LOOK_S)


async def _is_ready(home: Home) -> bool:
    try:
        answer = await control.ask(home, control.Status())
        if answer.phase is not Phase.READY:
            return False
        async with operator(Common(home=home.path)) as session:
            # By pid as well: the beats of those that died with a launcher before outlive them for a while.
            alive = {(beat.instance, beat.pid) for beat in await session.bus.liveness.all()}
    except errors.BusError:
        # Not there yet; whoever waits for us has the deadline.
        return False
    return {(child.name, child.pid) for child in answer.children if child.name != "nats-server"} <= alive


def last_words(home: Home) -> str:
    """What the launcher logged last: its error, if it had one."""
    log = home.logs / "launcher.log"
    lines = log.read_text(errors="replace").strip().splitlines()
    if not lines:
        return f"it logged nothing in {log}"
    try:
        said = msgspec.json.decode(lines[-1], type=dict[str, object])
    except msgspec.DecodeError:
        return lines[-1]
    return str(said.get("error") or said.get("event") or lines[-1])


async def down(*, common: Common = DEFAULTS) -> int:
    """Stop the fleet: runners drain, then daemons and server end in reverse order. Nothing is lost."""
    home = resolve(common.home, os.environ)
    record = home.launcher()
    if record is None:
        print(f"no fleet runs in {home.path}")
        return 0
    try:
        await control.ask(home, control.Shutdown())
    except errors.BusError:
        # Too early or too late for its socket: the signal says the same.
        if home.launcher() is not None:
            os.kill(record.pid, signal.SIGTERM)
    while _is_up(home):
        await asyncio.sleep(_LOOK_S)
    print(f"the fleet of {home.path} is down")
    return 0


def _is_up(home: Home) -> bool:
    try:
        return home.launcher() is not None
    except errors.HomeUnusable:
        return True  # its record is gone, its lock not yet: it is about to end


async def start(name: str = "", *, common: Common = DEFAULTS) -> int:
    """Bring a daemon back that the launcher has given up on, or that was stopped.

    Parameters
    ----------
    name
        The daemon as `systems status` shows it; all that are down if left out.
    """
    home = resolve(common.home, os.environ)
    home.running()
    known = [child.name for child in (await control.ask(home, control.Status())).children]
    if name and name not in known:
        raise errors.UnknownName("daemon", name, known)
    answer = await control.ask(home, control.Start(name))
    if not answer.ok:
        raise errors.Conflict(answer.error)
    for child in answer.children:
        print(f"{child.name}  {child.state}")
    return 0


@asynccontextmanager
async def running_fleet(home: Home, file: Path) -> AsyncIterator[None]:
    """A running fleet: the one that is up already, or one that goes down with us, also if we are killed."""
    if home.launcher() is not None:
        print(f"the fleet of {home.path} is up already, and stays up")
        await until_ready(home)
        yield
        return
    home.prepare()
    with (home.logs / "launcher.log").open("ab") as out:
        launcher = await leashed.start(launcher_command(home, file), stdout=out, stderr=out, grace=30)
    ready = asyncio.create_task(until_ready(home))
    ended = asyncio.create_task(launcher.wait())
    try:
        await asyncio.wait([ready, ended], return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            raise errors.HomeUnusable(f"the launcher ended with status {ended.result()}: {last_words(home)}")
        await ready
        yield
    finally:
        ready.cancel()
        launcher.terminate()
        await asyncio.gather(ready, ended, return_exceptions=True)
