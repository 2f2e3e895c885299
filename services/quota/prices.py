"""What use costs, in millionths of a US dollar. Pure, in whole numbers: the same use costs the same everywhere."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache

import msgspec

from bus.events.invocation import Usage
from bus.invocation import Cost
from services.fleet.spec import LlmHandler, Price, Quota, Role, TraceHandler

#: More tokens than any call has ever used: a number above it is an error of units, and would reach every cap at once.
MOST_TOKENS = 10**12

#: Endings that providers put behind a model's name: ``-2024-07-18``, ``-20250219``, ``@20250219``, ``-latest``.
_DATED = re.compile(r"([-@](\d{4}-\d{2}-\d{2}|\d{8}|latest))$")


def price_of(model: str, prices: Mapping[str, Price]) -> Price | None:
    """The price of a model: under its own name, or under its name without a date. None when nobody has named one."""
    found = prices.get(model)
    return found if found is not None else prices.get(_DATED.sub("", model))


def cost(usage: Usage, prices: Mapping[str, Price]) -> int | None:
    """What a use costs, rounded up; 0 when nothing was used; None for a model without a price."""
    if usage.input_tokens <= 0 and usage.output_tokens <= 0:
        return 0
    price = price_of(usage.model, prices)
    return None if price is None else at_price(usage.input_tokens, usage.output_tokens, price)


def counted(usage: Usage, prices: Mapping[str, Price]) -> int:
    """What a use adds to a sum: what it costs, and nothing for a model without a price."""
    return cost(usage, prices) or 0


def at_price(input_tokens: int, output_tokens: int, price: Price) -> int:
    """What so many tokens cost, rounded up. A price per million tokens is one millionth of that per token."""
    exact = max(0, input_tokens) * _exact(price.input) + max(0, output_tokens) * _exact(price.output)
    return -(-exact.numerator // exact.denominator)


@lru_cache(maxsize=1024)
def _exact(number: float) -> Fraction:
    """The number as it was written: 0.15 is 15 hundredths."""
    return max(Fraction(0), Fraction(repr(number)))


def sane(usage: Usage) -> tuple[Usage, str]:
    """A use with counts that can be counted, and what was wrong with it; empty for nothing.

    What is below zero counts as zero: nobody gives tokens back. What is absurd counts as :data:`MOST_TOKENS`.
    """
    given = usage.input_tokens, usage.output_tokens
    if type(given[0]) is type(given[1]) is int and min(given) >= 0 and max(given) <= MOST_TOKENS:
        return usage, ""
    problems: list[str] = []
    counts: dict[str, int] = {}
    for name in ("input_tokens", "output_tokens"):
        value = getattr(usage, name)
        if not isinstance(value, int) or isinstance(value, bool):
            counts[name] = 0
        else:
            counts[name] = min(max(0, value), MOST_TOKENS)
        if counts[name] != value:
            problems.append(f"expected {name} from 0 to {MOST_TOKENS:,}, got: {value!r}")
    if not problems:
        return usage, ""
    return msgspec.structs.replace(usage, **counts), "; ".join(problems)


def model_of(role: Role) -> str:
    """The model that a role's handler calls, as far as its declaration tells."""
    match role.handler:
        case LlmHandler(model=model):
            return model
        case TraceHandler():
            return "trace"
        case _:
            return ""


def charge(usage: Usage, role: Role, quota: Quota, revision: int, held_usd: int = 0) -> Cost:
    """What an attempt's use is settled at.

    A model without a price costs what the role's own model does, and without one of that either all that was held: nobody
    can say that it was less.

    Args:
        usage: what the handler reported.
        role: whose attempt it was.
        quota: the prices.
        revision: registry revision of the prices.
        held_usd: millionths of a US dollar that the claim has reserved.
    """
    usage, _ = sane(usage)
    micros = cost(usage, quota.prices)
    if micros is None and (own := model_of(role)):
        micros = cost(msgspec.structs.replace(usage, model=own), quota.prices)
    return Cost(usd_micros=max(0, held_usd) if micros is None else micros, prices=revision)
