"""What a roll-out would do, step by step. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import msgspec

from services.home import SYSTEMS, Home
from services.release.release import ALL, release_of

#: Who is not rolled: it holds everything else.
LAUNCHER = "launcher"


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of one daemon."""

    daemon: str
    before: str
    after: str
    #: It runs this release already.
    kept: bool = False
    #: The command by which a person does it, because it cannot be done from here; empty for a step that is done.
    command: str = ""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A whole roll-out."""

    release: str
    version: str
    #: What is thought of the release; empty for the installation.
    standing: str
    #: In the order in which they are done: whoever reads events first, whoever writes them last.
    steps: tuple[Step, ...]
    #: Seconds for which everything rolled so far is watched after each step.
    watch_s: float
    #: The command by which a person has the launcher run it too; empty if it does.
    relaunch: str = ""


def steps(
    daemons: Sequence[str],
    current: Mapping[str, str],
    running: Collection[str],
    release: str,
    within: str,
    command: str,
) -> tuple[Step, ...]:
    """The steps of a roll-out.

    Args:
        daemons: in their order of start.
        current: what each is started from, as `current.json` says.
        running: those that run the release, by their own word.
        release: what is rolled out.
        within: the daemon that the process belongs to which rolls out; empty for none.
        command: what a person runs for what cannot be done from there.
    """
    found = []
    for daemon in daemons:
        before = release_of(current, daemon)
        kept = before == release and daemon in running
        by_person = command if daemon == within and not kept else ""
        found.append(Step(daemon=daemon, before=before, after=release, kept=kept, command=by_person))
    return tuple(found)


def settled(current: Mapping[str, str], plan: Plan) -> dict[str, str]:
    """`current.json` after a roll-out that went well: one line for all, and one for each that a person has yet to do."""
    left = {step.daemon: release_of(current, step.daemon) for step in plan.steps if step.command}
    return {ALL: plan.release} | left


def lines(plan: Plan) -> Iterator[str]:
    """The plan, for people."""
    about = f"version {plan.version}" + (f", {plan.standing}" if plan.standing else "")
    yield f"release {plan.release} ({about})"
    number = 0
    for step in plan.steps:
        if step.kept:
            yield f"   {step.daemon}: runs it already"
        elif step.command:
            yield f"   {step.daemon}: by a person, because this runs inside of it: {step.command}"
        else:
            number += 1
            yield (
                f"{number:2d} {step.daemon}: {step.before} -> {step.after}: drain, stop, start; alive by evidence; "
                f"a canary through to its end; {plan.watch_s:g} s of watching all that was rolled"
            )
    if number:
        yield "   what fails takes all of it back to what it was, and marks the release as bad"
    if plan.relaunch:
        yield f"   {LAUNCHER}: by a person, because everything hangs on it: {plan.relaunch}"


def relaunch(home: Home, file: str, systems: str = SYSTEMS) -> str:
    """How a person has the launcher itself run from an environment, which ends everything for some seconds. Pure.

    Args:
        home: the fleet's.
        file: the fleet file; empty for one that nobody knows.
        systems: the command line of that environment.
    """
    return f"{home.command('down', systems=systems)} && {home.launch(file, systems)}"
