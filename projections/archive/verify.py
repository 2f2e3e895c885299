"""Whether history is whole: each sequence of each stream, from 1 to the last, is in a file, in the tables or in the stream.

:func:`cover` is the law, pure; :func:`look` gathers what it is about. A file counts only when its checksum holds. What a file
calls absent is looked up in the stream, as far as that still reaches.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from bus import errors, wire
from bus.connection import Connection
from bus.store import Store
from projections.archive import manifest, segment
from projections.archive import store as stores
from projections.archive.manifest import Fault, Segment

Range = tuple[int, int]


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """What the server says of a stream."""

    stream: str
    created: str
    first: int
    last: int


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One stream's history."""

    stream: str
    #: Last sequence; 0 when the server was not asked.
    last: int
    #: The files cover everything up to here.
    archived: int
    files: int
    rows: int
    size: int
    faults: tuple[Fault, ...]

    @property
    def whole(self) -> bool:
        """Nothing is missing, doubled or damaged."""
        return not self.faults


def missing(wanted: Range, ranges: Iterable[Range]) -> list[Range]:
    """The parts of a range that no other range covers. Pure."""
    first, last = wanted
    found: list[Range] = []
    for begin, end in sorted(ranges):
        if begin > last:
            break
        if begin > first:
            found.append((first, begin - 1))
        first = max(first, end + 1)
    if first <= last:
        found.append((first, last))
    return found


def cover(live: Live, segments: Sequence[Segment], hot: Sequence[Range], bad: Sequence[Segment] = ()) -> list[Fault]:
    """Faults of one life of a stream. Pure.

    Args:
        live: the stream.
        segments: its files.
        hot: ranges of sequences that the tables hold rows of.
        bad: the files that are not what they were: their own faults are told elsewhere.
    """
    found = manifest.faults(segments)
    spoiled = {one.key for one in bad}
    ranges = [(one.first, one.last) for one in segments if one.key not in spoiled]
    known = {(fault.first, fault.last) for fault in found if fault.kind == "gap"}
    if live.last:
        in_stream = [(live.first, live.last)] if live.first <= live.last else []
        broken = [(one.first, one.last) for one in bad]
        for first, last in missing((1, live.last), [*ranges, *hot, *in_stream, *broken]):
            if (first, last) not in known:
                found.append(_lost(live.stream, first, last))
    for first, last in hot:
        for one in segments:
            if max(first, one.first) <= min(last, one.last):
                found.append(_doubled(one, max(first, one.first), min(last, one.last)))
    return found


def _lost(stream: str, first: int, last: int) -> Fault:
    return Fault(
        kind="gap",
        stream=stream,
        first=first,
        last=last,
        sentence=f"expected {stream} {first:,}-{last:,} in a file, in the tables or in the stream, got: in none of them",
    )


def _doubled(one: Segment, first: int, last: int) -> Fault:
    return Fault(
        kind="overlap",
        stream=one.stream,
        first=first,
        last=last,
        where=one.key,
        sentence=f"expected {one.stream} {first:,}-{last:,} to have left the tables for {one.key}, got: rows in both; "
        "make the tables again with `systems rebuild`",
    )


async def live_streams(connection: Connection, names: Iterable[str]) -> list[Live]:
    """What the server says of streams; those that it does not have are left out.

    Raises:
        BusError: the server does not answer.
    """
    found: list[Live] = []
    for name in names:
        try:
            info = await connection.api(f"STREAM.INFO.{name}")
        except errors.ServerError as exc:
            if exc.code != wire.Code.STREAM_NOT_FOUND:
                raise
            continue
        state = info["state"]
        found.append(Live(stream=name, created=info["created"], first=state["first_seq"], last=state["last_seq"]))
    return found


async def look(
    root: Path,
    live: Sequence[Live],
    *,
    hot: Mapping[str, Sequence[Range]],
    bus: Store | None,
    target: stores.Store | None = None,
) -> list[Report]:
    """Verify every file below an archive's folder, here and (with `target`) in its store, and that nothing is missing.

    Args:
        root: ``HOME/archive``.
        live: the streams as they are now; empty when the server was not asked.
        hot: by stream, ranges of sequences that the tables hold rows of.
        bus: to look up what files call absent; None to believe them.
        target: the store with the copies.

    Raises:
        BusError: server or store do not answer.
    """
    inventory = await asyncio.to_thread(manifest.scan, root)
    lives = {one.stream: one for one in live}
    eras: dict[tuple[str, str], list[Segment]] = {(one.stream, one.created): [] for one in live}
    for one in inventory.segments:
        eras.setdefault((one.stream, one.created), []).append(one)
    reports: list[Report] = []
    for (stream, created), segments in sorted(eras.items()):
        now = lives.get(stream)
        now = now if now is not None and now.created == created else None
        faults, bad = await _files(root, segments, target)
        faults += [fault for fault in inventory.faults if fault.stream == stream]
        absent = Live(stream=stream, created=created, first=0, last=0)
        faults += cover(now or absent, segments, hot.get(stream, ()) if now is not None else (), bad)
        if bus is not None and now is not None:
            faults += await _absences(bus, now, segments)
        reports.append(
            Report(
                stream=stream,
                last=now.last if now is not None else 0,
                archived=manifest.reach(segments),
                files=len(segments),
                rows=sum(one.rows for one in segments),
                size=sum(one.size for one in segments),
                faults=tuple(faults),
            )
        )
    return reports


async def _files(
    root: Path, segments: Sequence[Segment], target: stores.Store | None
) -> tuple[list[Fault], list[Segment]]:
    """Each file's checksum, and each copy's."""
    faults: list[Fault] = []
    bad: list[Segment] = []
    for one in segments:
        found = await asyncio.to_thread(segment.check, root, one)
        if found is not None:
            faults.append(found)
            bad.append(one)
        if target is not None:
            found = await asyncio.to_thread(stores.prove, target, one)
            if found is not None:
                faults.append(found)
    return faults, bad


async def _absences(bus: Store, live: Live, segments: Sequence[Segment]) -> list[Fault]:
    """Sequences that a file calls absent and the stream still has."""
    found: list[Fault] = []
    for one in segments:
        for first, last in one.absent:
            if last < live.first:
                continue
            async for message in bus.messages(one.stream, ">", start=max(first, live.first), limit=1):
                if message.seq <= last:
                    found.append(_hidden(one, message.seq))  # noqa: PERF401 (an async comprehension says no more)
    return found


def _hidden(one: Segment, seq: int) -> Fault:
    return Fault(
        kind="gap",
        stream=one.stream,
        first=seq,
        last=seq,
        where=one.key,
        sentence=f"expected {one.stream} {seq:,} in {one.key}, got: it calls it absent, and the stream has it; "
        "`systems archive verify --repair` writes the file again",
    )
