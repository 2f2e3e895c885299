"""``--set shop/coder.cap=2M``: limits for a backtest, as people write them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import msgspec

from bus.errors import BusError, UnknownName, did_you_mean
from bus.spend import of_scope
from services.fleet.spec import LoopLimits, Unit, Window
from services.guards.backtest import Wanted
from services.quota.caps import in_units

_AMOUNT = re.compile(r"([0-9][0-9_,]*(?:\.[0-9]+)?)\s*([kKmMgG]?)")
_SIZES = {"": 1, "k": 1_000, "m": 1_000_000, "g": 1_000_000_000}
_ROLE = ("cap", "max_attempts", "max_crashes")
_LOOP = tuple(LoopLimits.__struct_fields__)


class BadSetting(BusError):
    """A setting that cannot be replayed with."""


def amount(text: str) -> float | None:
    """``2M``, ``500k``, ``1_000_000``, ``2.50``; None for anything else."""
    found = _AMOUNT.fullmatch(text.strip())
    return None if found is None else float(found[1].replace("_", "").replace(",", "")) * _SIZES[found[2].lower()]


def parse(settings: Sequence[str], base: Wanted, roles: Iterable[str], projects: Iterable[str]) -> Wanted:
    """The base with the settings over it.

    Raises:
        BadSetting, UnknownName: one cannot be understood; the sentence says what was expected.
    """
    caps, loop = dict(base.caps), base.loop
    attempts, crashes = dict(base.max_attempts), dict(base.max_crashes)
    known = ["system", "loop", *projects, *roles]
    for setting in settings:
        name, equals, value = setting.partition("=")
        number = amount(value)
        target, _, field = name.partition(".")
        if not equals or not field or number is None:
            raise BadSetting(
                f"expected SCOPE.LIMIT=NUMBER, such as shop/coder.cap=2M or loop.depth=8, got: {setting!r}"
            )
        if target not in known:
            raise UnknownName("scope", target, known)
        head, *rest = field.split(".")
        if target == "loop":
            if head not in _LOOP or rest:
                raise BadSetting(f"unknown limit {field!r} of loop{did_you_mean(field, _LOOP)}")
            loop = msgspec.structs.replace(loop or LoopLimits(), **{head: max(1, int(number))})
        elif head == "cap":
            unit, window = _kinds(rest, setting)
            caps[of_scope(target), unit, window] = in_units(number, unit)
        elif head in _ROLE and "/" in target and not rest:
            (attempts if head == "max_attempts" else crashes)[target] = max(1, int(number))
        else:
            raise BadSetting(f"unknown limit {field!r} of {target}{did_you_mean(head, _ROLE)}")
    return Wanted(caps=caps, loop=loop, max_attempts=attempts, max_crashes=crashes)


def _kinds(rest: Sequence[str], setting: str) -> tuple[str, str]:
    """Unit and window of ``cap``, ``cap.day``, ``cap.usd.month``; tokens and a day where they are left out."""
    unit, window = Unit.TOKENS.value, Window.DAY.value
    units, windows = [one.value for one in Unit], [one.value for one in Window]
    for word in rest:
        if word in units:
            unit = word
        elif word in windows:
            window = word
        else:
            raise BadSetting(f"unknown unit or window {word!r} in {setting!r}{did_you_mean(word, [*units, *windows])}")
    return unit, window
