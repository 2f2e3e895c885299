"""How counters are called: ``<scope>.<unit>.<window id>``, on the subject ``spend.<key>``."""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec

#: Where every counter begins. A total below it was never seeded, or its counter was deleted: nobody may reserve on it.
BASE = 10**15
#: Token of the scope that covers everything.
SYSTEM = "system"
#: What is counted: tokens, and millionths of a US dollar.
TOKENS, USD = "tokens", "usd"

_TREE = "tree_"
_NO_TOKEN = re.compile(r"[^A-Za-z0-9_-]")
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,200}")


class Key(msgspec.Struct, frozen=True):
    """A counter's name, in parts. Its text form is ``str(key)``."""

    #: ``system``, ``shop``, ``shop_coder`` or ``tree_<root>``.
    scope: str
    #: ``tokens`` or ``usd``.
    unit: str
    #: Window id, as :class:`bus.spend.Calendar` makes it; ``all`` for a run tree.
    window: str

    def __str__(self) -> str:
        """The text form."""
        return f"{self.scope}.{self.unit}.{self.window}"

    @classmethod
    def parse(cls, text: str) -> Key:
        """A key from its text.

        Raises:
            ValueError: it is none.
        """
        parts = text.split(".")
        if len(parts) != 3 or parts[1] not in (TOKENS, USD) or not all(_TOKEN.fullmatch(part) for part in parts):
            raise ValueError(f"expected a counter as <scope>.<tokens|usd>.<window>, got: {text!r}")
        return cls(*parts)


class Limit(msgspec.Struct, frozen=True):
    """A cap on one counter: tokens, or millionths of a US dollar."""

    key: str
    cap: int


def scope_token(project: str = "", role: str = "") -> str:
    """``system``, ``shop`` or ``shop_coder``."""
    return SYSTEM if not project else f"{project}_{role}" if role else project


def tree_token(root: str) -> str:
    """``tree_<root>``: the run tree of an invocation. What cannot be part of a subject becomes ``-``."""
    return _TREE + _NO_TOKEN.sub("-", root)[:128]


def scope_text(token: str) -> str:
    """A scope token as people write it: ``system``, ``shop``, ``shop/coder``, ``tree <root>``."""
    if token.startswith(_TREE):
        return f"tree {token.removeprefix(_TREE)}"
    return token.replace("_", "/", 1)


def of_scope(text: str) -> str:
    """The token of a scope as people write it; the opposite of :func:`scope_text`."""
    return text.replace("tree ", _TREE, 1) if text.startswith("tree ") else text.replace("/", "_", 1)


@lru_cache(maxsize=4096)
def is_key(text: str) -> bool:
    """Whether a text names a counter."""
    try:
        Key.parse(text)
    except ValueError:
        return False
    return True


def amount(key: str, tokens: int, usd_micros: int) -> int:
    """What counts on a key; never below 0, because spending cannot be taken back."""
    return max(0, usd_micros if f".{USD}." in key else tokens)
