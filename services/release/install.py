"""Making a release of a wheel: an environment of its own, with the packages of the installation below it.

The environment is empty but for the wheel, and one line in it that leads to the installation's packages: what the wheel needs
and the installation has in a version that fits is shared, also what a fleet's own handlers import. Only what does not fit or
is not there is installed into the release by pip, from wherever pip is set up to look; usually that is nothing, and no network
is needed. What blocks: pip, for some seconds; run it in a thread.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from bus import errors
from services.release.release import Release, Releases
from services.release.wheel import PROJECT, Wheel

#: The line that leads to the installation's packages.
_BELOW = "below.pth"
#: Seconds for pip.
_PIP_S = 600.0
#: Seconds for a release to be imported.
_IMPORT_S = 60.0
#: Characters of a program's words that an error shows.
_SHOWN = 600
#: What a release answers before anything is started from it: its version, and that a daemon can be run at all.
_PROBE = "import importlib.metadata, services.app.__main__; print(importlib.metadata.version('systems'))"


class NotInstalled(errors.BusError):
    """No release could be made of a wheel; nothing was changed."""


def install(releases: Releases, wheel: Wheel, who: str, now: datetime) -> Release:
    """Make a release, or find the one that was made of the same wheel.

    Raises:
        NotInstalled: pip refused it, or it cannot be imported; what there was of it is gone.
        HomeUnusable: the home cannot be written.
    """
    found = releases.find(wheel.digest)
    if found is not None and releases.python(found.name).exists():
        return found
    folder = releases.path(wheel.release)
    shutil.rmtree(folder, ignore_errors=True)  # of an attempt that was broken off
    folder.mkdir(mode=0o700, parents=True)
    try:
        kept = folder / wheel.file.name
        shutil.copyfile(wheel.file, kept)
        _fill(releases, wheel, kept)
        release = Release(
            name=wheel.release,
            version=wheel.version,
            digest=wheel.digest,
            wheel=kept.name,
            installed_at=now,
            installed_by=who,
            python=platform.python_version(),
            own=_own(folder / "venv"),
        )
        _prove(releases, release)
        if found is not None:
            release = msgspec.structs.replace(
                release, standing=found.standing, because=found.because, judged_at=found.judged_at
            )
        releases.write(release)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return release


def below(path: Sequence[str], releases: Releases) -> list[str]:
    """The folders of packages that an environment is laid upon: those of this process, without a release's own. Pure."""
    return [entry for entry in path if entry.endswith("-packages") and not Path(entry).is_relative_to(releases.folder)]


def _fill(releases: Releases, wheel: Wheel, kept: Path) -> None:
    environment = releases.path(wheel.release) / "venv"
    venv.create(environment, with_pip=False, symlinks=True)
    packages = _packages(environment)
    (packages / _BELOW).write_text("".join(f"{entry}\n" for entry in below(sys.path, releases)))
    command = [sys.executable, "-m", "pip", "--python", str(releases.python(wheel.release)), "install"]
    command += ["--quiet", "--disable-pip-version-check", "--no-input", str(kept)]
    done = _run(command, _PIP_S)
    if done.returncode != 0:
        raise NotInstalled(
            f"expected pip to install {wheel.file.name}, got: status {done.returncode}: {_words(done)}; "
            f"it was: {' '.join(command)}"
        )


def _packages(environment: Path) -> Path:
    return Path(sysconfig.get_path("purelib", "venv", {"base": str(environment), "platbase": str(environment)}))


def _own(environment: Path) -> tuple[str, ...]:
    """Packages that pip put beside the wheel."""
    names = (entry.name.removesuffix(".dist-info") for entry in _packages(environment).glob("*.dist-info"))
    return tuple(sorted(name for name in names if name.partition("-")[0] != PROJECT))


def _prove(releases: Releases, release: Release) -> None:
    """Import it as a daemon would be, in a process of its own.

    Raises:
        NotInstalled: it cannot be, or is not what it says.
    """
    done = _run([str(releases.python(release.name)), "-P", "-c", _PROBE], _IMPORT_S)
    if done.returncode != 0:
        raise NotInstalled(
            f"expected {release.name} to be imported, got: {_words(done)}; nothing was started from it, and it was removed"
        )
    if done.stdout.strip() != release.version:
        raise NotInstalled(f"expected {release.name} to say {release.version}, got: {done.stdout.strip()!r}")


def _run(command: list[str], limit_s: float) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False, cwd="/")
    except subprocess.TimeoutExpired as exc:
        raise NotInstalled(f"expected {command[0]} to be done within {limit_s:g} s, got no end of it") from exc
    except OSError as exc:
        raise NotInstalled(f"expected to run {command[0]}, got: {exc}") from exc


def _words(done: subprocess.CompletedProcess[str]) -> str:
    """What a program said last, on one line."""
    said = " | ".join(line.strip() for line in (done.stderr or done.stdout).strip().splitlines() if line.strip())
    return said if len(said) <= _SHOWN else f"…{said[-_SHOWN:]}"
