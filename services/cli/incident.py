"""``systems incident``: what is open, who has it, and everything that a person does about it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from cyclopts import App

from bus.events import incident as ev
from bus.events.finding import Severity
from services.cli import output
from services.cli.common import DEFAULTS, Common, Flag
from services.cli.exits import Exit, UsageError
from services.cli.session import operator
from services.fleet import durations
from services.incident.desk import Desk
from services.incident.state import Incident
from services.incident.words import status_of

app = App(name="incident", help="Declare, acknowledge, update, hand over and close incidents.", help_format="plaintext")


@asynccontextmanager
async def _desk(common: Common) -> AsyncIterator[Desk]:
    async with operator(common) as session:
        # What an agent's own process runs here speaks for the agent, whoever owns the login.
        parent = os.environ.get("SYSTEMS_PARENT", "")
        yield Desk(session.bus, await session.registry(), f"agent/{parent}" if parent else session.actor)


@app.command(name="ls")
async def list_(*, all_: Flag = False, common: Common = DEFAULTS) -> int:
    """List open incidents, the newest first. Exit status: 0 none, 1 somebody has each, 2 an ultra that nobody has.

    Args:
        all_: Also those that are closed.
        common: Which fleet, and how to print.
    """
    async with _desk(common) as desk:
        found = [one for one in await desk.all() if all_ or one.open]
    if common.json:
        output.json({"incidents": found})
    elif not found:
        print("no incident is open" if not all_ else "there was no incident yet")
    else:
        now = datetime.now(UTC)
        output.table(
            ["incident", "severity", "status", "since (UTC)", "hits", "how it stands", "what"],
            [
                [
                    str(one.number),
                    one.severity.value,
                    one.status.value,
                    f"{one.since:%Y-%m-%d %H:%M:%S}",
                    ", ".join(sorted(one.affected)) or "-",
                    status_of(one, now),
                    one.title,
                ]
                for one in found
            ],
            right=["incident"],
        )
    if any(one.pages for one in found):
        return Exit.FAILED
    return Exit.REFUSED if any(one.open for one in found) else Exit.DONE


@app.command
async def show(number: str, /, *, common: Common = DEFAULTS) -> int:
    """Show one incident: how it stands, what it hits, and its timeline, each line with its event.

    Args:
        number: As `systems incident ls` shows it.
        common: Which fleet, and how to print.
    """
    async with _desk(common) as desk:
        one = await desk.find(number)
        lines = await desk.lines(one)
    if common.json:
        output.json({"incident": one, "timeline": lines})
        return Exit.DONE
    _print(one)
    print()
    output.table(
        ["time (UTC)", "event", "what happened", "who", "what"],
        [[output.moment(line.at), line.event, line.subject, line.who, line.what] for line in lines],
    )
    return Exit.DONE


@app.command
async def declare(
    title: str,
    /,
    *,
    severity: Literal["concern", "ultra"] = "ultra",
    project: tuple[str, ...] = (),
    finding: str = "",
    detail: str = "",
    common: Common = DEFAULTS,
) -> int:
    """Declare an incident. An ultra one calls people; those that a sweep finds are declared by themselves.

    Args:
        title: What is wrong, in one line.
        severity: concern waits for a person, ultra calls one.
        project: A project that it hits; what the causal graph knows comes by itself. May be repeated.
        finding: Fingerprint of the finding that it is about.
        detail: More about it.
        common: Which fleet, and how to print.
    """
    async with _desk(common) as desk:
        one = await desk.declare(title, severity=Severity(severity), projects=project, detail=detail, finding=finding)
    return _done(one, f"incident {one.number} is open ({one.severity})", common)


@app.command
async def ack(number: str, /, *, for_: str = "", take: Flag = False, common: Common = DEFAULTS) -> int:
    """Have an incident: every call stops at once, and begins again when the acknowledgement ends.

    Args:
        number: As `systems incident ls` shows it.
        for_: How long, such as 2h; by default as [incidents] says.
        take: Also when somebody else has it.
        common: Which fleet, and how to print.
    """
    seconds = durations.seconds(for_) if for_ else None
    if seconds is not None and seconds <= 0:
        raise UsageError(f"expected --for above 0, got: {for_}")
    async with _desk(common) as desk:
        one = await desk.acknowledge(number, for_s=seconds, take=take)
    until = f" until {one.owner_until:%Y-%m-%d %H:%M:%S} UTC" if one.owner_until is not None else ""
    return _done(one, f"{one.owner} has incident {one.number}{until}", common)


@app.command
async def update(number: str, text: str, /, *, for_project: tuple[str, ...] = (), common: Common = DEFAULTS) -> int:
    """Tell everybody who is affected; the next update is owed after [incidents] update_every.

    Args:
        number: As `systems incident ls` shows it.
        text: The news.
        for_project: Other words for one project, as PROJECT=TEXT. May be repeated.
        common: Which fleet, and how to print.
    """
    words = [ev.Words(project=project, text=own) for project, own in _pairs("--for-project", for_project, "TEXT")]
    async with _desk(common) as desk:
        one = await desk.update(number, text, words=words)
    next_ = f"; the next is owed by {one.next_at:%H:%M:%S} UTC" if one.next_at is not None else ""
    return _done(one, f"told {', '.join(sorted(one.affected)) or 'nobody: no project is affected'}{next_}", common)


@app.command
async def note(number: str, text: str, /, *, common: Common = DEFAULTS) -> int:
    """Add to the timeline; no channel of an affected project gets it.

    Args:
        number: As `systems incident ls` shows it.
        text: What is worth knowing.
        common: Which fleet, and how to print.
    """
    async with _desk(common) as desk:
        one = await desk.note(number, text)
    return _done(one, f"noted in incident {one.number}", common)


@app.command
async def assign(number: str, commander: str, /, *, common: Common = DEFAULTS) -> int:
    """Put somebody in command of an incident, or hand it over.

    Args:
        number: As `systems incident ls` shows it.
        commander: Who leads from now on.
        common: Which fleet, and how to print.
    """
    async with _desk(common) as desk:
        one = await desk.assign(number, commander)
    return _done(one, f"{one.commander} is in command of incident {one.number}", common)


@app.command
async def severity(
    number: str, severity: Literal["concern", "ultra"], /, *, why: str = "", common: Common = DEFAULTS
) -> int:
    """Say how bad an incident is: only ultra calls people.

    Args:
        number: As `systems incident ls` shows it.
        severity: concern waits for a person, ultra calls one.
        why: For the timeline.
        common: Which fleet, and how to print.
    """
    async with _desk(common) as desk:
        one = await desk.severity(number, Severity(severity), why)
    return _done(one, f"incident {one.number} is {one.severity}", common)


@app.command
async def affect(
    number: str,
    /,
    *,
    add: tuple[str, ...] = (),
    remove: tuple[str, ...] = (),
    why: str = "",
    common: Common = DEFAULTS,
) -> int:
    """Say which projects an incident hits, and which not; the causal graph does not overrule it.

    Args:
        number: As `systems incident ls` shows it.
        add: A project that it hits. May be repeated.
        remove: A project that it does not hit. May be repeated.
        why: What it means for those that are added.
        common: Which fleet, and how to print.
    """
    if not add and not remove:
        raise UsageError("expected --add PROJECT or --remove PROJECT, got: neither")
    async with _desk(common) as desk:
        one = await desk.affect(number, add=add, remove=remove, why=why)
    return _done(one, f"incident {one.number} hits {', '.join(sorted(one.affected)) or 'no project'}", common)


@app.command
async def mitigate(number: str, /, *, text: str = "", common: Common = DEFAULTS) -> int:
    """Say that an incident does no more harm: nobody is called, and updates are still owed until it is closed.

    Args:
        number: As `systems incident ls` shows it.
        text: What was done.
        common: Which fleet, and how to print.
    """
    async with _desk(common) as desk:
        one = await desk.mitigate(number, text)
    return _done(one, f"incident {one.number} is mitigated", common)


@app.command
async def close(number: str, /, *, cause: str, action: tuple[str, ...] = (), common: Common = DEFAULTS) -> int:
    """Close an incident; a post-mortem is drafted for `systems incident export`.

    Args:
        number: As `systems incident ls` shows it.
        cause: What it was.
        action: What is still to be done, as TEXT or OWNER=TEXT. May be repeated.
        common: Which fleet, and how to print.
    """
    actions = [_action(text) for text in action]
    async with _desk(common) as desk:
        one = await desk.close(number, cause, actions)
    return _done(one, f"incident {one.number} is closed; its post-mortem: systems incident export {one.number}", common)


@app.command
async def reopen(number: str, /, *, why: str, common: Common = DEFAULTS) -> int:
    """Open a closed incident again: it is not over after all, and people are called.

    Args:
        number: As `systems incident ls` shows it.
        why: For the timeline and those who are affected.
        common: Which fleet, and how to print.
    """
    async with _desk(common) as desk:
        one = await desk.reopen(number, why)
    return _done(one, f"incident {one.number} is open again", common)


@app.command
async def export(number: str, /, *, file: Path | None = None, common: Common = DEFAULTS) -> int:
    """Print the post-mortem of an incident as Markdown, as things stand now.

    Args:
        number: As `systems incident ls` shows it.
        file: Where to write it, instead of printing it.
        common: Which fleet, and how to print.
    """
    async with _desk(common) as desk:
        one = await desk.find(number)
        text = await desk.export(one)
    if file is not None:
        file.write_text(text)
    if common.json:
        output.json({"incident": one, "markdown": text, "file": str(file) if file is not None else ""})
    else:
        print(text.rstrip() if file is None else f"written to {file}")
    return Exit.DONE


def _pairs(option: str, given: Sequence[str], what: str) -> list[tuple[str, str]]:
    pairs = []
    for one in given:
        name, equals, text = one.partition("=")
        if not equals or not name.strip() or not text.strip():
            raise UsageError(f"expected {option} PROJECT={what}, got: {one!r}")
        pairs.append((name.strip(), text.strip()))
    return pairs


def _action(text: str) -> ev.Action:
    owner, equals, rest = text.partition("=")
    if equals and owner.strip() and " " not in owner.strip():
        return ev.Action(text=rest.strip(), owner=owner.strip())
    return ev.Action(text=text.strip())


def _done(one: Incident, said: str, common: Common) -> int:
    if common.json:
        output.json(one)
    else:
        print(said)
    return Exit.DONE


def _print(one: Incident) -> None:
    now = datetime.now(UTC)
    facts = {
        "incident": f"{one.number} ({one.severity}, {one.status}): {one.title}",
        "stands": status_of(one, now),
        "since": f"{one.since:%Y-%m-%d %H:%M:%S} UTC",
        "commander": one.commander or "nobody",
        "detail": one.detail,
        "look": one.command,
        "news": one.news,
        "next news": f"{one.next_at:%Y-%m-%d %H:%M:%S} UTC" if one.next_at is not None else "",
        "cause": one.cause,
    }
    shown = [(name, value) for name, value in facts.items() if value]
    shown += [("hits", f"{project}: {impact.reason}") for project, impact in sorted(one.affected.items())]
    for part in one.findings.values():
        state = "gone" if part.recovered_at is not None else "there"
        shown.append(("finding", f"{part.finding} ({state}, {part.reason}): {part.title}"))
    for line in one.lines:
        state = "called" if line.ok and not line.failing else f"fails: {line.error}" if line.failing else "being called"
        shown.append(("call", f"{line.person} by {line.way} (step {line.level}): {state}"))
    shown += [("action", f"{action.text} ({action.owner or 'no owner yet'})") for action in one.actions]
    output.facts(shown, 9)
