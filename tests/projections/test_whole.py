"""Files are merged when they are the parts of one whole, and when not it is said which one is in the way."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from bus import errors
from projections.database import VERSION
from projections.merge import Copy, Unmergeable, _check_whole
from projections.partition import Partition, named, parse

ERAS = {"INVOCATIONS": "2026-11-25T09:00:00Z", "CONTROL": "2026-11-25T09:00:01Z"}


def copy(number: int, of: int, *, version: str = VERSION, eras: dict[str, str] = ERAS, file: str = "") -> Copy:
    """What the published copy of a part says."""
    partition = Partition(number, of)
    name = Path(file or f"{partition.name}.duckdb")
    return Copy(file=name, partition=partition, version=version, published_at=datetime.now(UTC), eras=eras)


@pytest.mark.parametrize("numbers", [[0], [0, 1], [2, 0, 1]])
def test_all_parts_of_one_division_are_a_whole(numbers: list[int]) -> None:
    """Each part once is enough, in whatever order they are named."""
    _check_whole([copy(number, len(numbers)) for number in numbers])


def test_part_that_has_read_nothing_of_a_stream_belongs_to_the_whole() -> None:
    """A stream that is empty has no position, and contradicts nobody's."""
    _check_whole([copy(0, 2, eras={}), copy(1, 2)])


@pytest.mark.parametrize(
    ("copies", "sentence"),
    [
        ([], "got: none"),
        ([copy(0, 3), copy(2, 3)], "expected all parts of 3, got: none of 1/3; run it with `systems part run 1/3"),
        (
            [copy(0, 2), copy(0, 2, file="other.duckdb"), copy(1, 2)],
            "got: 0/2 in part-0-of-2.duckdb and in other.duckdb",
        ),
        ([copy(0, 2), copy(1, 4)], "one division, got: 0/2 in part-0-of-2.duckdb and 1/4 in part-1-of-4.duckdb"),
        ([copy(0, 2), copy(1, 2, version="old")], f"version {VERSION} in part-1-of-2.duckdb, got: old"),
        (
            [copy(0, 2), copy(1, 2, eras=ERAS | {"CONTROL": "2020-01-01T00:00:00Z"})],
            "got: CONTROL of 2026-11-25T09:00:01Z in part-0-of-2.duckdb and of 2020-01-01T00:00:00Z in part-1-of-2.duckdb",
        ),
    ],
)
def test_files_that_are_no_whole_are_refused_by_name(copies: list[Copy], sentence: str) -> None:
    """A part that is missing, doubled, of another division, version or server is named, with the remedy."""
    with pytest.raises(Unmergeable) as raised:
        _check_whole(copies)
    assert sentence in str(raised.value)


@pytest.mark.parametrize("text", ["5/4", "4/4", "x", "", "1", "1/0", "-1/4", "1/4/5", "1/ 4"])
def test_what_is_no_part_is_refused_with_an_example(text: str) -> None:
    """Whatever else is written than a number below another one, the answer shows how it is written."""
    with pytest.raises(errors.BadAsk, match=r"as NUMBER/OF, counted from 0, such as 0/\d"):
        parse(text)


def test_part_is_known_by_what_it_is_called() -> None:
    """A part is found again in its own words, its seat and its file's name, and in nobody else's."""
    part = parse("1/4")
    assert (part, str(part)) == (Partition(1, 4), "1/4")
    assert [named(name) for name in (part.name, f"{part.name}_my-host", f"{part.name}.duckdb")] == [part] * 3
    assert [named(name) for name in ("projector_here", "part-4-of-4", "part-1-of-44x", "projections")] == [None] * 4
