"""``systems deploy`` and ``systems releases``: versions side by side, rolled out with a gate and back if they do not hold."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import App, Parameter

from bus import errors
from services.cli import output
from services.cli.common import DEFAULTS, Common, Flag
from services.cli.exits import Exit, UsageError
from services.cli.session import operator
from services.home import Home, resolve
from services.ops import rollout
from services.ops.performing import ActionRefused, perform
from services.ops.restart import inside
from services.release import plan as planning
from services.release.release import ALL, INSTALLED, Release, Releases, release_of
from services.release.wheel import Wheel, is_path, read

app = App(name="releases", help="List, show or remove the releases of this home.", help_format="plaintext")


async def deploy(
    release: str,
    /,
    *,
    reason: Annotated[str, Parameter(name=["--reason", "--why"])] = "",
    plan: Flag = False,
    decision: int = 0,
    watch: str = "",
    again: Flag = False,
    common: Common = DEFAULTS,
) -> int:
    """Roll a release out, one daemon after the other, and take it back by itself if it does not hold.

    Each daemon is drained, stopped and started from the release, must be alive by evidence, complete a canary invocation, and
    stay up while it is watched. The launcher is not rolled: what a person does about it is printed at the end.

    Args:
        release: A wheel, a version or a release that `systems releases` lists, or `installed` for what the launcher runs.
        reason: Why; it goes into the record, with your name.
        plan: Show the steps, and do nothing.
        decision: Number of the decision that it rests on, if there is one.
        watch: How long everything rolled must stay up after each step, such as 2m; else `[deploy] watch`.
        again: Also if the release has failed before.
        common: Which fleet, and how to print.
    """
    if not plan and not reason.strip():
        raise UsageError("expected --reason to say why, got: nothing")
    async with operator(common) as session:
        home = session.home
        home.running()
        action = rollout.action(
            session.bus,
            home,
            await session.registry(),
            _meant(home, release),
            who=session.actor,
            why=reason,
            within=inside(os.environ, home),
            watch=watch,
            again=again,
            say=(lambda _: None) if common.json else _say,
        )
        if plan:
            found = await action.plan()
            if common.json:
                output.json(found)
            else:
                print("\n".join(planning.lines(found)))
            return Exit.DONE
        try:
            done = await perform(session.bus, action, who=session.actor, why=reason, decision=decision)
        except errors.PermissionDenied as exc:
            within = inside(os.environ, home)
            if not within:
                raise
            # A handler's child has a login that may ask for work, and nothing else.
            raise ActionRefused(
                f"expected a person's login, got: one of {within}'s handlers ({exc})", action.command
            ) from exc
    _print(msgspec.json.decode(done.evidence) if done.evidence is not None else {}, done.id, common)
    return Exit.DONE


def _meant(home: Home, given: str) -> Wheel | Release | None:
    """What was named: a wheel, a release that is there, or the installation."""
    return read(Path(given)) if is_path(given) else rollout.known(home, given)


def _say(text: str) -> None:
    print(text, flush=True)


def _print(evidence: dict[str, Any], id_: str, common: Common) -> None:
    if common.json:
        output.json({"operation": id_, **evidence})
        return
    print(f"{evidence['release']} is rolled out: systems ops show {id_}")
    for left in evidence["left"]:
        print(f"for a person: {left['who']} still runs what it ran before; run: {left['command']}")


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """A release, and who is started from it."""

    release: Release
    used_by: tuple[str, ...]


@app.default
@app.command
def ls(*, common: Common = DEFAULTS) -> int:
    """List the releases of this home, the oldest first.

    Args:
        common: Which fleet, and how to print.
    """
    releases = Releases(resolve(common.home, os.environ))
    current = releases.current()
    found = [Listed(release=one, used_by=_users(current, one.name)) for one in releases.all()]
    if common.json:
        output.json({"current": current, "releases": found})
        return Exit.DONE
    if not found:
        print("no release was made here yet: systems deploy WHEEL --reason TEXT")
        return Exit.DONE
    rows = [[INSTALLED, "", "", "", "", ", ".join(_users(current, INSTALLED))]]
    for one in found:
        release = one.release
        rows.append(
            [
                release.name,
                release.version,
                release.standing.value,
                f"{release.installed_at:%Y-%m-%d %H:%M:%S}",
                release.installed_by,
                ", ".join(one.used_by),
            ]
        )
    output.table(["release", "version", "standing", "made (UTC)", "by", "started from it"], rows)
    return Exit.DONE


def _users(current: dict[str, str], name: str) -> tuple[str, ...]:
    """Who is started from a release, as `current.json` says. Pure."""
    rest = "everything" if set(current) <= {ALL} else "everything else"
    named = tuple(sorted(daemon for daemon, used in current.items() if daemon != ALL and used == name))
    return (*named, rest) if release_of(current, ALL) == name else named


@app.command
def show(release: str, /, *, common: Common = DEFAULTS) -> int:
    """Show one release: where it came from, what is thought of it and why.

    Args:
        release: Its name, or a version.
        common: Which fleet, and how to print.
    """
    home = resolve(common.home, os.environ)
    releases = Releases(home)
    found = releases.get(release)
    users = _users(releases.current(), found.name)
    if common.json:
        output.json(Listed(release=found, used_by=users))
        return Exit.DONE
    facts = msgspec.structs.asdict(found) | {"used_by": ", ".join(users), "folder": releases.path(found.name)}
    facts["relaunch"] = planning.relaunch(home, "", str(releases.command(found.name)))
    output.facts(((name, value) for name, value in facts.items() if value not in ("", None, ())), 13)
    return Exit.DONE


@app.command
def remove(release: str, /, *, common: Common = DEFAULTS) -> int:
    """Delete a release that nothing is started from, with its environment.

    Args:
        release: Its name, or a version.
        common: Which fleet, and how to print.
    """
    home = resolve(common.home, os.environ)
    releases = Releases(home)
    name = releases.get(release).name
    record = home.launcher()
    for who, runs in (("this command", home.release(sys.prefix)), ("the launcher", record.release if record else "")):
        if runs == name:
            raise errors.Conflict(f"expected a release that nothing runs, got: {name}, which {who} runs")
    releases.remove(name)
    if common.json:
        output.json({"removed": name})
    else:
        print(f"{name} is removed")
    return Exit.DONE
