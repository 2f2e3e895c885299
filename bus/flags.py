"""The kill switch's flags, as a person puts them: ``nats kv put flags kill_switch frozen``.

Pure: values in, the switch out. Plain words and JSON are both understood. What is not understood (nothing at all, too: a
script's variable may be empty) freezes, and says so, because the one who wrote it wanted to stop something. A flag that is deleted or purged keeps the last mode, and says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum

import msgspec

from bus.bucket import Bucket, Entry
from bus.events.moment import Moment

#: Name of the bucket.
BUCKET = "flags"
#: Characters of a put text that are shown.
_SHOWN = 200

_CLEAR = frozenset({"clear", "cleared", "off", "false", "no", "0", "thaw", "thawed", "open"})
_FROZEN = frozenset({"frozen", "freeze", "on", "true", "yes", "1", "hard", "soft", "stop", "halt"})


class Switch(msgspec.Struct, frozen=True, kw_only=True):
    """A kill switch as data: which flags throw it, and what it stops."""

    #: Key of the flag that may clear by itself.
    soft: str
    #: Key of the flag that only a person clears; empty for none.
    hard: str = ""
    #: The stream that the server freezes.
    stream: str
    #: First letter of a freeze's id.
    letter: str


#: The one that counts.
REAL = Switch(soft="kill_switch", hard="kill_switch_hard", stream="INVOCATIONS", letter="r")
#: The one that drills throw, through the same code, on a stream of their own.
DRILL = Switch(soft="kill_switch_drill", stream="DRILL", letter="d")


class Mode(StrEnum):
    """How far a switch is thrown."""

    CLEAR = "clear"
    SOFT = "soft"
    HARD = "hard"


class Flag(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one flag's value says."""

    frozen: bool
    reason: str = ""
    by: str = ""
    #: When a soft freeze clears by itself: the warden puts the clear then.
    until: Moment | None = None
    #: Invocations a second at which a thaw releases the backlog; None for at once.
    ramp: float | None = None
    #: Why the value was not understood.
    problem: str = ""


class KillSwitch(msgspec.Struct, frozen=True, kw_only=True):
    """What the flags of a switch say together."""

    mode: Mode = Mode.CLEAR
    since: datetime | None = None
    #: The text that was put.
    text: str = ""
    reason: str = ""
    by: str = ""
    until: datetime | None = None
    #: Id of the freeze, by the revision that threw it: ``r17``. Of a clear switch: of the value that cleared it, or empty.
    id: str = ""
    ramp: float | None = None
    #: What is wrong with a flag: not understood, deleted, purged.
    problem: str = ""

    @property
    def frozen(self) -> bool:
        """Writes are stopped."""
        return self.mode is not Mode.CLEAR


class _Put(msgspec.Struct):
    """A flag's value as JSON."""

    mode: str | bool = "frozen"
    reason: str = ""
    by: str = ""
    until: Moment | None = None
    ramp: float | None = None


def parse(value: bytes) -> Flag:
    """What a flag's value says; rubbish freezes."""
    text = value.decode(errors="replace").strip()
    word = _meaning(text)
    if word is not None:
        return Flag(frozen=word)
    try:
        put = msgspec.json.decode(text, type=_Put)
    except (msgspec.DecodeError, RecursionError):
        return Flag(frozen=True, problem=f"expected frozen or clear, or JSON with a mode, got: {text[:_SHOWN]!r}")
    meant = put.mode if isinstance(put.mode, bool) else _meaning(put.mode)
    ramp = put.ramp if put.ramp is not None and 0 < put.ramp < float("inf") else None
    problem = "" if meant is not None else f"expected mode frozen or clear, got: {put.mode!r}"
    return Flag(frozen=meant is not False, reason=put.reason, by=put.by, until=put.until, ramp=ramp, problem=problem)


def _meaning(text: str) -> bool | None:
    """Whether a word means frozen; None for a word that means nothing here."""
    word = text.strip().strip('"').lower()
    if word in _CLEAR:
        return False
    return True if word in _FROZEN else None


def frozen(*, reason: str, by: str, until: datetime | None = None) -> bytes:
    """The value that throws a switch."""
    return msgspec.json.encode({"mode": "frozen", "reason": reason, "by": by} | ({"until": until} if until else {}))


def clear(*, reason: str, by: str, ramp: float | None = None) -> bytes:
    """The value that clears a switch."""
    return msgspec.json.encode({"mode": "clear", "reason": reason, "by": by} | ({"ramp": ramp} if ramp else {}))


def evolve(before: KillSwitch, switch: Switch, entries: Iterable[Entry]) -> KillSwitch:
    """The switch after every kept value of its flags: all who read the same values know the same freeze by the same id.

    Args:
        before: what the switch was when it was last known; it stands for what a purge took away.
        switch: which one.
        entries: every kept value of its keys, and every mark that one is gone.
    """
    kept = sorted((entry for entry in entries if entry.key in {switch.soft, switch.hard}), key=lambda e: e.revision)
    firsts: dict[str, Entry] = {}
    for entry in kept:
        firsts.setdefault(entry.key, entry)
    # A key of which nothing is left from before its mark was purged: what it said is only known from before.
    thrown = {
        key: before.mode is mode and key in firsts and firsts[key].gone
        for key, mode in ((switch.hard, Mode.HARD), (switch.soft, Mode.SOFT))
    }
    # A freeze that is put again, or made hard, stays the same freeze: its receipts and its sequence hold.
    id_, since = (before.id, before.since) if any(thrown.values()) else ("", None)
    said: dict[str, Entry] = {}
    for entry in kept:
        if entry.gone:
            continue
        was_frozen = any(thrown.values())
        thrown[entry.key] = _flag(entry).frozen
        said[entry.key] = entry
        if any(thrown.values()) != was_frozen:
            id_, since = f"{switch.letter}{entry.revision}", entry.created
    lasts = {entry.key: entry for entry in kept}
    problems = [
        f"the flag {key} was deleted; it keeps its mode until somebody puts frozen or clear"
        for key in (switch.hard, switch.soft)
        if key in lasts and lasts[key].gone
    ]
    return _told(before, switch, thrown, said, id_, since, problems)


def _told(
    before: KillSwitch,
    switch: Switch,
    thrown: Mapping[str, bool],
    said: Mapping[str, Entry],
    id_: str,
    since: datetime | None,
    problems: list[str],
) -> KillSwitch:
    mode = Mode.HARD if thrown[switch.hard] else Mode.SOFT if thrown[switch.soft] else Mode.CLEAR
    key = switch.hard if mode is Mode.HARD else switch.soft
    entry = max(said.values(), key=lambda e: e.revision, default=None) if mode is Mode.CLEAR else said.get(key)
    if entry is None:
        if mode is Mode.CLEAR:
            return KillSwitch(problem="; ".join(problems))
        return msgspec.structs.replace(before, mode=mode, id=id_, since=since, problem="; ".join(problems))
    flag = _flag(entry)
    if flag.problem:
        problems.append(f"{entry.key}: {flag.problem}; so it is frozen")
    other = said.get(switch.soft)
    return KillSwitch(
        mode=mode,
        since=since if mode is not Mode.CLEAR else entry.created,
        text=_shown(entry),
        # Made hard without a word, it stands for the reason that it was thrown for.
        reason=flag.reason or (parse(other.value).reason if mode is Mode.HARD and other is not None else ""),
        by=flag.by,
        until=flag.until if mode is Mode.SOFT else None,
        id=id_ if mode is not Mode.CLEAR else f"{switch.letter}{entry.revision}",
        ramp=flag.ramp if mode is Mode.CLEAR else None,
        problem="; ".join(problems),
    )


def _flag(entry: Entry) -> Flag:
    """What an entry says; one that nobody put says nothing that could clear a switch."""
    if entry.relayed:
        return Flag(frozen=True, problem="expected a flag that somebody put, got an answer of the server sent there")
    return parse(entry.value)


def _shown(entry: Entry) -> str:
    return entry.value.decode(errors="replace")[:_SHOWN]


async def kill_switch(bucket: Bucket, switch: Switch = REAL, before: KillSwitch | None = None) -> KillSwitch:
    """The present switch, from every kept value of its flags.

    Args:
        bucket: the bucket ``flags``.
        switch: which one.
        before: what the switch was when it was last known; it stands for what a purge took away.
    """
    entries = [entry for key in (switch.soft, switch.hard) if key for entry in await bucket.history(key)]
    return evolve(before or KillSwitch(), switch, entries)
