"""``systems part merge``: one file for everybody out of the published copies of all parts, once or for as long as they change.

It may be killed at any time: the file is replaced as a whole.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter

from projections.merge import Unmergeable
from projections.merge import merge as merge_files
from services.cli import output
from services.cli.common import DEFAULTS, Common
from services.cli.exits import Exit, UsageError
from services.cli.session import speak_plainly
from services.fleet import durations
from services.home import resolve


async def merge(
    *files: Annotated[Path, Parameter(negative="")], into: Path, every: str | None = None, common: Common = DEFAULTS
) -> int:
    """Make one file for everybody of the published copies of all parts. It needs no server.

    Args:
        files: The copies, or folders with them: all parts of one whole, each once.
        into: The file to replace, such as fleet.duckdb; any duckdb opens it.
        every: Go on until SIGTERM or Ctrl-C, and look after each such time, such as 30s, whether a part has changed.
        common: Which fleet, and how to print.
    """
    speak_plainly()
    pause_s = seconds("--every", every) if every is not None else 0.0
    if not files:
        raise UsageError("expected the published copies of all parts, or folders with them, got: none")
    if into.resolve() == resolve(common.home, os.environ).tables.resolve():
        raise UsageError(
            f"expected --into to name a file of its own, got: {into}, which the fleet's own projector replaces"
        )
    if not pause_s:
        await _merge(files, into, common)
        return Exit.DONE
    stop, told = until_signalled(), ""
    seen: list[tuple[Path, int, int]] = []
    while not stop.is_set():
        try:
            if _stamps(parts_of(files)) != seen:
                seen, told = await _merge(files, into, common), ""
        except Unmergeable as exc:
            # Parts come and go, and take turns to be of another version; the former file stands meanwhile.
            if str(exc) != told:
                output.note(f"systems: {exc}; looks again every {every}")
            told = str(exc)
        await _pause(stop, pause_s)
    return Exit.DONE


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return


def parts_of(files: Sequence[Path]) -> list[Path]:
    """The files that are named, and those of the folders that are.

    Raises:
        Unmergeable: one is not there, or a folder has none.
    """
    found: list[Path] = []
    for file in files:
        if not file.exists():
            raise Unmergeable(f"expected the published copy of a part at {file}, got: no such file")
        inside = sorted(file.glob("part-*-of-*.duckdb")) if file.is_dir() else [file]
        if not inside:
            raise Unmergeable(f"expected published copies of parts (part-0-of-4.duckdb, ...) in {file}, got: none")
        found += inside
    return found


def _stamps(files: Sequence[Path]) -> list[tuple[Path, int, int]]:
    """Tells whether a file is still the same one: each copy is another file."""
    found = []
    for file in files:
        try:
            stat = file.stat()
        except FileNotFoundError as exc:
            raise Unmergeable(f"expected the published copy of a part at {file}, got: it has just gone") from exc
        found.append((file, stat.st_ino, stat.st_mtime_ns))
    return found


async def _merge(files: Sequence[Path], into: Path, common: Common) -> list[tuple[Path, int, int]]:
    """Merge once: what the parts were before."""
    found = parts_of(files)
    if into.resolve() in {file.resolve() for file in found}:
        raise UsageError(f"expected --into to name a file of its own, got: {into}, which is a part")
    stamps, began = _stamps(found), time.monotonic()
    copies = await asyncio.to_thread(merge_files, found, into)
    took_s, size = round(time.monotonic() - began, 3), into.stat().st_size
    oldest = min(copies, key=lambda copy: copy.published_at)
    if common.json:
        parts = [
            {"part": str(copy.partition), "file": str(copy.file), "published_at": copy.published_at} for copy in copies
        ]
        merged = {"file": str(into), "bytes": size, "took_s": took_s, "parts": parts}
        print(msgspec.json.encode(merged).decode(), flush=True)
    else:
        print(
            f"{datetime.now(UTC):%H:%M:%S} {into}: {len(copies)} parts, {size / 1e6:,.1f} MB, in {took_s:.1f} s; "
            f"the oldest copy is that of part {oldest.partition}, of {output.moment(oldest.published_at)}",
            flush=True,
        )
    return stamps


def until_signalled() -> asyncio.Event:
    """Set by SIGTERM and Ctrl-C."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


def seconds(option: str, text: str) -> float:
    """An option's duration, longer than 0."""
    found = durations.seconds(text)
    if found <= 0:
        raise UsageError(f"expected {option} to be longer than 0, got: {text!r}")
    return found
