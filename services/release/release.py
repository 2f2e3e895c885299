"""Releases on the disk: ``HOME/releases/``, and which of them each daemon of this home is started from.

::

    HOME/releases/
    ├── current.json                 who is started from which: {"warden": "0.2.0-1f0c…", "*": "installed"}
    ├── before.json                 the same before the roll-out that is under way: what it returns to
    └── 0.2.0-1f0c3a9b77d2/          version, and the beginning of the wheel's SHA-256
        ├── release.json             where it came from, and what is thought of it
        ├── systems-0.2.0-….whl      the wheel itself
        └── venv/                    its environment

``installed`` is the environment that the launcher runs in, and needs no folder. The launcher reads ``current.json`` at each
start of a daemon, so that it outlives every process. Releases belong to one machine, as the home does.
Everything here blocks, for the time of a few small files.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from pathlib import Path

import msgspec

from bus import errors
from services.home import Home, write_json

#: The environment that the launcher itself runs in.
INSTALLED = "installed"
#: Stands for every daemon that has no line of its own in `current.json`.
ALL = "*"
_FACTS = "release.json"


class Standing(StrEnum):
    """What is thought of a release."""

    #: Nobody has run it yet.
    NEW = "new"
    #: It was rolled out whole, and stayed up.
    GOOD = "good"
    #: It failed, and was taken back.
    BAD = "bad"


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """One release: ``release.json``."""

    #: ``0.2.0-1f0c3a9b77d2``.
    name: str
    version: str
    #: SHA-256 of the wheel, 64 hexadecimal digits.
    digest: str
    #: File name of the wheel in the release's folder.
    wheel: str
    installed_at: datetime
    installed_by: str
    #: Version of the interpreter that its environment was made with.
    python: str
    #: Packages that its environment has of its own; all others are those of the installation.
    own: tuple[str, ...] = ()
    standing: Standing = Standing.NEW
    #: Why it is bad, and since when.
    because: str = ""
    judged_at: datetime | None = None


class ReleaseGone(errors.BusError):
    """A daemon is to be started from a release that is not there."""


class Releases:
    """The releases of one home."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self.folder = home.releases
        self._current = self.folder / "current.json"
        self._before = self.folder / "before.json"

    def path(self, name: str) -> Path:
        """Folder of a release."""
        return self.folder / name

    def python(self, name: str) -> Path:
        """Interpreter of a release's environment."""
        return self.path(name) / "venv" / "bin" / "python"

    def command(self, name: str) -> Path:
        """The `systems` command of a release."""
        return self.path(name) / "venv" / "bin" / "systems"

    def all(self) -> list[Release]:
        """Every release, the oldest first; a folder without facts is one that was not finished."""
        found = [self._read(file) for file in self.folder.glob(f"*/{_FACTS}")]
        return sorted(found, key=lambda release: release.installed_at)

    def get(self, name: str) -> Release:
        """A release by its name, or the newest one of a version.

        Raises:
            UnknownName: there is none.
        """
        known = self.all()
        for release in reversed(known):
            if name in (release.name, release.version):
                return release
        raise errors.UnknownName("release", name, [INSTALLED, *(release.name for release in known)])

    def find(self, digest: str) -> Release | None:
        """The release that was made of a wheel with this digest."""
        return next((release for release in self.all() if release.digest == digest), None)

    def write(self, release: Release) -> None:
        """Keep the facts of a release.

        Raises:
            HomeUnusable: they cannot be written.
        """
        write_json(self.path(release.name) / _FACTS, release)

    def judge(self, name: str, standing: Standing, because: str, now: datetime) -> None:
        """Write down what is thought of a release; nothing of the installation, which is what one comes back to."""
        if name != INSTALLED:
            changed = msgspec.structs.replace(self.get(name), standing=standing, because=because, judged_at=now)
            self.write(changed)

    def current(self) -> dict[str, str]:
        """Daemon, or ALL, -> release; empty as long as everything runs from the installation.

        Raises:
            HomeUnusable: the file is damaged.
        """
        try:
            return msgspec.json.decode(self._current.read_bytes(), type=dict[str, str])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.DecodeError) as exc:
            raise errors.HomeUnusable(
                f"expected {self._current} to say which release each daemon runs, got: {exc}; "
                "remove it, and everything runs from the installation"
            ) from exc

    def use(self, current: Mapping[str, str]) -> None:
        """Say which release each daemon is started from, from its next start on.

        Raises:
            HomeUnusable: it cannot be written.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_json(self._current, dict(current))

    def begin(self, before: Mapping[str, str]) -> dict[str, str]:
        """A roll-out begins: what is returned to if it fails, which is what an earlier one left behind that was broken off."""
        found = self.unfinished()
        if found is None:
            found = dict(before)
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_json(self._before, found)
        return found

    def unfinished(self) -> dict[str, str] | None:
        """What everything was started from before the roll-out that is under way; None if none is."""
        try:
            return msgspec.json.decode(self._before.read_bytes(), type=dict[str, str])
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as exc:
            raise errors.HomeUnusable(
                f"expected {self._before} to say what to return to, got: {exc}; remove it to go on from what is current"
            ) from exc

    def end(self) -> None:
        """The roll-out is over, well or not."""
        self._before.unlink(missing_ok=True)

    def take_back(self, daemon: str) -> bool:
        """Have a daemon that stays down started from what it was before the roll-out under way: whether that is another."""
        before = self.unfinished()
        current = self.current()
        if before is None or release_of(before, daemon) == release_of(current, daemon):
            return False
        self.use(current | {daemon: release_of(before, daemon)})
        return True

    def interpreter(self, daemon: str) -> Path | None:
        """The interpreter that a daemon is started with; None for the installation's.

        Raises:
            ReleaseGone: it is not there.
            HomeUnusable: nobody can tell which.
        """
        name = release_of(self.current(), daemon)
        if name == INSTALLED:
            return None
        found = self.python(name)
        if not found.exists():
            raise ReleaseGone(
                f"expected {daemon} to be started from the release {name}, got: no {found}; remove {self._current}, "
                "and everything runs from the installation"
            )
        return found

    def remove(self, name: str) -> None:
        """Delete a release that nothing is started from.

        Raises:
            UnknownName: there is none.
            Conflict: something is started from it.
        """
        release = self.get(name)
        users = sorted(daemon for daemon, used in self.current().items() if used == release.name)
        if users:
            who = "every daemon" if ALL in users else ", ".join(users)
            raise errors.Conflict(
                f"expected a release that nothing is started from, got: {release.name}, from which {who} is; "
                "roll another one out first: systems deploy RELEASE --reason TEXT"
            )
        shutil.rmtree(self.path(release.name))

    def _read(self, file: Path) -> Release:
        try:
            return msgspec.json.decode(file.read_bytes(), type=Release)
        except (OSError, msgspec.DecodeError) as exc:
            raise errors.HomeUnusable(
                f"expected the facts of a release in {file}, got: {exc}; remove the folder"
            ) from exc


def release_of(current: Mapping[str, str], daemon: str) -> str:
    """The release that a daemon is started from. Pure."""
    return current.get(daemon) or current.get(ALL) or INSTALLED
