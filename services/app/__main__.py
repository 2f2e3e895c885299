"""Run one daemon until SIGTERM: ``python -m services.app KIND --home DIR --fleet FILE --instance NAME``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import structlog
import uvloop

from bus import errors
from services import logs
from services.fleet.spec import Projector as Tables
from services.home import Home

log = structlog.get_logger()

KINDS = ("launcher", "warden", "agent_runner", "projector", "slack_mirror")


def main(arguments: list[str] | None = None) -> int:
    """Run one daemon: the exit status."""
    parser = argparse.ArgumentParser(prog="python -m services.app", description="Run one daemon of a fleet.")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--home", required=True, type=Path)
    parser.add_argument("--fleet", required=True, type=Path)
    parser.add_argument("--instance", default="launcher")
    parser.add_argument("--only", default="", metavar="PROJECT", help="an agent_runner's one project")
    parser.add_argument("--memory-mb", type=int, default=Tables().memory_mb, help="what a projector's tables may use")
    parser.add_argument(
        "--publish-s", type=float, default=Tables().publish, help="seconds between a projector's copies"
    )
    parser.add_argument("--queries", type=Path, help="a folder of named queries for a projector")
    parser.add_argument("--archive", default="{}", metavar="JSON", help="the fleet file's table [archive], as JSON")
    options = parser.parse_args(arguments)
    logs.configure()
    home = Home(options.home)
    try:
        uvloop.run(_work(home, options))
    except errors.BusError as exc:
        log.error("daemon_ended", error=str(exc))
        return 1
    return 0


def _work(home: Home, options: argparse.Namespace) -> Coroutine[Any, Any, None]:
    """The daemon that was asked for; it alone is imported, because each costs the others memory and time to start."""
    match options.kind:
        case "launcher":
            from services.app.launcher import run_launcher  # noqa: PLC0415

            return run_launcher(home, options.fleet.resolve())
        case "warden":
            from services.app.warden import run_warden  # noqa: PLC0415

            return run_warden(home, options.instance)
        case "projector":
            from services.app.projector import run_projector  # noqa: PLC0415

            return run_projector(home, options.instance, options)
        case "slack_mirror":
            from services.app.slack_mirror import run_mirror  # noqa: PLC0415

            return run_mirror(home, options.instance)
        case _:
            from services.app.agent_runner import run_runner  # noqa: PLC0415

            return run_runner(home, options.instance, options.fleet.resolve().parent, options.only)


if __name__ == "__main__":
    sys.exit(main())
