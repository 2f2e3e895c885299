"""``systems restart`` and ``systems reload``: a daemon begins anew, or the fleet file comes into effect, while work goes on."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from services.cli import output
from services.cli.common import DEFAULTS, Common, Flag
from services.cli.exits import Exit
from services.cli.session import operator
from services.fleet import durations
from services.ops import asked
from services.ops.restart import inside


async def restart(daemon: str, /, *, reason: str, within: str = "", common: Common = DEFAULTS) -> int:
    """Drain a daemon, stop it, start it, and wait until it is alive by evidence. Nothing is lost.

    Args:
        daemon: As `systems status` shows it.
        reason: Why; it goes into the record, with your name.
        within: How long it may take, such as 2m; else twice the longest grace of a role, and a minute more.
        common: Which fleet, and how to print.
    """
    async with operator(common) as session:
        done = await asked.restart(
            session.bus,
            session.home,
            await session.registry(),
            daemon,
            who=session.actor,
            why=reason,
            within=inside(os.environ, session.home),
            limit_s=durations.seconds(within) if within else None,
        )
    evidence = msgspec.json.decode(done.evidence) if done.evidence is not None else {}
    if common.json:
        output.json({"operation": done.id, "daemon": daemon, **evidence})
        return Exit.DONE
    after = evidence["after"]
    boot = f", boot id {after['boot_id']}" if "boot_id" in after else ""
    print(f"{daemon} is alive after {output.age(evidence['alive_after_s'])}: pid {after['pid']}{boot}")
    return Exit.DONE


async def reload(
    *, fleet: Path | None = None, exactly: Flag = False, reason: str = "", common: Common = DEFAULTS
) -> int:
    """Take what the fleet file has changed, while the fleet runs. What runs finishes as it began.

    Args:
        fleet: The fleet file, instead of the one that was taken last.
        exactly: Take all of it, over what was set since by commands, and remove what it does not know.
        reason: Why; it goes into the record, with your name.
        common: Which fleet, and how to print.
    """
    async with operator(common) as session:
        file = fleet.resolve() if fleet is not None else asked.file_of(await session.registry())
        done = await asked.reload(session.bus, file, who=session.actor, why=reason, exact=exactly)
    evidence = msgspec.json.decode(done.evidence) if done.evidence is not None else {}
    if common.json:
        output.json({"operation": done.id, **evidence})
        return Exit.DONE
    count = evidence["changes"]
    print(f"{file}: revision {evidence['revision']}, {count} setting{'' if count == 1 else 's'} changed")
    for name, seconds in evidence["taken_up_after_s"].items():
        if seconds is None:
            output.note(f"systems: {name} has not said yet that it runs with it: systems status")
        else:
            print(f"  {name} runs with it after {output.age(seconds)}")
    if evidence["at_next_start"]:
        late = ", ".join(evidence["at_next_start"])
        output.note(f"systems: {late}: in effect after the next start of the launcher: systems down, systems up")
    return Exit.DONE
