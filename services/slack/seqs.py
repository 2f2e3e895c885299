"""Sequences of a stream as a short text, so that one event or one message can name hundreds: ``17-311,320``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def pack(seqs: Iterable[int]) -> str:
    """The sequences in ascending order, with runs told by their ends."""
    runs: list[list[int]] = []
    for seq in sorted(set(seqs)):
        if runs and seq == runs[-1][1] + 1:
            runs[-1][1] = seq
        else:
            runs.append([seq, seq])
    return ",".join(f"{first}" if first == last else f"{first}-{last}" for first, last in runs)


def unpack(text: str) -> Iterator[int]:
    """The same, back.

    Raises:
        ValueError: it is no such text.
    """
    for run in filter(None, text.split(",")):
        first, _, last = run.partition("-")
        yield from range(int(first), int(last or first) + 1)
