"""The state directory: everything that one fleet keeps on this machine.

::

    HOME/
    ├── nats/            the embedded server's store and configuration
    ├── run/             server.json (address and login), launcher.json, launcher.lock, launcher.sock
    ├── logs/            one file per process, and one rotated away (.1)
    ├── spool/           what could not be sent yet
    ├── credentials/     generated logins
    ├── projections/     the projector's tables, private to it
    ├── archive/         history for ever: Parquet files of all event streams
    ├── history/         rows of tables that can no longer change, as Parquet files
    ├── fleet.duckdb     a copy of the tables, for everybody at any time
    ├── queries/         named queries of one's own, if somebody makes the folder
    └── releases/        versions of this program, if some were rolled out

One launcher per home: it holds a lock that the kernel drops with the process, so a launcher that was killed is no obstacle.
Two homes share nothing. Files are replaced whole: a reader sees the old or the new one, also after a power failure.
Everything here blocks, for the time of a few small files.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from bus import errors, server
from bus.context import SERVER_FILE

#: The command line of this installation, by its whole path: what a person is told to run must work in any shell.
SYSTEMS = str(Path(sys.executable).parent / "systems")
#: Bytes of a socket's path that Linux takes are 108, macOS 104; with the ending zero and some room.
_SOCKET_PATH = 100
#: A lock may be held for a moment by whoever only looks whether it is held.
_LOCK_TRIES, _LOCK_PAUSE_S = 10, 0.02
#: Proves that there is room for at least one block.
_PROBE = b"x" * 4096


class LauncherRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Who runs the fleet of a home: ``run/launcher.json``."""

    pid: int
    boot_id: str
    started: datetime
    #: Path of the control socket.
    socket: str
    #: The release that it runs itself; empty for an installation elsewhere.
    release: str = ""


class Home:
    """Paths of one state directory, and its lock."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.nats = self.path / "nats"
        self.run = self.path / "run"
        self.logs = self.path / "logs"
        self.spool = self.path / "spool"
        self.credentials = self.path / "credentials"
        self.projections = self.path / "projections"
        self.archive = self.path / "archive"
        #: What `systems env` exports as SYSTEMS_DUCKDB.
        self.tables = self.path / "fleet.duckdb"
        #: Rows of the tables that can no longer change, as files.
        self.history = self.path / "history"
        #: Named queries of this fleet's own people.
        self.queries = self.path / "queries"
        #: Versions of this program, each in an environment of its own.
        self.releases = self.path / "releases"
        #: Which other folder of named queries the fleet file names.
        self.queries_file = self.run / "queries.path"
        self.server_file = self.path / SERVER_FILE
        self.lock_file = self.run / "launcher.lock"
        self.launcher_file = self.run / "launcher.json"

    @property
    def token(self) -> str:
        """What tells the fleets of one machine apart in heartbeats: 12 digits."""
        return hashlib.sha256(str(self.path).encode()).hexdigest()[:12]

    def release(self, prefix: str) -> str:
        """The release whose environment a process runs in, by its ``sys.prefix``; empty for an installation elsewhere."""
        folder = Path(prefix)
        return folder.parent.name if folder.parent.parent == self.releases else ""

    def command(self, *words: str, systems: str = SYSTEMS) -> str:
        """What a person runs about this fleet: one line to paste, by whole paths, whatever shell and folder they are in."""
        return shlex.join([systems, *words, "--home", str(self.path)])

    def launch(self, file: str, systems: str = SYSTEMS) -> str:
        """What a person runs to have a launcher; `file` is the fleet file, empty for one that nobody knows."""
        return self.command("up", "--detach", *(["--fleet", file] if file else []), systems=systems)

    @property
    def query_folders(self) -> tuple[Path, ...]:
        """Where named queries of this fleet's own people are: in the home, and where the fleet file said at the last start."""
        named = self.queries_file.read_text(encoding="utf-8") if self.queries_file.exists() else ""
        return (self.queries, Path(named)) if named else (self.queries,)

    def remember_queries(self, folder: Path | None) -> None:
        """Write down the folder of named queries that the fleet file names, for whoever asks while nothing runs."""
        self.run.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.queries_file.write_text(str(folder.absolute()) if folder is not None else "", encoding="utf-8")

    @property
    def socket(self) -> Path:
        """The launcher's control socket: in ``run/``, or below /tmp where that path would be too long for a socket."""
        path = self.run / "launcher.sock"
        if len(os.fsencode(path)) <= _SOCKET_PATH:
            return path
        name = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:16]
        return Path(f"/tmp/systems-{os.getuid()}") / f"{name}.sock"  # noqa: S108 - of this user alone, checked by prepare

    def prepare(self) -> None:
        """Make the directories, for this user alone, and prove that they can be written.

        Raises:
            HomeUnusable: they cannot.
        """
        for directory in (self.path, self.nats, self.run, self.logs, self.spool, self.credentials, self.projections):
            _make(directory)
        folder = self.socket.parent
        if folder != self.run:
            _make(folder)
            owner = folder.lstat()
            if owner.st_uid != os.getuid() or owner.st_mode & 0o077 or folder.is_symlink():
                raise errors.HomeUnusable(
                    f"expected {folder} to belong to this user alone, got: owner {owner.st_uid}, mode {owner.st_mode & 0o777:o}; "
                    "remove it, or name a shorter path with --home"
                )

    def launcher(self) -> LauncherRecord | None:
        """Who runs the fleet right now; None if nobody does.

        Raises:
            HomeUnusable: it runs, but its record cannot be read.
        """
        try:
            descriptor = os.open(self.lock_file, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise server.unusable(self.lock_file, exc.strerror or str(exc)) from exc
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return self._record()
        finally:
            os.close(descriptor)
        return None

    def running(self) -> LauncherRecord:
        """Who runs the fleet right now.

        Raises:
            HomeUnusable: nobody does, or its record cannot be read.
        """
        record = self.launcher()
        if record is None:
            raise errors.HomeUnusable(f"no launcher runs in {self.path}; start the fleet: {self.launch('')}")
        return record

    @contextmanager
    def lock(self, boot_id: str, now: datetime) -> Iterator[LauncherRecord]:
        """Be the one launcher of this home. The directories must be there.

        Raises:
            HomeUnusable: another launcher is, with its pid and since when.
        """
        descriptor = os.open(self.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            for attempt in range(_LOCK_TRIES):
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                if attempt == _LOCK_TRIES - 1:
                    raise self._taken()
                time.sleep(_LOCK_PAUSE_S)
            release = self.release(sys.prefix)
            record = LauncherRecord(
                pid=os.getpid(), boot_id=boot_id, started=now, socket=str(self.socket), release=release
            )
            write_json(self.launcher_file, record)
            try:
                yield record
            finally:
                self.launcher_file.unlink(missing_ok=True)
        finally:
            os.close(descriptor)

    def _taken(self) -> errors.HomeUnusable:
        record = self._record()
        return errors.HomeUnusable(
            f"expected no launcher in {self.path}, got: pid {record.pid} runs there since {record.started:%Y-%m-%d %H:%M:%S %Z}; "
            f"stop it with `systems down --home {self.path}`, or name another directory with --home"
        )

    def _record(self) -> LauncherRecord:
        try:
            return msgspec.json.decode(self.launcher_file.read_bytes(), type=LauncherRecord)
        except (OSError, msgspec.DecodeError) as exc:
            raise errors.HomeUnusable(
                f"expected the launcher that runs in {self.path} to be told by {self.launcher_file}, got: {exc}; "
                "try again, or find the process that holds launcher.lock beside it and stop that"
            ) from exc


def resolve(directory: Path | None, environ: Mapping[str, str]) -> Home:
    """The home that is meant: `directory`, else ``$SYSTEMS_HOME``, else ``.systems/`` in the working directory."""
    return Home(directory or Path(environ.get("SYSTEMS_HOME") or ".systems"))


def write_json(file: Path, value: Any) -> None:
    """Replace a file by `value` as JSON, readable by this user alone.

    Raises:
        HomeUnusable: it cannot be written.
    """
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(msgspec.json.format(msgspec.json.encode(value)) + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(file)
        directory = os.open(file.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(directory)  # the new name is on the disk only now
        finally:
            os.close(directory)
    except OSError as exc:
        with contextlib.suppress(OSError):  # the draft of a disk that is full, or was never made
            draft.unlink(missing_ok=True)
        raise server.unusable(file.parent, exc.strerror or str(exc)) from exc


def _make(directory: Path) -> None:
    probe = directory / f".writable.{os.getpid()}"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            probe.write_bytes(_PROBE)
        finally:
            probe.unlink(missing_ok=True)
    except OSError as exc:
        if exc.errno in {errno.EEXIST, errno.ENOTDIR}:
            raise errors.HomeUnusable(
                f"expected a directory at {directory}, got: a file is in the way; move it away, or name another directory with --home"
            ) from exc
        raise server.unusable(directory, exc.strerror or str(exc)) from exc
