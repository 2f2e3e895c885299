"""How facts are printed where nobody looks: plain, and aligned."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from services.cli import output


def test_facts_are_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    """A fact is its name and its value: a moment to the second, several values with commas, and what is longer than its margin whole."""
    known = {
        "made": datetime(2026, 11, 26, 2, 30, 1, 999, tzinfo=UTC),
        "used by": ("warden", "projector"),
        "attempts": 3,
        "idempotent": False,
    }
    output.facts(known.items(), 8)
    assert capsys.readouterr().out.splitlines() == [
        "made     2026-11-26 02:30:01",
        "used by  warden, projector",
        "attempts 3",
        "idempotent False",
    ]
