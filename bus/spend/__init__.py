"""Spend on counters: their names, the windows that they count in, and reserving on them before anything is spent.

A counter holds what is settled and what is held, above :data:`BASE`. It is a cache of the log; see
:mod:`bus.spend.ledger` for how many processes reserve on it without passing a cap together.
"""

from __future__ import annotations

from bus.spend.fits import Asked, fits
from bus.spend.keys import (
    BASE,
    SYSTEM,
    TOKENS,
    USD,
    Key,
    Limit,
    amount,
    is_key,
    of_scope,
    scope_text,
    scope_token,
    tree_token,
)
from bus.spend.ledger import Grant, Ledger, Short, Unseeded, Want
from bus.spend.windows import ALWAYS, KINDS, BadWindow, Calendar, Span

__all__ = [
    "ALWAYS",
    "BASE",
    "KINDS",
    "SYSTEM",
    "TOKENS",
    "USD",
    "Asked",
    "BadWindow",
    "Calendar",
    "Grant",
    "Key",
    "Ledger",
    "Limit",
    "Short",
    "Span",
    "Unseeded",
    "Want",
    "amount",
    "fits",
    "is_key",
    "of_scope",
    "scope_text",
    "scope_token",
    "tree_token",
]
