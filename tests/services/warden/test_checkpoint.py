"""Checkpoints of folds: used when they are of this very log, and else passed over."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from services.warden import checkpoint

#: What the log is now: made at this time, and what is left of it.
LOG = {"created": "2026-01-01", "first": 5, "last": 20}


class Fold(msgspec.Struct, frozen=True, kw_only=True):
    """A fold that counts."""

    shape: int = 2
    created: str = "2026-01-01"
    position: int = 10
    count: int = 7


def load(file: Path) -> Fold | None:
    """What is kept, for the log as it is now."""
    return checkpoint.load(file, Fold, shape=2, **LOG)  # type: ignore[arg-type]


@pytest.mark.parametrize("position", [4, 10, 20])
def test_checkpoint_of_this_log_is_gone_on_from(tmp_path: Path, position: int) -> None:
    """A fold is kept whole, in a folder that was not there, and counts if nothing behind it has left the log."""
    file = tmp_path / "run" / "fold.checkpoint"
    checkpoint.save(file, Fold(position=position))
    assert load(file) == Fold(position=position)
    assert [kept.name for kept in file.parent.iterdir()] == ["fold.checkpoint"]


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        (Fold(shape=1), "checkpoint_of_another_log"),
        (Fold(created="2025-01-01"), "checkpoint_of_another_log"),
        (Fold(position=21), "checkpoint_of_another_log"),
        (Fold(position=3), "checkpoint_before_the_log"),
        (b"\x85", "checkpoint_unreadable"),
        (msgspec.msgpack.encode({"shape": "two"}), "checkpoint_unreadable"),
    ],
)
def test_checkpoint_that_cannot_be_used_is_told(tmp_path: Path, kept: Fold | bytes, said: str) -> None:
    """One of another shape, stream or stretch, and one that is damaged, is passed over, and that is told with the file."""
    file = tmp_path / "fold.checkpoint"
    if isinstance(kept, bytes):
        file.write_bytes(kept)
    else:
        checkpoint.save(file, kept)
    with capture_logs() as told:
        assert load(file) is None
    assert [(one["event"], one["file"]) for one in told] == [(said, str(file))]


def test_checkpoint_that_is_not_there_is_no_news(tmp_path: Path) -> None:
    """A first start has none, and says nothing of it."""
    with capture_logs() as told:
        assert load(tmp_path / "fold.checkpoint") is None
    assert told == []


def test_checkpoint_that_the_disk_does_not_take_stops_nobody(tmp_path: Path) -> None:
    """Where no file can be written that is told, and the fold goes on."""
    (tmp_path / "run").write_text("a file where the folder should be")
    with capture_logs() as told:
        checkpoint.save(tmp_path / "run" / "fold.checkpoint", Fold())
    assert [one["event"] for one in told] == ["checkpoint_unsaved"]
