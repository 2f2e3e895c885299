"""The systemd units: systemd itself finds nothing wrong with them, and they say what the launcher lives up to."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from services.launcher.main import STOP_MARGIN_S

UNITS = Path(__file__).parents[2] / "infra" / "systemd"
#: The exposure that `systemd-analyze security` may find at most, in tenths.
EXPOSED = 25


def installed(folder: Path, name: str) -> Path:
    """A unit as it would be on this machine: with the program and a user that are here, one instance of a template."""
    text = (UNITS / name).read_text()
    text = text.replace("/opt/systems/bin/systems", str(Path(sys.executable).parent / "systems"))
    unit = folder / name.replace("@.", "@shop.")
    unit.write_text(text.replace("User=systems", "User=root").replace("Group=systems", "Group=root"))
    return unit


@pytest.mark.parametrize("name", ["systems.service", "systems@.service"])
def test_systemd_accepts_the_unit(tmp_path: Path, name: str) -> None:
    """`systemd-analyze verify` has nothing to say, and the sandbox is as tight as it was."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not there")
    unit = str(installed(tmp_path, name))
    verified = subprocess.run([analyze, "verify", unit], capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")
    command = [analyze, "security", "--offline=true", f"--threshold={EXPOSED}", unit]
    exposed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert exposed.returncode == 0, exposed.stdout[-2000:]


@pytest.mark.parametrize("name", ["systems.service", "systems@.service"])
def test_unit_lets_the_launcher_do_its_work(name: str) -> None:
    """Ready is said by the launcher, a watchdog watches it, its children are its own to stop, and it gets the time for that."""
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.read(UNITS / name)
    service = unit["Service"]
    assert (service["Type"], service["NotifyAccess"], service["KillMode"]) == ("notify", "main", "mixed")
    assert int(service["WatchdogSec"]) > 0
    assert service["Restart"] == "on-failure"
    assert int(service["TimeoutStopSec"].removesuffix("min")) * 60 > STOP_MARGIN_S
    assert service["OOMPolicy"] == "continue"
