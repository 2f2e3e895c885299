"""``systems config``: the settings in effect, one revision after another: shown, changed, compared and brought back.

They lie in the bucket ``registry``, whose revision is theirs. A change is checked as a whole by the fleet file's checks,
written as a whole, and refused over settings that somebody else has changed meanwhile.
"""

from __future__ import annotations

import asyncio
import copy
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import App, Parameter

from bus import errors
from bus.events.topology import Change
from services.cli import output
from services.cli.common import DEFAULTS, Common
from services.cli.exits import CommandFailed, Exit, UsageError
from services.cli.session import Session, operator
from services.config import changing, drift, history, tables
from services.config.changing import ChangeSettings, Present
from services.config.tables import Tables
from services.fleet.entries import entries
from services.fleet.file import FleetFileError, load
from services.fleet.spec import Fleet
from services.fleet.toml import dumps
from services.ops import asked
from services.ops.operation import Operation
from services.ops.performing import ActionRefused, perform

app = App(
    name="config",
    help="Show, change, compare and bring back the settings in effect.",
    help_format="plaintext",
)

#: Characters of a value that a line shows.
_SHOWN = 70
_Number = Annotated[int, Parameter(show_default=False)]
#: Times that a change is made again over what somebody else has changed meanwhile.
_TRIES = 5


@app.command
async def get(path: str = "", /, *, common: Common = DEFAULTS) -> int:
    """Show the settings in effect: what is set, or one of them with its default.

    Args:
        path: A setting or a table, such as loop.depth, shop/coder or shop/coder.timeout; all that is set if left out.
        common: Which fleet, and how to print.
    """
    async with operator(common) as session:
        seen = await changing.read(session.bus)
    if path:
        # Not checked as a whole: what was put by hand must be shown as it is.
        whole = tables.full(msgspec.convert(seen.tables, Fleet))
        found = tables.get(whole, tables.path(path))
    else:
        found = seen.tables
    if common.json:
        output.json({"revision": seen.revision, "settings": found} if not path else found)
    elif isinstance(found, dict):
        for keys, value in tables.flat(found):
            print(f"{tables.dotted(keys)} = {output.clipped(_shown(value), 200)}")
    else:
        print(_shown(found))
    return Exit.DONE


def _shown(value: Any) -> str:
    return msgspec.json.encode(value).decode()


@app.command(name="set")
async def set_(
    *settings: str,
    reason: str,
    unset: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
    revision: _Number = 0,
    decision: _Number = 0,
    common: Common = DEFAULTS,
) -> int:
    """Change settings, all of them or none.

    Args:
        settings: PATH=VALUE, such as loop.depth=8, shop/coder.timeout=90s or shop/coder.idempotent=false.
        reason: Why; it goes into the record, with your name.
        unset: A setting whose default is to count again. May be repeated.
        revision: Only over this revision of the settings, as `systems config get` shows it with --output json.
        decision: Number of the decision that it rests on; limits of guards and caps ask for one.
        common: Which fleet, and how to print.
    """
    wanted = [_assignment(text) for text in settings]
    removed = [tables.path(text) for text in unset]
    if not wanted and not removed:
        raise UsageError("expected at least one PATH=VALUE or --unset PATH, got none")

    def change(present: Tables) -> Tables:
        for keys, value in wanted:
            tables.put(present, keys, value)
        for keys in removed:
            tables.remove(present, keys)
        return present

    async with operator(common) as session:
        done = await _changed(session, "config", change, reason, revision, decision)
    return _tell(done, common)


def _assignment(text: str) -> tuple[tables.Path, Any]:
    path, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"expected PATH=VALUE, such as loop.depth=8, got: {text!r}")
    return tables.path(path.strip()), tables.value(value.strip())


async def _changed(
    session: Session, name: str, change: Callable[[Tables], Tables], reason: str, revision: int, decision: int
) -> Operation | None:
    """Change the settings; over what others change meanwhile again, unless a revision was named. None: nothing differs."""
    for attempt in range(_TRIES):
        seen = await changing.read(session.bus)
        if revision and revision != seen.revision:
            no = await changing.stale(session.bus, revision)
            reason_ = no.reason if no is not None else f"expected revision {revision}, got: {seen.revision}"
            raise errors.Conflict(
                f"{reason_}; see `systems config diff {revision} {seen.revision}`; nothing was changed"
            )
        edit = changing.prepare(seen, change(copy.deepcopy(seen.tables)))
        if not edit.fields:
            return None
        action = ChangeSettings(session.bus, name, edit, session.actor, reason)
        try:
            return await perform(session.bus, action, who=session.actor, why=reason, decision=decision)
        except (errors.Conflict, ActionRefused):
            changed = await session.bus.bucket("registry").revision() != seen.revision
            if revision or not changed or attempt == _TRIES - 1:
                raise
    raise AssertionError("the last try returns or raises")


def _tell(done: Operation | None, common: Common) -> int:
    if done is None or done.evidence is None:
        if common.json:
            output.json({"revision": None, "changes": []})
        else:
            print("no difference")
        return Exit.DONE
    evidence = msgspec.json.decode(done.evidence)
    if common.json:
        output.json({"operation": done.id, **evidence})
        return Exit.DONE
    _print_changes([msgspec.convert(change, Change) for change in evidence["changes"]])
    print(f"revision {evidence['revision']}, over {evidence['over']}")
    late = evidence["at_next_start"]
    if late:
        output.note(
            f"systems: {', '.join(late)}: in effect after the next start of the launcher: systems down, systems up"
        )
    return Exit.DONE


def _print_changes(changes: list[Change] | tuple[Change, ...]) -> None:
    for change in changes:
        before, after = output.clipped(change.before, _SHOWN), output.clipped(change.after, _SHOWN)
        print(f"{output.paint('~', 'yellow')} {change.field} {before} -> {after}")


@app.command
async def edit(*, reason: str, decision: _Number = 0, common: Common = DEFAULTS) -> int:
    """Change the settings in your editor ($VISUAL, else $EDITOR, else vi), as a fleet file.

    Args:
        reason: Why; it goes into the record, with your name.
        decision: Number of the decision that it rests on; limits of guards and caps ask for one.
        common: Which fleet, and how to print.
    """
    async with operator(common) as session:
        seen = await changing.read(session.bus)
        folder = Path(tempfile.mkdtemp(prefix="systems-config-"))
        file = folder / "settings.toml"
        file.write_text(
            f"# Settings at revision {seen.revision}. Save and leave the editor to put them into effect.\n{dumps(seen.tables)}"
        )
        wanted = await asyncio.to_thread(_edited, file, seen)
        done = await _changed(session, "config", lambda _: wanted, reason, seen.revision, decision) if wanted else None
    file.unlink()
    folder.rmdir()
    return _tell(done, common)


def _edited(file: Path, seen: Present) -> Tables | None:
    """What a person made of the settings; None for nothing else.

    Raises:
        UsageError: it is no good; the file stays where it is.
    """
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    while True:
        ended = subprocess.run([*shlex.split(editor), str(file)], check=False)
        if ended.returncode:
            raise CommandFailed(
                f"the editor ended with status {ended.returncode}; nothing was changed, see {file}", Exit.FAILED
            )
        try:
            loaded = load(file)
        except FleetFileError as exc:
            if not sys.stdin.isatty():
                raise UsageError(f"{exc}\nnothing was changed; your text is in {file}") from exc
            output.note(str(exc))
            if input("Edit again? [Y/n] ").strip().lower().startswith("n"):
                raise UsageError(f"nothing was changed; your text is in {file}") from exc
        else:
            wanted = tables.of_values(entries(loaded.fleet, loaded.prompts))
            return None if wanted == seen.tables else wanted


@app.command
async def diff(first: str = "", second: str = "", /, *, fleet: Path | None = None, common: Common = DEFAULTS) -> int:
    """Show what differs: between the fleet file and what is in effect, or between revisions. Exit status 1 for a difference.

    Args:
        first: A revision; the fleet file if left out.
        second: Another revision; what is in effect if left out.
        fleet: The fleet file, instead of the one that was taken last.
        common: Which fleet, and how to print.
    """
    async with operator(common) as session:
        if first:
            changes = await _between(session, _revision(first), _revision(second) if second else 0)
        else:
            registry = await session.registry()
            changes = drift.against_file(registry.values, load(fleet or asked.file_of(registry)))
    if common.json:
        output.json({"changes": changes})
    elif changes:
        _print_changes(changes)
    else:
        print("no difference")
    return Exit.REFUSED if changes else Exit.DONE


def _revision(text: str) -> int:
    if not text.isdecimal():
        raise UsageError(f"expected a revision, a number as `systems config history` shows it, got: {text!r}")
    return int(text)


async def _between(session: Session, first: int, second: int) -> tuple[Change, ...]:
    known = await history.revisions(session.bus)
    before = history.tables_at(known, first)
    after = history.tables_at(known, second) if second else (await changing.read(session.bus)).tables
    return tables.differences(before, after)


@app.command(name="history")
async def history_(path: str = "", /, *, limit: int = 20, common: Common = DEFAULTS) -> int:
    """Show who changed which settings and why, the newest first.

    Args:
        path: A setting or a table, such as loop or shop/coder; all of them if left out.
        limit: How many revisions.
        common: Which fleet, and how to print.
    """
    async with operator(common) as session:
        steps = history.steps(await history.revisions(session.bus))
    begin = tables.dotted(tables.path(path)) if path else ""
    if begin:
        steps = [step for step in steps if any(_below(change.field, begin) for change in step.changes)]
    steps = list(reversed(steps))[:limit]
    if common.json:
        output.json({"revisions": steps})
        return Exit.DONE
    output.table(
        ["revision", "at (UTC)", "who", "what", "why"],
        [[str(s.revision), f"{s.at:%Y-%m-%d %H:%M:%S}", s.who or "-", _what(s), s.why] for s in steps],
        right=["revision"],
    )
    return Exit.DONE


def _below(field: str, begin: str) -> bool:
    return field == begin or field.startswith(f"{begin}.")


def _what(step: history.Step) -> str:
    if step.refused:
        return f"{step.key} refused: {step.refused}"
    shown = [f"{c.field} {output.clipped(c.before, 20)} -> {output.clipped(c.after, 20)}" for c in step.changes[:3]]
    more = len(step.changes) - 3
    return "; ".join(shown) + (f" and {more} more" if more > 0 else "") if shown else step.key


@app.command
async def rollback(*, to: int, reason: str, decision: _Number = 0, common: Common = DEFAULTS) -> int:
    """Bring all settings back to what they were at a revision. That makes a new revision.

    Args:
        to: The revision, as `systems config history` shows it.
        reason: Why; it goes into the record, with your name.
        decision: Number of the decision that it rests on; limits of guards and caps ask for one.
        common: Which fleet, and how to print.
    """
    async with operator(common) as session:
        wanted = history.tables_at(await history.revisions(session.bus), to)
        done = await _changed(session, "rollback", lambda _: copy.deepcopy(wanted), reason, 0, decision)
    return _tell(done, common)
