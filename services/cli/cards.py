"""``systems cards``: what waits for a person, each with the exact command to paste."""

from __future__ import annotations

from services.cli import output
from services.cli.common import DEFAULTS, Common, Flag
from services.cli.exits import Exit
from services.cli.session import operator


async def cards(*, all_: Flag = False, common: Common = DEFAULTS) -> int:
    """List what waits for a person, the oldest first. Exit status: 0 nothing waits, 1 something does.

    Args:
        all_: Also those that have closed themselves.
        common: Which fleet, and how to print.
    """
    async with operator(common) as session:
        found = await (session.bus.cards.all() if all_ else session.bus.cards.waiting())
    waits = any(card.closed_at is None for card in found)
    if common.json:
        output.json({"cards": found})
        return Exit.REFUSED if waits else Exit.DONE
    if not found:
        print("nothing waits for a person")
        return Exit.DONE
    for card in found:
        ended = (
            f"  closed {card.closed_at:%Y-%m-%d %H:%M:%S} UTC: {card.end} {card.closed_by}" if card.closed_at else ""
        )
        print(f"{output.paint(card.sentence, 'dim' if ended else 'bold')}{ended}")
        boot = f", boot id {card.boot_id}" if card.boot_id else ""
        print(f"  since {card.since:%Y-%m-%d %H:%M:%S} UTC, said by {card.by or 'somebody'}{boot}")
        print(f"  {card.command}")
    return Exit.REFUSED if waits else Exit.DONE
