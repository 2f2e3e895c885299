"""``systems drill``: prove the guards on the running fleet, with a real fault for each."""

from __future__ import annotations

from typing import Literal

from bus.events.drill import Failed, Passed
from services import credentials
from services.cli import output
from services.cli.common import DEFAULTS, Common
from services.cli.exits import Exit, UsageError
from services.cli.session import operator
from services.drill.drill import Drill, alone, prove
from services.drill.kill_switch import KillSwitch
from services.drill.loop import Loop
from services.drill.orphan import Orphan
from services.drill.poison import Poison
from services.drill.quota import Quota

#: In the order in which `all` proves them.
DRILLS: tuple[Drill, ...] = (KillSwitch(), Quota(), Orphan(), Poison(), Loop())

Name = Literal["kill-switch", "quota", "orphan", "poison", "loop", "all"]


async def drill(*names: Name, common: Common = DEFAULTS) -> int:
    """Prove guards on the running fleet: inject a real fault in a project of its own, watch, measure, clear away.

    Real work goes on meanwhile. Each result is an event, and `systems status` shows when each guard was last proven.
    Exit status 1 when a guard did not fire. `[drills] every = "1d"` in the fleet file has it done by the clock.

    Args:
        names: Which guards; `all` for each of them.
        common: Which fleet, and how to print.
    """
    if not names:
        raise UsageError(f"expected guards to prove: {', '.join(d.name for d in DRILLS)}, or all; got: none")
    chosen = [one for one in DRILLS if one.name in names or "all" in names]
    results: dict[str, Passed | Failed] = {}
    async with operator(common, credentials.DRILL) as session:
        with alone(session.home):
            for one in chosen:
                results[one.name] = await prove(one, session.bus, session.home, session.actor)
                if not common.json:
                    _print(one, results[one.name])
    failed = [name for name, result in results.items() if isinstance(result, Failed)]
    if common.json:
        said = [{"drill": name, "passed": name not in failed, "result": result} for name, result in results.items()]
        output.json({"passed": not failed, "drills": said})
    return Exit.REFUSED if failed else Exit.DONE


def _print(one: Drill, result: Passed | Failed) -> None:
    margin = max(len(each.guard) for each in DRILLS) + 2
    if isinstance(result, Passed):
        said = output.paint("passed", "green") + f" in {output.age(result.took_s)}"
        lines = result.evidence
    else:
        said = output.paint("FAILED", "red") + f": expected {result.expected}, got: {result.got}"
        lines = result.evidence[-5:]
    print(f"{one.guard.ljust(margin)}{said}", flush=True)
    for line in lines:
        print(output.paint(f"{' ' * margin}{line}", "dim"), flush=True)
