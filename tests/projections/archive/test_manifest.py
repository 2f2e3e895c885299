"""The laws of an archive's files, on files that are only described."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from projections.archive import manifest, verify
from projections.archive.manifest import Segment
from projections.archive.verify import Live

AT = datetime(2026, 11, 25, 10, tzinfo=UTC)
CREATED = "2026-11-25T09:00:00.123456789Z"


def segment(first: int, last: int, absent: tuple[tuple[int, int], ...] = ()) -> Segment:
    """A file that covers these sequences."""
    return Segment(
        stream="INVOCATIONS",
        created=CREATED,
        first=first,
        last=last,
        rows=last - first + 1 - sum(b - a + 1 for a, b in absent),
        absent=absent,
        first_at=AT,
        last_at=AT,
        day=date(2026, 11, 25),
        sha256="ab",
        size=1,
        log=1,
    )


@st.composite
def tilings(draw: st.DrawFn) -> list[Segment]:
    """Files that tile a stream from 1 on."""
    ends = sorted(draw(st.sets(st.integers(1, 200), min_size=1, max_size=8)))
    return [segment(begin + 1, end) for begin, end in zip([0, *ends], ends, strict=False)]


@given(tilings(), st.randoms(use_true_random=False))
def test_tiling_in_any_order_has_no_fault(segments: list[Segment], chance: object) -> None:
    """Files that begin where the one before ended are whole, in whatever order they are found."""
    chance.shuffle(segments)  # type: ignore[attr-defined]
    assert manifest.faults(segments) == []
    assert manifest.reach(segments) == max(one.last for one in segments)


@given(tilings().filter(lambda found: len(found) > 1), st.data())
def test_each_missing_file_is_one_named_gap(segments: list[Segment], data: st.DataObject) -> None:
    """Taking one file out, but the last, is exactly one gap with its sequences, and the reach ends before it."""
    place = data.draw(st.integers(0, len(segments) - 2))
    gone = segments.pop(place)
    (fault,) = manifest.faults(segments)
    assert (fault.kind, fault.first, fault.last) == ("gap", gone.first, gone.last)
    assert manifest.reach(segments) == gone.first - 1


@given(tilings(), st.data())
def test_each_doubled_sequence_is_a_named_overlap(segments: list[Segment], data: st.DataObject) -> None:
    """A second file over sequences that one has already is named with them."""
    last = segments[-1].last
    first = data.draw(st.integers(1, last))
    end = data.draw(st.integers(first, last))
    found = [f for f in manifest.faults([*segments, segment(first, end)]) if f.kind == "overlap"]
    assert found
    assert all(first <= fault.first <= fault.last <= last for fault in found)


@given(
    st.integers(0, 60),
    st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)).map(lambda pair: (min(pair), max(pair))), max_size=6),
)
def test_missing_is_what_no_range_covers(last: int, ranges: list[tuple[int, int]]) -> None:
    """The parts that are missing are exactly the sequences that lie in no range."""
    found = {seq for first, end in verify.missing((1, last), ranges) for seq in range(first, end + 1)}
    assert found == {seq for seq in range(1, last + 1) if not any(a <= seq <= b for a, b in ranges)}


def test_history_is_whole_when_files_tables_and_stream_meet() -> None:
    """Files up to 20, tables up to 25 and a stream from 24 on leave nothing out; a stream from 27 on leaves 26 out."""
    segments, hot = [segment(1, 10), segment(11, 20)], [(21, 25)]
    assert verify.cover(Live(stream="INVOCATIONS", created=CREATED, first=24, last=40), segments, hot) == []
    (fault,) = verify.cover(Live(stream="INVOCATIONS", created=CREATED, first=27, last=40), segments, hot)
    assert (fault.kind, fault.first, fault.last) == ("gap", 26, 26)


def test_rows_that_are_in_a_file_and_in_the_tables_are_an_overlap() -> None:
    """Sequences that a file covers must have left the tables."""
    live = Live(stream="INVOCATIONS", created=CREATED, first=1, last=25)
    (fault,) = verify.cover(live, [segment(1, 20)], [(15, 25)])
    assert (fault.kind, fault.first, fault.last) == ("overlap", 15, 20)


def test_sidecar_that_contradicts_itself_is_a_fault() -> None:
    """Rows and absent sequences of a sidecar must add up to its range."""
    wrong = segment(1, 10, absent=((2, 3),))
    assert manifest.inner_fault(wrong) is None
    import msgspec  # noqa: PLC0415

    found = manifest.inner_fault(msgspec.structs.replace(wrong, rows=9))
    assert found is not None
    assert "9 rows and 2 absent" in found.sentence


def test_folder_tells_files_from_leftovers_and_rubbish(tmp_path: Path) -> None:
    """A file with its sidecar is found; a draft and a file without one are leftovers; a sidecar that is no JSON is a fault."""
    good = segment(1, 10)
    folder = (tmp_path / good.key).parent
    folder.mkdir(parents=True)
    (tmp_path / good.key).write_bytes(b"")
    (tmp_path / good.sidecar).write_bytes(manifest.encode(good))
    (folder / "000000000011-000000000020.parquet").write_bytes(b"")
    (folder / "000000000021-000000000030.parquet.part").write_bytes(b"")
    (folder / "000000000031-000000000040.json").write_bytes(b"{")
    found = manifest.scan(tmp_path)
    assert found.segments == [good]
    assert [path.name for path in found.leftovers] == [
        "000000000011-000000000020.parquet",
        "000000000021-000000000030.parquet.part",
    ]
    assert [(fault.kind, fault.first) for fault in found.faults] == [("unreadable", 31)]
    assert manifest.scan(tmp_path, known={good.key}).segments == []
