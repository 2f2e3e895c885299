"""``systems check``: whether a fleet file can be used, with every fault of it at once."""

from __future__ import annotations

from pathlib import Path

from services.cli import output
from services.cli.common import DEFAULTS, Common
from services.cli.exits import Exit
from services.fleet import file as fleet_file


def check(file: Path, /, *, common: Common = DEFAULTS) -> int:
    """Check a fleet file. Needs no running fleet. Exit status 64 if it has problems.

    Args:
        file: The fleet file, such as fleet.toml.
        common: How to print.
    """
    try:
        loaded = fleet_file.load(file)
    except fleet_file.FleetFileError as exc:
        if common.json:
            problems = [{"line": p.line, "path": p.path, "sentence": p.sentence} for p in exc.problems]
            output.json({"file": str(file), "ok": False, "problems": problems})
        output.note(str(exc))
        count = len(exc.problems)
        output.note(f"systems: {count} problem{'' if count == 1 else 's'} in {file}")
        return Exit.USAGE
    fleet = loaded.fleet
    facts = {
        "projects": len(fleet.projects),
        "roles": len(fleet.roles()),
        "prompts": len(fleet.prompts),
        "schedules": sum(len(role.schedules) for role in fleet.roles().values()),
    }
    if common.json:
        output.json({"file": str(loaded.path), "ok": True, "problems": [], "digest": loaded.digest} | facts)
    else:
        print(f"{file}: no problems; " + ", ".join(f"{name}: {count}" for name, count in facts.items()))
    return Exit.DONE
