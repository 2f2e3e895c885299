"""The primary file: all tables, private to the projector, with how far it has read each stream.

Rows and positions change in the same transaction, so whatever kills the process repeats nothing and skips nothing. There is
no write-ahead log: the streams are one. What no checkpoint has put into the file is gone with the process, the positions with
it, and is read again; that spares a third of the work, and a flush to the disk for each batch. So before anybody relies on
rows that the streams are to lose, or on where files are, there must be a checkpoint.

One thread owns the connection that writes; queries run on cursors of the same database, side by side with it: DuckDB keeps
the versions that they see. Only a checkpoint minds them: one that reads rows which an UPDATE has changed since makes it
wait (:class:`projections.faults.Busy`), for at most as long as a query may run.

DuckDB checkpoints by itself at most when the file is closed, else only :meth:`Database.checkpoint` does: between two of them
the file holds still but for blocks that nothing refers to yet, and can be copied while batches are applied.

A session on the primary sees its tables under their plain names. The file's own catalog is called :data:`CATALOG`.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.resources import files as package_files
from pathlib import Path
from typing import TypeVar

import duckdb
import msgspec
import pyarrow as pa
import structlog

from projections import faults, fold, positions, query
from projections.positions import Position
from projections.quoting import quoted

log = structlog.get_logger()

T = TypeVar("T")

#: Name of the file's catalog in every session.
CATALOG = "primary_file"
#: Bytes of rows from which on :meth:`Database.settle` checkpoints: until then they are in DuckDB's memory, or in its spill.
UNSETTLED = 512 * 1024 * 1024
#: Clients of this storage version and newer open the file.
STORAGE_VERSION = "v1.5.0"
#: Megabytes that DuckDB may use before it writes to its folder for what does not fit.
MEMORY_MB = 160
#: Seconds between two tries to close what is in the middle of something.
_BUSY_S = 0.005
#: Megabytes of disk for what does not fit, which is all that questions may take.
SPILL_MB = 2048
#: Threads of DuckDB; the worker thread is one of them. One core is left to the readers, which need all of it: on two cores
#: a second thread makes the whole a fifth slower.
THREADS = max(1, min(4, (os.cpu_count() or 2) - 1))


#: What tables say of themselves: statements beside those of the fold.
POSITIONS = package_files("projections").joinpath("schema", "positions.sql").read_text(encoding="utf-8")
#: Names what a file holds: one of another version is made anew, beside it.
VERSION = hashlib.sha256(f"{fold.VERSION}{POSITIONS}".encode()).hexdigest()[:12]


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """Where the tables of a file come from."""

    #: Another than :data:`VERSION` means that they are to be made anew.
    version: str = VERSION
    made_at: datetime
    #: Why they were made anew; empty for those of a fleet's first start.
    why: str = ""
    #: Name of the file that holds the former ones.
    aside: str = ""
    #: It was said on the bus that they are new.
    told: bool = False


class Settings(msgspec.Struct, frozen=True):
    """What the primary may use."""

    memory_mb: int = MEMORY_MB
    threads: int = THREADS
    #: Folders beside the file's own that hold rows of the tables as files: no statement opens a file elsewhere.
    folders: tuple[str, ...] = ("archive", "history")


class Database:
    """The open primary file."""

    def __init__(self, file: Path, settings: Settings = Settings()) -> None:  # noqa: B008 (frozen)
        self.file = file
        self._settings = settings
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="primary")
        self._connection: duckdb.DuckDBPyConnection | None = None
        #: Never runs anything itself: cursors for queries are made from it, whatever the worker does meanwhile.
        self._spare: duckdb.DuckDBPyConnection | None = None
        self._handing_out = threading.Lock()
        #: The file as bytes, open for as long as DuckDB has it: when a process closes any descriptor of a file, all its locks on
        #: that file are gone, and with DuckDB's the next process could write into it.
        self._bytes: int | None = None
        self._copying = threading.Lock()
        #: Held while nobody may checkpoint.
        self.still = asyncio.Lock()
        #: Bytes of rows that no checkpoint has put into the file.
        self._unsettled = 0
        #: What was handed out and is still used.
        self._sessions: weakref.WeakSet[duckdb.DuckDBPyConnection] = weakref.WeakSet()
        self.made = Made(version="", made_at=datetime.min.replace(tzinfo=UTC))

    async def open(self, made: Made, *, check: bool = True) -> None:
        """Open the file, make the tables if it is new, and read all of it once if it is to be checked.

        Args:
            made: what new tables say of themselves.
            check: look for damage.

        Raises:
            PrimaryLocked, PrimaryDamaged, NoRoom: see :mod:`projections.faults`.
        """
        await self._submit(lambda: self._open(made, self._settings, check=check))

    async def reopen(self, threads: int | None = None) -> None:
        """Close the file and open it again, with another number of threads; None for that of the settings.

        Raises:
            PrimaryLocked, PrimaryDamaged, NoRoom: see :mod:`projections.faults`.
        """
        # Its configuration is locked from the moment when it is open, so that no query changes it.
        wide = msgspec.structs.replace(self._settings, threads=threads or self._settings.threads)

        def work() -> None:
            self._close()
            self._open(self.made, wide, check=False)

        await self._submit(work)

    async def told(self) -> None:
        """Remember that it was said on the bus that the tables are new."""

        def work(connection: duckdb.DuckDBPyConnection) -> None:
            connection.execute("UPDATE hot.made SET told = true")

        await self.run(work)
        self.made = msgspec.structs.replace(self.made, told=True)

    async def run(self, work: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        """Do something with the writing connection, in its thread, after what is under way there.

        Raises:
            PrimaryError: the file is the reason why it failed.
            duckdb.Error: the statement is.
        """
        return await self._submit(lambda: self._translated(work))

    async def apply(self, batch: pa.Table, reached: Mapping[str, Position]) -> None:
        """One transaction: rows of the log into all tables, and how far that gets the streams.

        Args:
            batch: columns of :data:`projections.log.LOG`, of any of the streams.
            reached: of each stream that has rows in it, its last message.
        """

        def work(connection: duckdb.DuckDBPyConnection) -> None:
            with self.batch(connection, batch), transaction(connection):
                # Not by the fold: that runs over rows of the log as well, to make tables anew or as of a past moment.
                fold.append(connection)
                fold.apply(connection)
                positions.write(connection, reached)

        await self.run(work)
        self._unsettled += batch.nbytes

    async def positions(self) -> dict[str, Position]:
        """How far each stream is."""
        return await self.run(positions.read)

    async def checkpoint(self) -> None:
        """Put all that was committed into the file, and flush that; after the copy that is being made.

        Raises:
            Busy: a query is in the way; nothing has changed.
            NoRoom: the disk is full; the file must be opened again.
        """
        async with self.still:
            await self.run(self.checkpoint_now)

    def checkpoint_now(self, connection: duckdb.DuckDBPyConnection) -> None:
        """The same in the writing thread, for whoever holds :attr:`still`."""
        connection.execute(f"CHECKPOINT {CATALOG}")
        self._unsettled = 0

    async def settle(self, most: int) -> None:
        """Checkpoint if so many bytes of rows wait for one. Not while a copy is made, nor in a query's way.

        Each copy begins with one; but none is made while tables are new, or while there is no room for it.
        """
        if self._unsettled < most or self.still.locked():
            return
        with suppress(faults.Busy):
            await self.checkpoint()

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A session of its own for queries: sees what was committed before each of its transactions. To be closed by its user.

        It can write; who hands it to others makes it read-only (``BEGIN TRANSACTION READ ONLY``).

        Raises:
            PrimaryInvalidated: the file is being opened again, or closed.
        """
        # From any thread: a connection that is busy with one call refuses another one.
        with self._handing_out:
            if self._spare is None:
                raise faults.PrimaryInvalidated(f"expected {self.file} to be open, got: it is not just now; ask again")
            session = self._spare.cursor()
            self._sessions.add(session)
        session.execute(f"USE {CATALOG}")
        return session

    @contextmanager
    def bytes(self) -> Iterator[int]:
        """The open file's descriptor, to be read by position and never closed; the file is not closed meanwhile.

        Raises:
            PrimaryInvalidated: the file is being opened again, or closed.
        """
        with self._copying:
            if self._bytes is None:
                raise faults.PrimaryInvalidated(f"expected {self.file} to be open, got: it is not just now; ask again")
            yield self._bytes

    @staticmethod
    @contextmanager
    def batch(connection: duckdb.DuckDBPyConnection, rows: pa.Table) -> Iterator[None]:
        """Let the statements of the fold see these rows as the relation ``batch``."""
        connection.register("batch", rows)
        try:
            yield
        finally:
            connection.unregister("batch")

    async def close(self) -> None:
        """Close the file, after the batch that is under way; queries are interrupted."""
        await self._submit(self._close)

    async def end(self) -> None:
        """Close for good."""
        await self.close()
        self._worker.shutdown(wait=False)

    async def _submit(self, work: Callable[[], T]) -> T:
        future = asyncio.get_running_loop().run_in_executor(self._worker, work)
        try:
            # A transaction cannot be broken off half-way by whoever no longer waits for it.
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            raise

    def _translated(self, work: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        if self._connection is None:
            raise faults.PrimaryInvalidated(f"expected {self.file} to be open, got: it is not")
        try:
            return work(self._connection)
        except duckdb.Error as exc:
            fault = faults.translate(exc, self.file)
            if fault is None:
                raise
            raise fault from exc

    def _open(self, made: Made, settings: Settings, *, check: bool) -> None:
        self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        spill = self.file.with_suffix(".spill")
        shutil.rmtree(spill, ignore_errors=True)  # of a process that was killed
        connection = duckdb.connect(
            config={
                "memory_limit": f"{settings.memory_mb}MB",
                "threads": settings.threads,
                "temp_directory": str(spill),
                "max_temp_directory_size": f"{SPILL_MB}MB",
                # Copies of the whole file tolerate no checkpoint meanwhile: see the module's text.
                "checkpoint_threshold": "1TB",
                "preserve_insertion_order": False,
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
            }
        )
        try:
            connection.execute(
                f"ATTACH {quoted(self.file)} AS {CATALOG} (STORAGE_VERSION '{STORAGE_VERSION}', RECOVERY_MODE no_wal_writes)"
            )
            connection.execute(f"USE {CATALOG}")
            if not _tables(connection):
                with transaction(connection):
                    fold.create(connection)
                    connection.execute(POSITIONS)
                    row = [
                        made.version,
                        made.made_at.astimezone(UTC).replace(tzinfo=None),
                        made.why,
                        made.aside,
                        made.told,
                    ]
                    connection.execute("INSERT INTO hot.made VALUES (?, ?, ?, ?, ?)", row)
                self.checkpoint_now(connection)
            elif check:
                _read_all(connection)
            self.made = _made(connection)
        except duckdb.Error as exc:
            connection.close()
            # A file that cannot be opened is of no use, whatever the reason says.
            raise faults.translate(exc, self.file) or faults.PrimaryDamaged(
                f"expected {self.file} to be a whole database, got: {exc}"
            ) from exc
        query.confine(connection, [self.file.absolute().parents[1] / name for name in settings.folders])
        self._connection = connection
        self._spare = connection.cursor()
        self._bytes = os.open(self.file, os.O_RDONLY | os.O_CLOEXEC)

    def _close(self) -> None:
        connection, spare = self._connection, self._spare
        self._connection = self._spare = None
        if connection is None or spare is None:
            return
        # Closing a connection closes its cursors, and is refused while one of them is in the middle of something.
        while True:
            with self._handing_out:
                for session in list(self._sessions):
                    with suppress(duckdb.ConnectionException):  # its user has closed it
                        session.interrupt()
                try:
                    spare.close()
                    connection.close()
                except duckdb.ResourceInUseException:
                    pass
                else:
                    break
            time.sleep(_BUSY_S)
        with self._copying:
            if self._bytes is not None:
                os.close(self._bytes)
                self._bytes = None


@contextmanager
def transaction(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Everything within, or nothing."""
    connection.execute("BEGIN TRANSACTION")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # A commit that failed, or a file that failed, has rolled back already.
        with suppress(duckdb.Error):
            connection.execute("ROLLBACK")
        raise


def wal(file: Path) -> Path:
    """The write-ahead log of a database file: somebody else's who has opened it, for there is none of ours."""
    return file.with_name(f"{file.name}.wal")


def remove(file: Path) -> None:
    """Remove a database file that nobody has open, and a write-ahead log beside it."""
    wal(file).unlink(missing_ok=True)
    file.unlink(missing_ok=True)


def _tables(connection: duckdb.DuckDBPyConnection) -> list[tuple[str, str]]:
    found = "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = ? ORDER BY ALL"
    return connection.execute(found, [CATALOG]).fetchall()


def _made(connection: duckdb.DuckDBPyConnection) -> Made:
    """Which tables these are; of no version for a file that is not ours, or whose own account cannot be read any more."""
    try:
        row = connection.execute("SELECT version, made_at, why, aside, told FROM hot.made").fetchone()
    except (duckdb.CatalogException, duckdb.BinderException):
        row = None
    if row is None:
        return Made(version="", made_at=datetime.min.replace(tzinfo=UTC))
    version, made_at, why, aside, told = row
    return Made(version=version, made_at=made_at.replace(tzinfo=UTC), why=why, aside=aside, told=told)


def _read_all(connection: duckdb.DuckDBPyConnection) -> None:
    """Have every block of every table read once: each has a checksum."""
    for schema, table in _tables(connection):
        connection.execute(f'SELECT bit_xor(hash(t)) FROM "{schema}"."{table}" AS t').fetchall()  # noqa: S608 (its own names)
