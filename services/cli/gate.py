"""``systems gate``: what an agent does outside the bus asks the same gate as every write.

``systems gate -- git push`` runs the command only if the fleet is not frozen, and, inside a handler's child process or with
``--role``, if the role is not paused or capped and its run tree not stopped. Who cannot ask is refused: exit status 75 and
one line, as for every guard.
"""

from __future__ import annotations

import os
from typing import Annotated

from cyclopts import Parameter

from bus import errors
from bus.refusal import GuardRefused, Reason, Refusal
from services.cli import output
from services.cli.common import DEFAULTS, Common
from services.cli.exits import CommandFailed, Exit
from services.cli.session import operator


async def gate(
    *command: Annotated[str, Parameter(allow_leading_hyphen=True)],
    role: str = "",
    common: Common = DEFAULTS,
) -> int:
    """Run a command only if no guard refuses it now. Without a command, say how it is.

    Args:
        command: What to run, after --.
        role: PROJECT/ROLE that it is done for. Else $SYSTEMS_ROLE, as handlers' child processes have it.
        common: Which fleet, and how to print.
    """
    asked = role or os.environ.get("SYSTEMS_ROLE", "")
    refusal = await _ask(asked, os.environ.get("SYSTEMS_ROOT", "") if not role else "", common)
    if refusal is not None:
        raise GuardRefused(refusal)
    if not command:
        if common.json:
            output.json({"allowed": True})
        else:
            print("open")
        return Exit.DONE
    try:
        os.execvp(command[0], command)  # noqa: S606 (the command is the caller's own)
    except OSError as exc:
        raise CommandFailed(
            f"expected a command that can be run, got: {command[0]!r} ({exc.strerror})", Exit.USAGE
        ) from exc


async def _ask(role: str, root: str, common: Common) -> Refusal | None:
    try:
        async with operator(common) as session:
            return session.bus.gate.refusal(role=role, root=root)
    except errors.BusUnreachable as exc:
        return Refusal(
            reason=Reason.UNVERIFIED_FLAG,
            scope="system",
            because=f"the kill switch cannot be read ({' '.join(str(exc).split())})",
            clears="the server",
            command="systems status",
        )
