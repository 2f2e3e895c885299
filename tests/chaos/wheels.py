"""Wheels of this very project, built as anybody builds them, of another version and with whatever is to be wrong with them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_PACKAGES = ("bus", "services", "projections", "infra")
_FILES = ("pyproject.toml", "README.md", "LICENSE")
#: Ends a process some seconds after its daemon was imported, as a fault does that takes its time.
LATER = "\nimport os, threading\nthreading.Timer({seconds}, os._exit, (3,)).start()\n"
#: Ends a process before it has begun.
AT_ONCE = '\nraise RuntimeError("a bad day")\n'


def wheel(folder: Path, version: str, appended: Mapping[str, str] = {}) -> Path:
    """A wheel of a version, with text appended to some of its modules."""
    source = folder / f"source-{version}"
    for name in _PACKAGES:
        shutil.copytree(_ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in _FILES:
        shutil.copy(_ROOT / name, source / name)
    project = source / "pyproject.toml"
    ours = 'version = "0.1.0"'
    text = project.read_text()
    assert text.count(ours) == 1
    project.write_text(text.replace(ours, f'version = "{version}"'))
    for name, more in appended.items():
        file = source / name
        file.write_text(file.read_text() + more)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    return folder / f"systems-{version}-py3-none-any.whl"
