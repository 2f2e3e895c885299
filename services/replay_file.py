"""Recorded requests to a language model, in the format of the Azure LLM inference traces (2023 and 2024, code and chat).

::

    TIMESTAMP,ContextTokens,GeneratedTokens
    2023-11-16 18:17:03.9799600,4808,10
    2024-05-10 00:00:00.009930+00:00,2162,5

Times are UTC, with up to 9 digits of a second. Rows are read one by one, so a file of any size takes the same memory. A
row that is older than the one before it is due with that one: rows keep the file's order, and none is dropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import NamedTuple, NoReturn

from bus import errors

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"
_EXAMPLE = "2023-11-16 18:17:03.9799600,4808,10"
#: Characters of a bad row that the sentence shows.
_SHOWN = 80
#: A count of tokens has no more digits than this: a request's counts are far smaller, and sums must stay exact in JSON.
_DIGITS = 12


class TraceRow(NamedTuple):
    """One recorded request."""

    #: Seconds since the first row; never less than in the row before.
    offset_s: float
    input_tokens: int
    output_tokens: int


class TraceFileError(errors.BusError):
    """A trace that cannot be read; says where and what was expected there."""

    def __init__(self, file: Path, line: int, expected: str, got: str) -> None:
        #: From 1; 0 when it is about the file as a whole.
        self.file, self.line = file, line
        super().__init__(f"{file}{f':{line}' if line else ''}: expected {expected}, got: {got}")


def read_trace(path: Path) -> Iterator[TraceRow]:
    """The rows of a trace, in the file's order.

    Raises:
        TraceFileError: the file cannot be read, or at the first row that is none; what came before was handed out.
    """
    try:
        with path.open("rb") as file:
            yield from _rows(path, file)
    except OSError as exc:
        raise TraceFileError(path, 0, "a trace that can be read", exc.strerror or str(exc)) from exc


def _rows(path: Path, file: Iterator[bytes]) -> Iterator[TraceRow]:
    header = next(file, b"").decode("utf-8-sig", errors="replace").strip()
    if header.replace(" ", "") != HEADER:
        raise TraceFileError(path, 1, f"the header {HEADER}", repr(header[:_SHOWN]) if header else "nothing")
    # Whole seconds and the fraction are kept apart: together in one float they would lose the last digits.
    first_whole, first_fraction = 0, 0.0
    whole, minute, started, last = 0, b"", False, 0.0
    for number, line in enumerate(file, start=2):
        try:
            stamp, context, generated = line.split(b",")
            generated = generated.rstrip()
            if not (
                context.isdigit() and generated.isdigit() and len(context) <= _DIGITS and len(generated) <= _DIGITS
            ):
                _refuse(path, number, line)
            if stamp[:17] != minute:
                # Rows of the same minute follow one another: its date is worked out once.
                minute, whole = stamp[:17], _minute(stamp[:17])
            fraction = _seconds(stamp[17:])
        except (ValueError, IndexError):
            if not line.strip():
                continue
            _refuse(path, number, line)
        if not started:
            first_whole, first_fraction, started = whole, fraction, True
        offset = (whole - first_whole) + (fraction - first_fraction)
        last = max(last, offset)
        yield TraceRow(last, int(context), int(generated))


def _minute(stamp: bytes) -> int:
    """Seconds of ``2023-11-16 18:17:`` since a fixed day."""
    if stamp[10:11] not in (b" ", b"T") or stamp[16:] != b":":
        raise ValueError(stamp)
    moment = datetime.fromisoformat(stamp[:16].decode("ascii"))
    return (moment.toordinal() - date.min.toordinal()) * 86_400 + moment.hour * 3600 + moment.minute * 60


def _seconds(text: bytes) -> float:
    """``03.9799600``, with or without ``+00:00`` or ``Z`` behind it, as seconds."""
    text = text.removesuffix(b"+00:00").removesuffix(b"Z")
    if not (text[:2].isdigit() and len(text) <= 12 and (len(text) == 2 or (text[2:3] == b"." and text[3:].isdigit()))):
        raise ValueError(text)
    seconds = float(text)
    if seconds >= 61:
        raise ValueError(text)
    return seconds


def _refuse(path: Path, number: int, line: bytes) -> NoReturn:
    text = line.decode(errors="replace").rstrip("\r\n")
    shown = repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")
    raise TraceFileError(path, number, f"a row such as {_EXAMPLE} (UTC)", shown)
