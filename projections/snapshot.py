"""The published copy, ``fleet.duckdb``: consistent, for everybody, at any time, replaced as a whole.

The primary is checkpointed and its file copied under a draft name, then the draft takes the published name. A reader keeps
the file that it has opened for as long as it likes. Batches are applied while the copy is made: between two checkpoints
nothing that the file refers to changes. Not flushed to the disk: after a power failure the next start publishes again.

How often is a matter of what it costs: at most every `least_s`, and so seldom that it takes no more than `share` of the time.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import msgspec

from projections import faults, positions
from projections.database import VERSION, Database, transaction, wal
from projections.standing import Lag, Snapshot

#: Seconds between the beginnings of two copies, at least.
LEAST_S = 2.0
#: Part of the time that making copies may take.
SHARE = 0.05
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CHUNK = 64 * 1024 * 1024
#: Bytes that go through this process's memory at a time, where the kernel cannot copy.
_PIECE = 4 * 1024 * 1024
_LAG = "INSERT INTO projection_lag BY NAME SELECT $2 AS stream, $3 AS seq, $4 AS head, $5 AS behind, $6 AS seconds, make_timestamp($1) AS stored_at, $7 AS seen_at"


class Pace(msgspec.Struct, frozen=True):
    """When a copy may follow the one before."""

    least_s: float = LEAST_S
    share: float = SHARE

    def period(self, took_s: float) -> float:
        """Seconds from the beginning of a copy that took `took_s` to the beginning of the next one."""
        return max(self.least_s, took_s / self.share)


async def publish(
    database: Database, file: Path, lags: Sequence[Lag], *, host: str, pause_s: float, now: datetime
) -> Snapshot:
    """Publish what is committed now, with how far that is.

    Raises:
        Busy: a query is in the way: nothing was published, try again in a moment.
        NoRoomForCopy: the disk is full; the former copy is still there.
        NoRoom: it is full for the primary itself, which must be opened again.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()

    def work(connection: duckdb.DuckDBPyConnection) -> int:
        # In one piece: no batch comes between what the copy says of itself and what is in it.
        number = _stamp(connection, lags, host=host, pause_s=pause_s, now=now)
        database.checkpoint_now(connection)
        return number

    async with database.still:
        number = await database.run(work)
        size = await asyncio.to_thread(_copy, database, file)
    return Snapshot(number=number, published_at=now, took_s=loop.time() - began, bytes=size)


def _stamp(
    connection: duckdb.DuckDBPyConnection, lags: Sequence[Lag], *, host: str, pause_s: float, now: datetime
) -> int:
    """Write into the tables which copy this will be, and how far it is: by the positions in it, not by what was known before."""
    found = connection.execute("SELECT max(number) FROM snapshot").fetchone()
    number = int(found[0] or 0) + 1 if found else 1
    reached = positions.read(connection)
    at = _naive(now)
    with transaction(connection):
        connection.execute("DELETE FROM snapshot")
        connection.execute("INSERT INTO snapshot VALUES (?, ?, ?, ?, ?)", [number, at, VERSION, host, pause_s])
        connection.execute("DELETE FROM projection_lag")
        for lag in lags:
            position = reached.get(lag.stream)
            seq = position.seq if position is not None else 0
            behind = max(0, lag.head - seq) if lag.behind else 0
            row: list[object] = [lag.stream, seq, max(lag.head, seq), behind, lag.seconds if behind else 0.0, at]
            connection.execute(_LAG, [position.stored_us if position is not None else None, *row])
    return number


def _naive(moment: datetime) -> datetime:
    """UTC without a zone, as all times in tables are."""
    return moment.astimezone(UTC).replace(tzinfo=None)


def _copy(source: Database, target: Path) -> int:
    """Replace `target` by a copy of the primary: its size."""
    draft = target.with_name(f".{target.name}.draft")
    try:
        with source.bytes() as read, draft.open("wb") as write:
            os.fchmod(write.fileno(), 0o600)
            _copy_bytes(read, write.fileno())
            size = os.fstat(write.fileno()).st_size
        draft.replace(target)
        # Of somebody who opened the copy to write and left: it belongs to a file that is gone, and nobody could open this one.
        wal(target).unlink(missing_ok=True)
    except OSError as exc:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        if exc.errno in _NO_ROOM:
            raise faults.NoRoomForCopy(
                f"expected room for a copy of {source.file} at {target}, got: {exc.strerror}; free some, publishing goes on by itself"
            ) from exc
        raise
    return size


def _copy_bytes(read: int, write: int) -> None:
    """All bytes, in the kernel where it can: on a file system that shares blocks that takes no time and no room."""
    size, at = os.fstat(read).st_size, 0
    in_kernel = hasattr(os, "copy_file_range")
    while at < size:
        try:
            if in_kernel:
                count = os.copy_file_range(read, write, min(size - at, _CHUNK), at, at)
            else:
                count = os.pwrite(write, os.pread(read, min(size - at, _PIECE), at), at)
        except OSError as exc:
            if exc.errno in _NO_ROOM or not in_kernel:
                raise
            in_kernel = False  # this file system cannot
            continue
        if count == 0:
            return
        at += count
