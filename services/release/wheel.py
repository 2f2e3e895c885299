"""A wheel of this program, looked through before anything is made of it."""

from __future__ import annotations

import hashlib
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import msgspec

from bus import errors

#: What a wheel of this program is called.
PROJECT = "systems"
#: Digits of the digest that a release's name ends with.
_DIGITS = 12


class BadWheel(errors.BusError):
    """A file that no release can be made of."""

    def __init__(self, file: Path, got: str) -> None:
        super().__init__(
            f"expected {file} to be a wheel of {PROJECT}, got: {got}; make one with `pip wheel --no-deps .` or "
            "`python -m build --wheel` in the project's folder"
        )


class Wheel(msgspec.Struct, frozen=True, kw_only=True):
    """What a wheel says of itself."""

    file: Path
    version: str
    digest: str

    @property
    def release(self) -> str:
        """Name of the release that is made of it."""
        return f"{self.version}-{self.digest[:_DIGITS]}"


def is_path(given: str) -> bool:
    """Whether a name means a file, and not a version or a release. Pure."""
    return given.endswith(".whl") or "/" in given


def read(file: Path) -> Wheel:
    """Look through a wheel.

    Raises:
        BadWheel: it cannot be read, is no wheel, or is one of something else.
    """
    try:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
            names = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
            metadata = HeaderParser().parsestr(archive.read(names[0]).decode()) if len(names) == 1 else None
    except OSError as exc:
        raise BadWheel(file, exc.strerror or str(exc)) from exc
    except (zipfile.BadZipFile, UnicodeDecodeError) as exc:
        raise BadWheel(file, str(exc)) from exc
    if damaged is not None:
        raise BadWheel(file, f"{damaged} in it is damaged")
    if metadata is None:
        raise BadWheel(file, "a ZIP file with no metadata of a package")
    if metadata["Name"] != PROJECT:
        raise BadWheel(file, f"a wheel of {metadata['Name']}")
    return Wheel(file=file.resolve(), version=str(metadata["Version"]), digest=digest)
