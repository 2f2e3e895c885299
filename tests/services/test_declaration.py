"""What a fleet file changes in a registry: only what it has changed itself."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from services.declaration import exactly, of_file
from services.fleet.entries import FILE_KEY
from services.fleet.file import LoadedFleet, load

FILE = """
[prompts.tone]
text = "be brief"
[projects.shop.roles.a]
handler = { kind = "function", target = "a:b" }
prompt = "tone"
[projects.shop.roles.b]
handler = { kind = "function", target = "a:b" }
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the fleet file lies."""
    return tmp_path / "fleet.toml"


def read(file: Path, text: str) -> LoadedFleet:
    """The fleet file with this text."""
    file.write_text(text)
    return load(file)


def test_file_that_says_the_same_changes_nothing(file: Path) -> None:
    """What people have set, put and removed since stays as it is, whatever it is, and also if the file was laid out anew."""
    taken = of_file({}, read(file, FILE))
    changed = taken | {"prompts.tone": b"be kind", "roles.shop.c": b"{}"}
    del changed["roles.shop.b"]
    assert of_file(changed, read(file, f"# moved\n{FILE}")) == changed


def test_file_takes_only_what_it_has_changed(file: Path) -> None:
    """A changed role is taken and a removed one goes; what the file says as before stays as it was set since."""
    taken = of_file({}, read(file, FILE))
    present = taken | {"prompts.tone": b"be kind", "roles.shop.c": b"{}", "caps.shop": b"[]"}
    text = FILE.replace('prompt = "tone"', 'prompt = "tone"\nconcurrency = 9').partition("[projects.shop.roles.b]")[0]
    found = of_file(present, read(file, text))
    assert msgspec.json.decode(found["roles.shop.a"])["concurrency"] == 9
    assert "roles.shop.b" not in found
    assert {key: found[key] for key in ("prompts.tone", "roles.shop.c", "caps.shop")} == {
        "prompts.tone": b"be kind",
        "roles.shop.c": b"{}",
        "caps.shop": b"[]",
    }
    assert found[FILE_KEY] != present[FILE_KEY]


def test_file_taken_exactly_leaves_nothing_else(file: Path) -> None:
    """Taken exactly, only the caps that people have set stay beside what the file says."""
    loaded = read(file, FILE)
    taken = of_file({}, loaded)
    present = taken | {"prompts.tone": b"be kind", "roles.shop.c": b"{}", "caps.shop": b"[]"}
    assert exactly(present, loaded) == taken | {"caps.shop": b"[]"}
