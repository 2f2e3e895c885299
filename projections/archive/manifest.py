"""What an archive holds: one sidecar beside each Parquet file, and the laws that they obey together.

::

    archive/stream=INVOCATIONS/era=20261125T182013123456789Z/day=2026-11-25/000000000001-000000250000.parquet
                                                                            000000000001-000000250000.json

A file belongs to the archive when its sidecar is there: the sidecar is written last. An era is one life of a stream, named
by when it was created; a stream that is created again counts from 1 again, and its archive begins anew beside the old one.
The files of an era tile it: the first begins at sequence 1, each begins where the one before ended, and what the stream did
not hold in between is listed as absent. Pure, but for :func:`scan`, which reads a folder.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import date, datetime
from pathlib import Path

import msgspec

#: Version of the sidecar's shape.
SHAPE = 1
_DATA, _SIDECAR = ".parquet", ".json"


class Segment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One Parquet file and what is in it."""

    stream: str
    #: When the stream was created, as the server says it.
    created: str
    #: Sequences that it covers, both included: those in it, and those that the stream did not hold.
    first: int
    last: int
    rows: int
    #: Sequences in between that the stream did not hold, as (first, last).
    absent: tuple[tuple[int, int], ...] = ()
    #: Earliest and latest time of a message in it, by the server's clock. UTC.
    first_at: datetime
    last_at: datetime
    #: Day of its first message.
    day: date
    #: SHA-256 of the file, in hexadecimal digits, and its bytes.
    sha256: str
    size: int
    #: Version of the columns.
    log: int
    shape: int = SHAPE

    @property
    def key(self) -> str:
        """Path of the Parquet file below the archive, also its name in an object store."""
        return f"{folder(self.stream, self.created)}/day={self.day}/{self.first:012d}-{self.last:012d}{_DATA}"

    @property
    def sidecar(self) -> str:
        """Path of the sidecar below the archive."""
        return sidecar_of(self.key)

    def __str__(self) -> str:
        return f"{self.stream} {self.first:,}-{self.last:,}"


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is not as it must be."""

    #: ``gap``, ``overlap``, ``corrupt``, ``missing``, ``unreadable``, ``unlike`` (a copy that differs), ``away`` (not looked at).
    kind: str
    stream: str
    #: Sequences that it is about.
    first: int = 0
    last: int = 0
    #: File or object; empty for none.
    where: str = ""
    sentence: str

    def __str__(self) -> str:
        return self.sentence


def folder(stream: str, created: str) -> str:
    """Where the files of one life of a stream lie."""
    return f"stream={stream}/era={era(created)}"


def era(created: str) -> str:
    """A creation time as a name: its digits, ``T`` and ``Z``."""
    return "".join(c for c in created if c.isdigit() or c in "TZ")


def sidecar_of(key: str) -> str:
    """The sidecar's path beside a Parquet file's."""
    return key.removesuffix(_DATA) + _SIDECAR


def encode(segment: Segment) -> bytes:
    """A sidecar's text."""
    return msgspec.json.format(msgspec.json.encode(segment)) + b"\n"


def decode(raw: bytes) -> Segment:
    """A sidecar's text as what it says.

    Raises:
        msgspec.DecodeError: it is none.
    """
    return msgspec.json.decode(raw, type=Segment)


def inner_fault(segment: Segment) -> Fault | None:
    """Whether a sidecar contradicts itself."""
    absent = sum(last - first + 1 for first, last in segment.absent)
    if segment.first <= segment.last and segment.rows + absent == segment.last - segment.first + 1:
        return None
    return Fault(
        kind="corrupt",
        stream=segment.stream,
        first=segment.first,
        last=segment.last,
        where=segment.sidecar,
        sentence=f"expected the sidecar of {segment} to account for each sequence, got: {segment.rows:,} rows and {absent:,} absent; "
        "restore it from a copy of the archive",
    )


def faults(segments: Sequence[Segment]) -> list[Fault]:
    """Gaps and overlaps among the files of one era, in order of sequence."""
    found: list[Fault] = []
    expected = 1
    for segment in sorted(segments, key=lambda one: (one.first, one.last)):
        inner = inner_fault(segment)
        if inner is not None:
            found.append(inner)
        if segment.first > expected:
            found.append(_gap(segment.stream, expected, segment.first - 1))
        elif segment.first < expected:
            last = min(segment.last, expected - 1)
            found.append(
                Fault(
                    kind="overlap",
                    stream=segment.stream,
                    first=segment.first,
                    last=last,
                    where=segment.key,
                    sentence=f"expected each sequence of {segment.stream} in one file, got: {segment.first:,}-{last:,} in {segment.key} "
                    "and in the file before it; keep the one whose checksum holds, and move the other away",
                )
            )
        expected = max(expected, segment.last + 1)
    return found


def _gap(stream: str, first: int, last: int) -> Fault:
    return Fault(
        kind="gap",
        stream=stream,
        first=first,
        last=last,
        sentence=f"expected a file with {stream} {first:,}-{last:,}, got: none; restore it from a copy of the archive",
    )


def reach(segments: Iterable[Segment]) -> int:
    """The last sequence up to which files cover everything, from 1 on; 0 for none."""
    reached = 0
    for segment in sorted(segments, key=lambda one: one.first):
        if segment.first > reached + 1:
            break
        reached = max(reached, segment.last)
    return reached


class Inventory(msgspec.Struct, kw_only=True):
    """What lies in an archive's folder."""

    segments: list[Segment]
    #: Drafts, and Parquet files without a sidecar: left by a crash.
    leftovers: list[Path]
    #: Sidecars that cannot be read.
    faults: list[Fault]


def scan(root: Path, *, known: Collection[str] = ()) -> Inventory:
    """Read the sidecars below an archive's folder, but for those whose Parquet file's key is `known`."""
    found = Inventory(segments=[], leftovers=[], faults=[])
    for path in _files(root):
        key = path.relative_to(root).as_posix()
        if path.suffix == _DATA:
            if key not in known and not path.with_suffix(_SIDECAR).exists():
                found.leftovers.append(path)
        elif path.suffix == _SIDECAR:
            if key.removesuffix(_SIDECAR) + _DATA not in known:
                _read(path, key, found)
        elif path.suffix == ".part":
            found.leftovers.append(path)
    found.segments.sort(key=lambda one: (one.stream, one.created, one.first))
    return found


def _files(root: Path) -> Iterator[Path]:
    return iter(sorted(root.glob("stream=*/era=*/day=*/*")))


def _read(path: Path, key: str, found: Inventory) -> None:
    try:
        segment = decode(path.read_bytes())
        why = "" if segment.sidecar == key else f"it is the one of {segment.key}"
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as exc:
        segment, why = None, str(exc)
    if segment is not None and not why:
        found.segments.append(segment)
        return
    stream = key.partition("/")[0].removeprefix("stream=")
    first, _, last = path.stem.partition("-")
    found.faults.append(
        Fault(
            kind="unreadable",
            stream=stream,
            first=int(first) if first.isdigit() else 0,
            last=int(last) if last.isdigit() else 0,
            where=key,
            sentence=f"expected a sidecar at {path}, got: {why}; `systems archive verify --repair` makes it again",
        )
    )
