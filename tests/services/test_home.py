"""The state directory: one launcher, whole files, clear refusals."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus import errors
from services import home as homes
from services.home import Home

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
HOLDER = (
    "import pathlib, sys, time\n"
    "from datetime import UTC, datetime\n"
    "from services.home import Home\n"
    "with Home(pathlib.Path(sys.argv[1])).lock('boot', datetime.now(UTC)):\n"
    "    print('held', flush=True)\n"
    "    time.sleep(1000)\n"
)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A prepared home."""
    made = Home(tmp_path / "home")
    made.prepare()
    return made


def test_home_is_named_by_argument_then_variable_then_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--home goes over $SYSTEMS_HOME, and without both it is .systems in the working directory."""
    monkeypatch.chdir(tmp_path)
    assert homes.resolve(Path("a"), {"SYSTEMS_HOME": "/b"}).path == tmp_path / "a"
    assert homes.resolve(None, {"SYSTEMS_HOME": "/b"}).path == Path("/b")
    assert homes.resolve(None, {"SYSTEMS_HOME": ""}).path == tmp_path / ".systems"


def test_home_is_made_for_its_user_alone(home: Home) -> None:
    """All directories are made with mode 0700, and nothing of the proof stays behind."""
    for directory in (home.path, home.nats, home.run, home.logs, home.spool, home.credentials):
        assert directory.stat().st_mode & 0o777 == 0o700
    assert [path for path in home.path.rglob("*") if path.is_file()] == []
    home.prepare()


def test_home_with_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    """A file in the place of a directory is said, with its path and the remedy."""
    (tmp_path / "file").touch()
    with pytest.raises(errors.HomeUnusable, match=rf"expected a directory at {tmp_path}/file.*--home"):
        Home(tmp_path / "file").prepare()
    with pytest.raises(errors.HomeUnusable, match="a file is in the way"):
        Home(tmp_path / "file" / "below").prepare()


def test_home_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """A directory of which the system says no is one sentence with the remedy."""
    closed = Path("/proc/systems")
    if os.geteuid():
        (tmp_path / "closed").mkdir(mode=0o500)
        closed = tmp_path / "closed"
    with pytest.raises(errors.HomeUnusable, match=r"a directory that this user can write at .*make it writable"):
        Home(closed).prepare()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk takes root")
def test_home_on_a_full_disk_is_refused(tmp_path: Path) -> None:
    """A full disk is named as such; a file that was to be replaced is still whole."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32k", "none", str(disk)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"mounting is not allowed here: {mounted.stderr.strip()}")
    try:
        homes.write_json(disk / "x.json", {"a": 1})
        with pytest.raises(OSError, match="No space"):
            (disk / "filler").write_bytes(b"x" * 100_000)
        with pytest.raises(errors.HomeUnusable, match=r"expected room on the disk of .*free some space"):
            Home(disk).prepare()
        with pytest.raises(errors.HomeUnusable, match="expected room"):
            homes.write_json(disk / "x.json", {"a": 2})
        assert (disk / "x.json").read_text() == '{\n  "a": 1\n}\n'
        assert not list(disk.glob(".x.json*"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_home_has_one_launcher(home: Home) -> None:
    """A second launcher is refused and told who runs, since when, and how to stop it; afterwards the home is free."""
    assert home.launcher() is None
    with home.lock("boot", NOW) as record:
        assert home.launcher() == record
        assert record.pid == os.getpid()
        with (
            pytest.raises(
                errors.HomeUnusable,
                match=rf"pid {os.getpid()} runs there since 2026-01-31 12:00:00 UTC; .*systems down",
            ),
            Home(home.path).lock("other", NOW),
        ):
            pass
        assert home.launcher() == record
    assert home.launcher() is None
    with home.lock("next", NOW):
        pass


def test_home_without_a_launcher_says_how_to_start_one(tmp_path: Path) -> None:
    """Who needs a launcher is told that none runs, with a line to paste that holds whatever is in a path."""
    home = Home(tmp_path / "my home")
    home.prepare()
    with pytest.raises(errors.HomeUnusable) as no:
        home.running()
    _, _, command = str(no.value).partition("start the fleet: ")
    assert shlex.split(command) == [homes.SYSTEMS, "up", "--detach", "--home", str(home.path)]
    with home.lock("boot", NOW) as record:
        assert home.running() == record


def test_lock_of_a_killed_launcher_is_no_obstacle(home: Home) -> None:
    """After kill -9 the record is still there, but it counts for nothing and the next launcher gets the home."""
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(home.path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        running = home.launcher()
        assert running is not None
        assert running.pid == holder.pid
        holder.send_signal(signal.SIGKILL)
    assert home.launcher_file.exists()
    assert home.launcher() is None
    with home.lock("next", NOW) as record:
        assert record.boot_id == "next"


def test_record_of_a_launcher_that_is_damaged_is_said(home: Home) -> None:
    """A record that cannot be read names its file."""
    with home.lock("boot", NOW):
        home.launcher_file.write_text("{")
        with pytest.raises(errors.HomeUnusable, match=r"run/launcher\.json"):
            home.launcher()


@given(st.integers(min_value=1, max_value=300))
def test_socket_path_fits_into_a_socket(length: int) -> None:
    """However long the home's path is, the socket's is short enough, and two homes never share one."""
    first, second = (Home(Path("/") / ("x" * length + last)) for last in "ab")
    assert len(os.fsencode(first.socket)) <= 100
    assert first.socket != second.socket


def test_socket_folder_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder for sockets that others may enter is not used."""
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    monkeypatch.setattr(Home, "socket", property(lambda _: shared / "x.sock"))
    with pytest.raises(errors.HomeUnusable, match="belong to this user alone"):
        Home(tmp_path / "home").prepare()
