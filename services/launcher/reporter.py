"""What the supervisor tells of its children, and the one who writes it to the log.

Reports are handed over one at a time, in order, and never hold up the supervision: a reporter may wait for a bus that is
itself being restarted.
"""

from __future__ import annotations

from typing import Protocol

import structlog

from services.launcher.intensity import GiveUp

log = structlog.get_logger()


class Reporter(Protocol):
    """Hears of what happens to children."""

    async def child_started(self, name: str, pid: int) -> None:
        """It runs and is ready."""
        ...

    async def child_exited(self, name: str, pid: int, status: int, restart_in_s: float | None) -> None:
        """It ended by itself or was killed; `restart_in_s` is None when it stays down."""
        ...

    async def child_gave_up(self, name: str, pid: int, gave_up: GiveUp, status: int, command: str) -> None:
        """It stays down, for the reason given, until a person runs `command`; `pid` is what it was."""
        ...


class LogReporter:
    """Writes every report as one line of the log."""

    async def child_started(self, name: str, pid: int) -> None:
        """Log it."""
        log.info("child_started", name=name, pid=pid)

    async def child_exited(self, name: str, pid: int, status: int, restart_in_s: float | None) -> None:
        """Log it."""
        log.warning("child_exited", name=name, pid=pid, status=describe(status), restart_in_s=restart_in_s)

    async def child_gave_up(self, name: str, pid: int, gave_up: GiveUp, status: int, command: str) -> None:
        """Log it, with what a person can do."""
        log.error(
            "child_gave_up",
            name=name,
            pid=pid,
            status=describe(status),
            reason=gave_up.why,
            remedy=f"look into the log of {name}, then run: {command}",
        )


def describe(status: int) -> str:
    """A status for people: ``exit 3``, ``signal 9``."""
    return f"signal {-status}" if status < 0 else f"exit {status}"
