"""``systems freeze``, ``thaw``, ``pause``, ``resume``: a person stops the fleet, or a role, and lets it go on.

A flag is put and the answer of the fleet is waited for: what is printed is what the record and the stream say. With
nothing but NATS, ``nats kv put flags kill_switch frozen`` does the same.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Annotated

from cyclopts import Parameter

from bus import flags, trips
from bus.events import guard as ev
from bus.flags import REAL, Mode
from bus.subjects import parse_role
from services import freezes
from services.cli import output
from services.cli.common import DEFAULTS, Common, Flag
from services.cli.exits import CommandFailed, Exit, UsageError
from services.cli.session import Session, operator
from services.fleet import durations
from services.freezes import Freeze
from services.guards import pauses
from services.warden.freeze import RECEIPT_S, SETTLE_S

#: Seconds between two looks at what is waited for.
_LOOK_S = 0.1
#: Seconds that a warden may be away: one that is restarted is back within them.
_AWAY_S = 5.0
#: What a person types to clear a hard freeze.
_WORD = "thaw"


async def freeze(
    *,
    reason: str,
    for_: Annotated[str, Parameter(name="--for", show_default=False)] = "",
    hard: Flag = False,
    common: Common = DEFAULTS,
) -> int:
    """Freeze every write of the fleet, now.

    Args:
        reason: Why; it is in every refusal, with your name.
        for_: Clear by itself after so long, such as 30m. Not with --hard.
        hard: Only a person clears it, with a typed confirmation.
        common: Which fleet, and how to print.
    """
    until = None
    if for_:
        seconds = durations.seconds(for_)
        if hard or seconds <= 0:
            raise UsageError(
                "expected --for without --hard: a hard freeze is cleared by a person only"
                if hard
                else f"expected --for to be longer than nothing, got: {for_!r}"
            )
    async with operator(common) as session:
        bus = session.bus
        if for_:
            until = bus.author.now() + timedelta(seconds=seconds)
        key = REAL.hard if hard else REAL.soft
        await bus.bucket(flags.BUCKET).put(key, flags.frozen(reason=reason, by=session.actor, until=until))
        stands = await _until(session, lambda now: now.on_server and not now.missing, RECEIPT_S + 2)
    _print(stands, common)
    if not stands.on_server:
        output.note(
            "systems: no warden has confirmed it: every client of ours refuses, a raw publish would still be taken; "
            "see `systems status`"
        )
        return Exit.LATER
    return Exit.DONE if not stands.missing and not stands.writes else Exit.FAILED


async def thaw(
    *,
    reason: str,
    hard: Flag = False,
    confirm: str = "",
    ramp: float | None = None,
    common: Common = DEFAULTS,
) -> int:
    """Clear a freeze: what is held is settled, then the roles go on one by one. `systems freeze` halts it again.

    Args:
        reason: Why; it goes into the record, with your name.
        hard: Clear a hard freeze too.
        confirm: The word thaw, instead of being asked for it (with --hard).
        ramp: Release the backlog at so many invocations a second.
        common: Which fleet, and how to print.
    """
    if ramp is not None and not 0 < ramp < float("inf"):
        raise UsageError(f"expected --ramp to be above 0 invocations a second, got: {ramp:g}")
    async with operator(common) as session:
        bucket = session.bus.bucket(flags.BUCKET)
        switch = await flags.kill_switch(bucket, REAL, session.bus.gate.switch)
        if switch.mode is Mode.HARD:
            if not hard:
                raise CommandFailed(
                    f"expected --hard to clear a hard freeze ({switch.reason or switch.text}, by {switch.by or 'somebody'}), got none",
                    Exit.LATER,
                )
            _confirm(confirm)
        value = flags.clear(reason=reason, by=session.actor, ramp=ramp)
        # The soft flag is cleared first: with both cleared by one command there must be no moment of a soft freeze alone.
        await bucket.put(REAL.soft, value)
        if switch.mode is Mode.HARD:
            await bucket.put(REAL.hard, value)
        if not switch.frozen:
            print("it was clear already")
            return Exit.DONE
        stands = await _until(session, lambda now: now.mode is not Mode.CLEAR or not now.thawing, SETTLE_S + 5)
    _print(stands, common)
    if stands.mode is not Mode.CLEAR:
        output.note(f"systems: frozen again before the thaw was over ({stands.reason or stands.text})")
        return Exit.LATER
    if stands.thawing and ramp is not None:
        output.note(f"systems: the backlog is released at {ramp:g} invocations a second; `systems freeze` halts it")
        return Exit.DONE
    return Exit.LATER if stands.thawing else Exit.DONE


def _confirm(given: str) -> None:
    """Have a person type the word.

    Raises:
        UsageError: somebody else came, or another word.
    """
    if not given and sys.stdin.isatty():
        given = input(f"This was a hard freeze. Type {_WORD} to clear it: ")
    if given.strip() != _WORD:
        raise UsageError(f"expected a typed confirmation, --confirm {_WORD}, got: {given!r}; nothing was cleared")


async def _until(session: Session, done: Callable[[Freeze], bool], seconds: float) -> Freeze:
    """How the freeze stands, as soon as that is what was meant, or after so long."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    while True:
        stands = await freezes.read(session.bus)
        waited = loop.time() - begun
        if done(stands) or waited > seconds or (not stands.armed and waited > _AWAY_S):
            return stands
        await asyncio.sleep(_LOOK_S)


def _print(stands: Freeze, common: Common) -> None:
    if common.json:
        output.json(stands)
    else:
        print(stands.told)


async def pause(
    role: str,
    /,
    *,
    reason: str,
    for_: Annotated[str, Parameter(name="--for", show_default=False)] = "",
    common: Common = DEFAULTS,
) -> int:
    """Hand out no more work of a role. What runs goes on; what is asked waits.

    Args:
        role: PROJECT/ROLE.
        reason: Why; it is in every refusal, with your name.
        for_: Resume by itself after so long, such as 2h.
        common: Which fleet, and how to print.
    """
    seconds = durations.seconds(for_) if for_ else 0.0
    async with operator(common) as session:
        project, name = parse_role(role)
        (await session.registry()).role(project, name)
        now = session.bus.author.now()
        until = now + timedelta(seconds=seconds) if for_ else None
        refusal = pauses.by_person(role, reason, session.actor, now, until)
        await session.bus.trips.put(trips.pause_key(project, name), refusal)
        paused = ev.Paused(role=role, reason=reason, until=until)
        await session.bus.store.append(session.bus.author.control(f"{project}_{name}", paused))
    print(refusal.sentence)
    return Exit.DONE


async def resume(role: str, /, *, reason: str = "", common: Common = DEFAULTS) -> int:
    """Hand out a paused role's work again. A reached cap is another matter: `systems quota raise`.

    Args:
        role: PROJECT/ROLE.
        reason: Why; it goes into the record, with your name.
        common: Which fleet, and how to print.
    """
    async with operator(common) as session:
        project, name = parse_role(role)
        key = trips.pause_key(project, name)
        if key not in await session.bus.trips.all():
            print(f"{role} is not paused")
            return Exit.DONE
        await session.bus.trips.clear(key)
        resumed = ev.Resumed(role=role, reason=reason)
        await session.bus.store.append(session.bus.author.control(f"{project}_{name}", resumed))
    print(f"{role} goes on")
    return Exit.DONE
