"""The fleet file: TOML to :class:`~services.fleet.spec.Fleet`, with every fault of the file reported at once.

Each problem names its line, its key, what was expected, what came, and the remedy. A file with any problem gives no fleet
at all: half a fleet would be started on half of what its owner meant.

Blocks while it reads the file and the prompts beside it; meant for a start or a reload, not for a hot path.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from bus import errors
from services.fleet import checks, place
from services.fleet.reading import Problem, Reader, no_utf8
from services.fleet.spec import Fleet


class FleetFileError(errors.BusError):
    """A fleet file that cannot be used; all that is wrong with it."""

    def __init__(self, file: Path, problems: tuple[Problem, ...]) -> None:
        self.file, self.problems = file, problems
        super().__init__("\n".join(f"{file}{f':{p.line}' if p.line else ''}: {p}" for p in problems))


class LoadedFleet(msgspec.Struct, frozen=True, kw_only=True):
    """A fleet file that was read, with the texts of its prompts."""

    fleet: Fleet
    #: The file itself.
    path: Path
    #: The files of its prompts.
    files: tuple[Path, ...] = ()
    #: Where it lies: what relative programs, modules and prompts are taken from.
    folder: Path
    #: ``sha-256:`` of the fleet with its prompts; the same content gives the same digest, whatever its layout.
    digest: str

    @property
    def prompts(self) -> dict[str, str]:
        """Text of each prompt by its name."""
        return {name: prompt.text for name, prompt in self.fleet.prompts.items()}


def load(path: Path) -> LoadedFleet:
    """Read a fleet file and the prompts that it names.

    Raises:
        FleetFileError: it is missing, is no TOML, or describes no fleet; holds every problem, in the order of lines.
    """
    path = path.expanduser()
    text = _read(path)
    reader = Reader(path, _parse(path, text), place.places(text))
    fleet = reader.fleet()
    if reader.problems:
        raise FleetFileError(path, tuple(sorted(reader.problems, key=lambda p: (p.line, p.path))))
    digest = hashlib.sha256(msgspec.json.encode(fleet, order="deterministic")).hexdigest()
    whole = path.resolve()
    files = tuple(whole.parent / name for name in reader.files)
    return LoadedFleet(fleet=fleet, path=whole, files=files, folder=whole.parent, digest=f"sha-256:{digest}")


def from_tables(raw: dict[str, Any], name: str) -> Fleet:
    """A fleet from tables that lie in no file, by the same checks.

    Args:
        raw: as ``tomllib`` would give them; prompts carry their text.
        name: what the tables are called in the sentences.

    Raises:
        FleetFileError: they describe no fleet; its problems name no lines.
    """
    reader = Reader(Path(name), raw, None)
    fleet = reader.fleet()
    if reader.problems:
        raise FleetFileError(Path(name), tuple(sorted(reader.problems, key=lambda p: p.path)))
    return fleet


def faults_of(kind: type[msgspec.Struct], raw: dict[str, Any], known: checks.Known) -> tuple[Problem, ...]:
    """All that is wrong with one table by itself; `known` is what it may name."""
    reader = Reader(Path(), raw, None, known)
    reader.value(kind)
    return tuple(reader.problems)


def _read(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except FileNotFoundError as exc:
        remedy = "name another with --fleet FILE, or begin with a copy of the example fleet, infra/example/fleet.toml"
        raise FleetFileError(path, (Problem(0, "", f"expected a fleet file, got none; {remedy}"),)) from exc
    except OSError as exc:
        sentence = f"expected a fleet file that can be read, got: {exc.strerror}"
        raise FleetFileError(path, (Problem(0, "", sentence),)) from exc
    try:
        return raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as exc:
        raise FleetFileError(path, (no_utf8(exc),)) from exc


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        why, _, where = str(exc).rpartition(" (at ")
        numbers = re.findall(r"\d+", where)
        line = int(numbers[0]) if numbers else max(1, len(text.splitlines()))
        column = f" at column {numbers[1]}" if numbers else ""
        raise FleetFileError(path, (Problem(line, "", f"expected TOML, got an error{column}: {why}"),)) from exc
    except RecursionError as exc:
        raise FleetFileError(path, (Problem(0, "", "expected TOML, got values nested too deep"),)) from exc
