"""The revisions of one role or prompt: ``history``, ``diff`` and ``rollback``, the same for both."""

from __future__ import annotations

import difflib

import msgspec

from bus.bucket import Write
from bus.events.topology import Change
from services.cli import output
from services.cli.common import Common
from services.cli.exits import Exit, UsageError
from services.cli.session import Session
from services.config import history, tables
from services.config.history import Revision
from services.daemon import Bus
from services.fleet.entries import fault, provenance
from services.ops.operation import No
from services.ops.performing import perform

#: Characters of a value that a line shows.
_SHOWN = 70


class RollBackKey:
    """The action: one key of the registry gets the value that it had."""

    name = "rollback"
    lock = ""
    limit_s = 30.0

    def __init__(
        self, bus: Bus, key: str, value: bytes, to: int, changes: tuple[Change, ...], who: str, why: str
    ) -> None:
        """`changes` are those against the present value."""
        self._bus = bus
        self._key, self._value, self._to = key, value, to
        self._changes = changes
        self._who, self._why = who, why
        self.target = key
        self._seen = 0

    @property
    def policy(self) -> str:
        """Limits and caps among what changes."""
        return ", ".join(tables.policies(self._changes))

    async def check(self) -> No | None:
        """The old value can still take effect: what it names may be gone."""
        bucket = self._bus.bucket("registry")
        self._seen = await bucket.revision()
        known = await bucket.items()
        prompts = [key.partition(".")[2] for key in known if key.startswith("prompts.")]
        wrong = fault(self._key, self._value, prompts)
        return No(f"{self._key} as it was at revision {self._to} cannot be used any more: {wrong}") if wrong else None

    async def carry_out(self, id_: str) -> dict[str, object]:
        """Put it; somebody else's change in between makes it fail."""
        headers = provenance(self._who, self._why, id_)
        write = Write(self._key, self._value)
        revision = await self._bus.bucket("registry").put_all([write], expect_last=self._seen, headers=headers)
        return {"revision": revision, "to": self._to, "changes": self._changes}


async def show_history(session: Session, key: str, common: Common) -> int:
    """The recorded revisions of a key, the newest first."""
    steps = list(reversed(history.steps(await _known(session, key))))
    if common.json:
        output.json({"revisions": steps})
        return Exit.DONE
    output.table(
        ["revision", "at (UTC)", "who", "what", "why"],
        [[str(s.revision), f"{s.at:%Y-%m-%d %H:%M:%S}", s.who or "-", _what(s, key), s.why] for s in steps],
        right=["revision"],
    )
    return Exit.DONE


def _what(step: history.Step, key: str) -> str:
    if step.refused:
        return f"refused: {step.refused}"
    begin = tables.dotted(_path(key)) + "."
    fields = [
        f"{c.field.removeprefix(begin)} {output.clipped(c.before, 24)} -> {output.clipped(c.after, 24)}"
        for c in step.changes[:3]
    ]
    more = len(step.changes) - 3
    return "; ".join(fields) + (f" and {more} more" if more > 0 else "") if fields else "no difference"


def _path(key: str) -> tuple[str, ...]:
    kind, _, name = key.partition(".")
    if kind == "prompts":
        return ("prompts", name)
    project, _, role = name.partition(".")
    return ("projects", project, "roles", role)


async def _known(session: Session, key: str) -> list[Revision]:
    known = await history.revisions(session.bus, key)
    if not known:
        raise UsageError(f"expected {key} to have a history, got: none; see `systems config history`")
    return known


async def show_diff(session: Session, key: str, first: str, second: str, common: Common) -> int:
    """What differs between two revisions of a key, or between the last two, or one and the present."""
    known = await _known(session, key)
    good = [one for one in known if one.value is not None]
    if first:
        before = history.value_of(known, key, number(first))
        after = history.value_of(known, key, number(second) if second else known[-1].revision)
    elif len(good) > 1:
        before, after = (one.value or b"" for one in good[-2:])
    else:
        print("no difference: there is one revision")
        return Exit.DONE
    changes = tables.differences(tables.of_values({key: before}), tables.of_values({key: after}))
    if common.json:
        output.json({"changes": changes})
    elif key.startswith("prompts."):
        lines = difflib.unified_diff(before.decode().splitlines(), after.decode().splitlines(), lineterm="", n=2)
        print("\n".join(list(lines)[2:]) or "no difference")
    else:
        for change in changes:
            before_, after_ = output.clipped(change.before, _SHOWN), output.clipped(change.after, _SHOWN)
            print(f"{output.paint('~', 'yellow')} {change.field} {before_} -> {after_}")
        if not changes:
            print("no difference")
    return Exit.REFUSED if changes else Exit.DONE


def number(text: str) -> int:
    """A revision.

    Raises:
        UsageError: it is none.
    """
    if not text.isdecimal():
        raise UsageError(f"expected a revision, a number as `history` shows it, got: {text!r}")
    return int(text)


async def roll_back(session: Session, key: str, to: int, reason: str, decision: int, common: Common) -> int:
    """Bring a key back to a revision."""
    known = await _known(session, key)
    value = history.value_of(known, key, to)
    entry = await session.bus.bucket("registry").get(key)
    present = entry.value if entry is not None else None
    if present == value:
        print("no difference")
        return Exit.DONE
    good = [one.value for one in known if one.value is not None]
    before = tables.of_values({key: good[-1]})
    changes = tables.differences(before, tables.of_values({key: value}))
    action = RollBackKey(session.bus, key, value, to, changes, session.actor, reason)
    done = await perform(session.bus, action, who=session.actor, why=reason, decision=decision)
    evidence = msgspec.json.decode(done.evidence) if done.evidence is not None else {}
    if common.json:
        output.json({"operation": done.id, **evidence})
    else:
        print(f"{key}: revision {evidence['revision']}, as it was at {to}")
    return Exit.DONE
