"""Files that are to be wheels of this program."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from services.release.wheel import BadWheel, is_path, read


def packed(file: Path, files: dict[str, str]) -> Path:
    """A ZIP file."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return file


def test_release_is_named_by_version_and_content(tmp_path: Path) -> None:
    """Two wheels of one version with different content make releases of different names."""
    metadata = "Metadata-Version: 2.4\nName: systems\nVersion: 1.2\n"
    one = read(packed(tmp_path / "a.whl", {"systems-1.2.dist-info/METADATA": metadata}))
    two = read(packed(tmp_path / "b.whl", {"systems-1.2.dist-info/METADATA": metadata, "x": "y"}))
    assert one.version == two.version == "1.2"
    assert one.release.startswith("1.2-")
    assert one.release != two.release


@pytest.mark.parametrize(
    ("files", "got"),
    [
        ({"x": "y"}, "a ZIP file with no metadata of a package"),
        ({"other-1.dist-info/METADATA": "Name: other\nVersion: 1\n"}, "a wheel of other"),
    ],
)
def test_other_wheels_are_refused(tmp_path: Path, files: dict[str, str], got: str) -> None:
    """A ZIP file that is no wheel of this program is refused with what it is."""
    with pytest.raises(BadWheel, match=got):
        read(packed(tmp_path / "a.whl", files))


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    """A file that is not there, is a folder, is no ZIP, or is cut off is refused with its path."""
    cut = packed(tmp_path / "cut.whl", {"systems-1.dist-info/METADATA": "Name: systems\nVersion: 1\n" * 100})
    cut.write_bytes(cut.read_bytes()[:-30])
    (tmp_path / "text.whl").write_text("no")
    for name in ("cut.whl", "text.whl", "absent.whl", "."):
        with pytest.raises(BadWheel, match="to be a wheel of systems, got: "):
            read(tmp_path / name)


def test_paths_are_told_from_versions() -> None:
    """What ends like a wheel or holds a slash is a file; all else is a version or a release."""
    assert is_path("systems-1.0-py3-none-any.whl")
    assert is_path("./x")
    assert not is_path("1.0.0-abcdef")
