"""The most that an attempt may use, before it begins. Pure: a role, its input and the prices, to a need, or why there is none.

A recorded trace says it itself. A call of a language model uses at most one token for each byte of its prompt and input
(a token is never less than a byte; what an input names by address, such as a picture, is not counted), and at most
``max_output_tokens``. Of everything else nobody can tell, so its role declares ``max_tokens`` or ``max_usd``.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from decimal import Decimal

import msgspec

from bus.refusal import Reason, Refusal
from bus.spend import TOKENS, USD
from services.fleet.spec import LlmHandler, Price, Role, TraceHandler
from services.quota.prices import MOST_TOKENS, at_price, model_of, price_of

#: Tokens that a provider's own form of a conversation adds to its text.
OVERHEAD_TOKENS = 64

_MICROS = 1_000_000


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """The most that an attempt may use; 0 where no cap asks."""

    tokens: int = 0
    #: Millionths of a US dollar.
    usd_micros: int = 0


class Undeclared(msgspec.Struct, frozen=True):
    """A token cap covers the role, and nobody has said what it may use at most."""

    role: str

    @property
    def sentence(self) -> str:
        """What is missing, and where to put it."""
        return (
            f"a token cap covers {self.role}, and what an attempt may use is not declared; "
            "set max_tokens in the role's table of the fleet file"
        )


class Unpriced(msgspec.Struct, frozen=True):
    """A money cap covers the role, and nobody has named the price of its model."""

    role: str
    #: Empty when the handler's model is unknown.
    model: str

    @property
    def sentence(self) -> str:
        """What is missing, and where to put it."""
        if not self.model:
            return (
                f"a money cap covers {self.role}, and what an attempt may cost is not declared; "
                "set max_usd in the role's table of the fleet file"
            )
        return (
            f"a money cap covers {self.role}, and its model {self.model!r} has no price; name it in the fleet file: "
            f'[quota.prices."{self.model}"] with input and output in US dollars per million tokens, or set the role\'s max_usd'
        )


class _Recorded(msgspec.Struct):
    input_tokens: int
    output_tokens: int


_recorded = msgspec.json.Decoder(_Recorded)


def need(
    role: Role,
    path: str,
    input: bytes,
    prompt: str,
    prices: Mapping[str, Price],
    units: Collection[str],
    *,
    size: int = 0,
) -> Need | Undeclared | Unpriced:
    """What an attempt may use at most.

    Args:
        role: whose.
        path: ``project/role``, for the sentence of a refusal.
        input: its input as JSON.
        prompt: the text of its prompt.
        prices: by model.
        units: what the caps over it count: ``tokens``, ``usd``.
        size: bytes of an input that is not at hand; 0: `input` is all of it.
    """
    match role.handler:
        case TraceHandler():
            known: tuple[int, int] | None = _of_trace(input)
        case LlmHandler(max_output_tokens=most):
            known = (max(len(input), size) + len(prompt.encode()) + OVERHEAD_TOKENS, most)
        case _:
            known = None
    tokens = usd = 0
    if TOKENS in units:
        tokens = _tokens(role, known)
        if tokens < 0:
            return Undeclared(path)
    if USD in units:
        usd = _usd(role, known, prices)
        if usd < 0:
            return Unpriced(path, model_of(role))
    return Need(tokens=tokens, usd_micros=usd)


def _tokens(role: Role, known: tuple[int, int] | None) -> int:
    """Below 0: nobody can tell."""
    if known is None:
        return role.max_tokens if role.max_tokens is not None else -1
    counted = min(sum(known), MOST_TOKENS)
    # A trace uses what it says. Bytes are a bound far above the tokens of a call, so there a person's own is believed.
    if role.max_tokens is not None and isinstance(role.handler, LlmHandler):
        return min(counted, role.max_tokens)
    return counted


def _usd(role: Role, known: tuple[int, int] | None, prices: Mapping[str, Price]) -> int:
    """Below 0: nobody can tell."""
    declared = None if role.max_usd is None else micros(role.max_usd)
    price = price_of(model_of(role), prices)
    if known is None or price is None:
        return -1 if declared is None else declared
    counted = at_price(*known, price)
    return min(counted, declared) if declared is not None and isinstance(role.handler, LlmHandler) else counted


def _of_trace(input: bytes) -> tuple[int, int]:
    """The recorded tokens; nothing for an input that the handler will refuse anyway."""
    try:
        recorded = _recorded.decode(input)
    except (ValueError, RecursionError):
        return 0, 0
    counts = recorded.input_tokens, recorded.output_tokens
    return counts if all(0 <= count <= MOST_TOKENS for count in counts) else (0, 0)


def micros(usd: float) -> int:
    """Dollars as whole millionths, rounded up; for needs."""
    return max(0, math.ceil(Decimal(repr(usd)) * _MICROS))


def refusal(cause: Undeclared | Unpriced) -> Refusal:
    """The one shape of a refusal, for a role that cannot be counted."""
    return Refusal(
        reason=Reason.NO_PRICE,
        scope=cause.role,
        because=cause.sentence,
        clears="whoever edits the fleet file",
        command="systems up",
        allowed="roles that can be counted",
    )
