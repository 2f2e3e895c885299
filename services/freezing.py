"""A person stops the fleet and lets it go on: a flag is put, and the answer of the fleet is waited for.

What is told is what the record and the stream say (:mod:`services.freezes`). The command line and Slack call the same
functions; who may, and which word has to be typed, is theirs to ask.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import msgspec

from bus import errors, flags
from bus.flags import REAL, KillSwitch, Mode
from services import freezes
from services.daemon import Bus
from services.fleet import durations
from services.freezes import Freeze
from services.warden.freeze import RECEIPT_S, SETTLE_S

#: Seconds between two looks at what is waited for.
_LOOK_S = 0.1
#: Seconds that a warden may be away: one that is restarted is back within them.
_AWAY_S = 5.0
#: What a person types to clear a hard freeze, and to throw one where nobody can type a command.
THAW_WORD, HARD_WORD = "thaw", "hard"


class HardFreeze(errors.BusError):
    """A hard freeze stands, and only a soft one was to be cleared."""

    def __init__(self, switch: KillSwitch) -> None:
        said, by = switch.reason or switch.text, switch.by or "somebody"
        super().__init__(f"expected --hard to clear a hard freeze ({said}, by {by}), got none")


class Thaw(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a thaw."""

    #: There was nothing to clear.
    was_clear: bool
    #: How the kill switch stands now.
    stands: Freeze


def period(text: str, *, hard: bool) -> float | None:
    """Seconds after which a freeze clears by itself; None for never. Pure.

    Raises:
        BadAsk: it is no time, or a hard freeze, which a person clears.
        BadDuration: it is no duration.
    """
    if not text:
        return None
    seconds = durations.seconds(text)
    if hard:
        raise errors.BadAsk("expected --for without --hard: a hard freeze is cleared by a person only")
    if seconds <= 0:
        raise errors.BadAsk(f"expected --for to be longer than nothing, got: {text!r}")
    return seconds


async def throw(bus: Bus, *, reason: str, by: str, for_s: float | None = None, hard: bool = False) -> Freeze:
    """Freeze every write of the fleet, and wait until all have stopped or their time for it is over.

    Args:
        bus: with a login that may put the flag.
        reason: in the words of whoever asks.
        by: who asks.
        for_s: seconds after which it clears by itself; None for never.
        hard: only a person clears it.
    """
    until = None if for_s is None else bus.author.now() + timedelta(seconds=for_s)
    key = REAL.hard if hard else REAL.soft
    await bus.bucket(flags.BUCKET).put(key, flags.frozen(reason=reason, by=by, until=until))
    return await _until(bus, lambda now: now.on_server and not now.missing, RECEIPT_S + 2)


async def switch(bus: Bus) -> KillSwitch:
    """The flags as they are now."""
    return await flags.kill_switch(bus.bucket(flags.BUCKET), REAL, bus.gate.switch)


def ramp_of(ramp: float | None) -> float | None:
    """A ramp that makes sense. Pure.

    Raises:
        BadAsk: it does not.
    """
    if ramp is not None and not 0 < ramp < float("inf"):
        raise errors.BadAsk(f"expected --ramp to be above 0 invocations a second, got: {ramp:g}")
    return ramp


async def thaw(bus: Bus, *, reason: str, by: str, hard: bool = False, ramp: float | None = None) -> Thaw:
    """Clear a freeze, and wait until what is held is settled.

    Args:
        bus: with a login that may put the flags.
        reason: in the words of whoever asks.
        by: who asks.
        hard: clear a hard freeze too.
        ramp: release the backlog at so many invocations a second.

    Raises:
        HardFreeze: only a soft one was to be cleared; nothing was.
    """
    bucket, stood = bus.bucket(flags.BUCKET), await switch(bus)
    if stood.mode is Mode.HARD and not hard:
        raise HardFreeze(stood)
    value = flags.clear(reason=reason, by=by, ramp=ramp)
    # The soft flag is cleared first: with both cleared by one command there must be no moment of a soft freeze alone.
    await bucket.put(REAL.soft, value)
    if stood.mode is Mode.HARD:
        await bucket.put(REAL.hard, value)
    if not stood.frozen:
        return Thaw(was_clear=True, stands=await freezes.read(bus))
    stands = await _until(bus, lambda now: now.mode is not Mode.CLEAR or not now.thawing, SETTLE_S + 5)
    return Thaw(was_clear=False, stands=stands)


async def _until(bus: Bus, done: Callable[[Freeze], bool], seconds: float) -> Freeze:
    """How the freeze stands, as soon as that is what was meant, or after so long."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    while True:
        stands = await freezes.read(bus)
        waited = loop.time() - begun
        if done(stands) or waited > seconds or (not stands.armed and waited > _AWAY_S):
            return stands
        await asyncio.sleep(_LOOK_S)
