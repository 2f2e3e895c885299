"""Who gets what is left. Pure: needs in the order of their coming and the room on each counter, to who may go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from bus.spend.keys import Limit, amount


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A need: so much, on each of these counters, each under its cap."""

    tokens: int = 0
    usd_micros: int = 0
    limits: tuple[Limit, ...] = ()


def fits(asked: Sequence[Asked], totals: Mapping[str, int]) -> list[tuple[str, int] | None]:
    """Who fits under all caps, greedily and first come first served.

    What does not fit takes nothing, so a smaller need behind it may still fit. A need of nothing always fits a cap that is
    not passed already.

    Args:
        asked: in the order of their coming.
        totals: what is settled and held by everybody else, by key.

    Returns:
        For each need None when it fits, otherwise the first counter without room, and the room that was left there.
    """
    taken = dict(totals)
    answers: list[tuple[str, int] | None] = []
    for one in asked:
        short = None
        for limit in one.limits:
            room = limit.cap - taken[limit.key]
            if amount(limit.key, one.tokens, one.usd_micros) > room:
                short = (limit.key, max(0, room))
                break
        if short is None:
            for key in {limit.key for limit in one.limits}:
                taken[key] += amount(key, one.tokens, one.usd_micros)
        answers.append(short)
    return answers
