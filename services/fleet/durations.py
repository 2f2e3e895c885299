"""Durations as people write them: ``90s``, ``15m``, ``1h30m``; in code they are seconds."""

from __future__ import annotations

import math
import re
from typing import Any

from bus import errors

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_WHOLE = re.compile(rf"(?:{_PART.pattern}\s*)+")


class BadDuration(errors.BusError):
    """What should be a duration is none."""

    def __init__(self, value: Any) -> None:
        self.value = value
        super().__init__(
            f"expected a duration: a number of seconds, or a text like '250ms', '90s', '15m', '2h', '1d', got: {value!r}"
        )


def seconds(value: Any) -> float:
    """A duration in seconds.

    Args:
        value: a number of seconds, or numbers with units: ``"250ms"``, ``"90s"``, ``"1h30m"``.

    Raises:
        BadDuration: it is neither, or not finite. Whether zero or a negative number makes sense is the reader's affair.
    """
    if isinstance(value, bool):
        raise BadDuration(value)
    if isinstance(value, int | float):
        if not math.isfinite(value):
            raise BadDuration(value)
        return float(value)
    if not isinstance(value, str) or not _WHOLE.fullmatch(value.strip()):
        raise BadDuration(value)
    total = math.fsum(float(number) * _UNITS[unit] for number, unit in _PART.findall(value))
    if not math.isfinite(total):
        raise BadDuration(value)
    return total
