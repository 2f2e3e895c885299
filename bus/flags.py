"""The kill switch's flags, as a person puts them: ``nats kv put flags kill_switch frozen``.

Read here, so that ``status`` shows what is set. Words and JSON are both understood; a value that is not understood reads
as frozen, because the one who wrote it wanted to stop something.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

from bus.bucket import Bucket

KILL_SWITCH = "kill_switch"
KILL_SWITCH_HARD = "kill_switch_hard"

_CLEAR = frozenset({"", "clear", "off", "false", "no", "0", "thaw", "thawed", "null"})


class Mode(StrEnum):
    """How far the switch is thrown."""

    CLEAR = "clear"
    SOFT = "soft"
    HARD = "hard"


class KillSwitch(msgspec.Struct, frozen=True, kw_only=True):
    """What the two flags say together."""

    mode: Mode = Mode.CLEAR
    since: datetime | None = None
    #: The text that was put.
    text: str = ""


def is_set(value: bytes) -> bool:
    """Whether a flag's value means frozen: anything but a word, or a JSON ``mode``, for clear."""
    text = value.decode(errors="replace").strip()
    try:
        decoded = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        decoded = text
    if decoded is None:
        return False
    if isinstance(decoded, dict):
        decoded = decoded.get("mode", "frozen")
    if isinstance(decoded, bool):
        return decoded
    return str(decoded).strip().lower() not in _CLEAR


async def kill_switch(bucket: Bucket) -> KillSwitch:
    """The present mode, from both flags; hard wins."""
    for key, mode in ((KILL_SWITCH_HARD, Mode.HARD), (KILL_SWITCH, Mode.SOFT)):
        entry = await bucket.get(key)
        if entry is not None and is_set(entry.value):
            return KillSwitch(mode=mode, since=entry.created, text=entry.value.decode(errors="replace")[:200])
    return KillSwitch()
