"""``systems freeze``, ``thaw``, ``pause``, ``resume``: a person stops the fleet, or a role, and lets it go on.

A flag is put and the answer of the fleet is waited for: what is printed is what the record and the stream say. With
nothing but NATS, ``nats kv put flags kill_switch frozen`` does the same.
"""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from bus.flags import Mode
from services import freezing
from services.cli import output
from services.cli.common import DEFAULTS, Common, Flag
from services.cli.exits import Exit, UsageError
from services.cli.session import operator
from services.fleet import durations
from services.freezes import Freeze
from services.freezing import THAW_WORD
from services.guards import pausing


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
    for_s = freezing.period(for_, hard=hard)
    async with operator(common) as session:
        stands = await freezing.throw(session.bus, reason=reason, by=session.actor, for_s=for_s, hard=hard)
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
    freezing.ramp_of(ramp)
    async with operator(common) as session:
        # A hard freeze that is thrown after this look was confirmed by nobody, and is not cleared.
        confirmed = hard and (await freezing.switch(session.bus)).mode is Mode.HARD
        if confirmed:
            _confirm(confirm)
        done = await freezing.thaw(session.bus, reason=reason, by=session.actor, hard=confirmed, ramp=ramp)
    if done.was_clear:
        print("it was clear already")
        return Exit.DONE
    stands = done.stands
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
        given = input(f"This was a hard freeze. Type {THAW_WORD} to clear it: ")
    if given.strip() != THAW_WORD:
        raise UsageError(f"expected a typed confirmation, --confirm {THAW_WORD}, got: {given!r}; nothing was cleared")


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
        registry = await session.registry()
        refusal = await pausing.pause(session.bus, registry, role, reason=reason, by=session.actor, for_s=seconds)
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
        was_paused = await pausing.resume(session.bus, role, reason=reason, by=session.actor)
    print(f"{role} goes on" if was_paused else f"{role} is not paused")
    return Exit.DONE
