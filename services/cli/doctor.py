"""``systems doctor``: whether this installation can run a fleet, and what to do where it cannot."""

from __future__ import annotations

import os
from pathlib import Path

from bus import context, errors
from services.cli import output
from services.cli.common import DEFAULTS, Common
from services.cli.fleet import fleet_file
from services.cli.session import speak_plainly
from services.doctor import bus, calls, machine
from services.doctor.check import Check, Level, worst
from services.home import Home, resolve

_SHOWN = {Level.OK: ("ok", "green"), Level.WARNING: ("warning", "yellow"), Level.FAILURE: ("FAILURE", "red")}


async def doctor(*, fleet: Path | None = None, common: Common = DEFAULTS) -> int:
    """Check this installation, with or without a running fleet. Exit status: 0 fine, 1 warnings, 2 failures.

    Args:
        fleet: The fleet file. Else fleet.toml here, else the example that ships with the project.
        common: Which fleet, and how to print.
    """
    speak_plainly()
    home = resolve(common.home, os.environ)
    checks = await _all(home, fleet_file(fleet), common)
    level = worst(checks)
    if common.json:
        output.json({"level": level.name.lower(), "checks": [_row(check) for check in checks]})
        return int(level)
    for check in checks:
        word, colour = _SHOWN[check.level]
        print(f"{output.paint(word.ljust(8), colour)} {check.name.ljust(12)} {check.found}")
        if check.remedy:
            print(f"{' ' * 22}{output.paint('do:', 'bold')} {check.remedy}")
    return int(level)


def _row(check: Check) -> dict[str, str]:
    return {"name": check.name, "level": check.level.name.lower(), "found": check.found, "remedy": check.remedy}


async def _all(home: Home, file: Path, common: Common) -> list[Check]:
    told, loaded = machine.fleet_file(file)
    checks = [
        machine.python(),
        await machine.nats_server(),
        *machine.home_rights(home),
        machine.disk(home),
        machine.files(),
        machine.clock(home),
        machine.spool(home),
        *machine.leftovers(home),
        told,
        *([machine.ports(home, loaded), calls.look(loaded.fleet, home, os.environ)] if loaded is not None else []),
    ]
    named = bool(common.server or common.context)
    where: context.Context | None = None
    if named or home.launcher() is not None:
        try:
            where = context.load(home.path, common.server, common.context, os.environ)
        except errors.BusUnreachable:
            where = None  # its launcher is about to make it, or to end
    return checks + await bus.look(home, where)
