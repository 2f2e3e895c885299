"""Durations with and without units."""

from __future__ import annotations

import math
from typing import Any

import pytest

from services.fleet import durations


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (90, 90.0),
        (0.5, 0.5),
        ("250ms", 0.25),
        ("90s", 90.0),
        ("15m", 900.0),
        ("2h", 7200.0),
        ("1d", 86_400.0),
        ("1.5h", 5400.0),
        ("1h30m", 5400.0),
        (" 1 h 30 m ", 5400.0),
        ("0s", 0.0),
    ],
)
def test_duration_is_read_in_seconds(value: Any, seconds: float) -> None:
    """Numbers are seconds; units add up."""
    assert durations.seconds(value) == seconds


@pytest.mark.parametrize(
    "value", ["", "15", "m", "15 minutes", "-5s", "1e3s", "5S", None, True, [], math.inf, math.nan, "9" * 400 + "d"]
)
def test_duration_that_is_none_is_refused(value: Any) -> None:
    """The sentence shows how to write one, and what came."""
    with pytest.raises(
        durations.BadDuration, match="expected a duration: a number of seconds, or a text like"
    ) as caught:
        durations.seconds(value)
    assert str(caught.value).endswith(f"got: {value!r}")
