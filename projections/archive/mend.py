"""A file of the archive that is gone or not what it was, made again: from its copy, else from the stream, if that still has it.

The broken file is kept beside, under another name. What comes from the stream is decoded as the first time, and counts only
if it is as much as the sidecar says.
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path

import duckdb
import msgspec
import pyarrow as pa
import structlog

from bus import wire
from bus.store import Message, Store
from projections.archive import files, segment
from projections.archive import store as stores
from projections.archive.manifest import Segment
from projections.decode import decode

log = structlog.get_logger()

#: Messages decoded at a time.
_BATCH = 20_000


class Mended(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a file."""

    #: As it is now; None when nobody has its messages any more.
    segment: Segment | None
    #: ``copy`` or ``stream``; empty for neither.
    source: str = ""


async def mend(
    root: Path,
    broken: Segment,
    *,
    created: str,
    first: int,
    bus: Store | None,
    target: stores.Store | None,
    now: datetime,
) -> Mended:
    """Make a file again.

    Args:
        root: ``HOME/archive``.
        broken: what its sidecar says.
        created: of the stream as it is now: of another life it has nothing to give.
        first: first sequence that the stream still has.
        bus: the streams; None when the server cannot be asked.
        target: the store with the copies, if there is one.
        now: names the broken file that is kept.

    Raises:
        BusError: server or store do not answer.
        OSError, duckdb.Error: the disk cannot be written.
    """
    path = root / broken.key
    if target is not None and await asyncio.to_thread(stores.prove, target, broken) is None:
        _set_aside(path, now)
        await asyncio.to_thread(target.fetch, broken.key, path)
        if segment.check(root, broken) is None:
            log.warning("segment_mended", segment=str(broken), source="copy")
            return Mended(segment=broken, source="copy")
    if bus is None or created != broken.created or first > _first_row(broken):
        return Mended(segment=None)
    made = await _from_stream(root, broken, bus, now)
    if made is None:
        return Mended(segment=None)
    if target is not None and made != broken:
        await asyncio.to_thread(stores.replace, target, root, made)
    log.warning("segment_mended", segment=str(broken), source="stream")
    return Mended(segment=made, source="stream")


def _first_row(broken: Segment) -> int:
    """The first sequence that is in the file."""
    begin = broken.first
    for first, last in broken.absent:
        if first == begin:
            begin = last + 1
    return begin


async def _from_stream(root: Path, broken: Segment, bus: Store, now: datetime) -> Segment | None:
    tables: list[pa.Table] = []
    batch: list[wire.Delivery] = []
    async for message in bus.messages(broken.stream, ">", start=broken.first):
        if message.seq > broken.last:
            break
        batch.append(delivery(message))
        if len(batch) >= _BATCH:
            tables.append(await asyncio.to_thread(decode, broken.stream, batch))
            batch = []
    tables.append(await asyncio.to_thread(decode, broken.stream, batch))
    found = pa.concat_tables(tables)
    if found.num_rows < broken.rows:
        log.error("segment_not_mended", segment=str(broken), expected=broken.rows, got=found.num_rows)
        return None
    return await asyncio.to_thread(_write, root, broken, found, now)


def delivery(message: Message) -> wire.Delivery:
    """A message as a consumer would have handed it out."""
    return wire.Delivery(
        message.subject, message.data, "", message.seq, 1, 0, nanoseconds(message.headers["Nats-Time-Stamp"]), 0
    )


def nanoseconds(text: str) -> int:
    """A time as the server writes it (RFC 3339, UTC, up to nine digits) as nanoseconds since 1970. Pure."""
    head, _, tail = text.removesuffix("Z").partition(".")
    whole = int(msgspec.convert(f"{head}Z", datetime).timestamp())
    return whole * 1_000_000_000 + int(tail.ljust(9, "0")[:9] or 0)


def _write(root: Path, broken: Segment, rows: pa.Table, now: datetime) -> Segment:
    _set_aside(root / broken.key, now)
    with duckdb.connect() as connection:
        connection.register("mended", rows)
        return segment.write(
            connection,
            root,
            stream=broken.stream,
            created=broken.created,
            first=broken.first,
            last=broken.last,
            relation="mended",
        )


def _set_aside(path: Path, now: datetime) -> None:
    if path.exists():
        path.replace(path.with_name(f"{path.name}.broken-{now:%Y%m%dT%H%M%S}"))
        files.flush_folder(path.parent)
