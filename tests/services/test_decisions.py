"""Decisions on a real server: numbers without gaps or twins, what supersedes what, and the files they become."""

from __future__ import annotations

import asyncio

import pytest

from bus import errors
from bus.events.decision import Recorded
from services import decisions
from tests.services.rig import Rig


async def test_decisions_recorded_at_once_get_numbers_of_their_own(rig: Rig) -> None:
    """Twelve people who decide at the same moment get the numbers 1 to 12, and each finds their own under it."""
    made = await asyncio.gather(
        *(decisions.record(rig.bus, Recorded(number=0, title=f"t{n}", by=f"p{n}")) for n in range(12))
    )
    assert sorted(one.number for one in made) == list(range(1, 13))
    kept = await decisions.all_of(rig.bus)
    assert [kept[one.number].recorded for one in made] == made


async def test_decision_that_was_superseded_carries_no_change(rig: Rig) -> None:
    """A change of policy names a decision that exists and stands; what it lacks is said with the command."""
    await decisions.record(rig.bus, Recorded(number=0, title="first", by="ann"))
    await decisions.record(rig.bus, Recorded(number=0, title="second", by="bob", supersedes=1))
    missing = await decisions.lacking(rig.bus, "loop.depth", 0)
    assert missing is not None
    assert missing.reason == "expected a decision for a change of loop.depth, got none; name it with --decision N"
    assert missing.command.startswith("systems decide")
    gone, unknown = await decisions.lacking(rig.bus, "", 1), await decisions.lacking(rig.bus, "x", 7)
    assert gone is not None
    assert gone.reason == "expected a decision that stands, got: 1, which 2 superseded"
    assert unknown is not None
    assert unknown.reason == "unknown decision 7, expected one of: 1, 2"
    assert await decisions.lacking(rig.bus, "x", 2) is None
    assert await decisions.lacking(rig.bus, "", 0) is None
    with pytest.raises(errors.UnknownName, match="unknown decision '9'"):
        await decisions.record(rig.bus, Recorded(number=0, title="third", by="bob", supersedes=9))


async def test_decision_becomes_an_adr(rig: Rig) -> None:
    """A decision is written with its number, its author, its status and its sections."""
    first = Recorded(number=0, title="Claims, fenced!", by="ann", context="c", decision="d", consequences="- e\n- f")
    await decisions.record(rig.bus, first)
    await decisions.record(rig.bus, Recorded(number=0, title="Otherwise", by="bob", supersedes=1))
    one, two = (await decisions.all_of(rig.bus)).values()
    assert decisions.file_name(one.recorded) == "0001-claims-fenced.md"
    assert decisions.markdown(one) == (
        "# ADR 1: Claims, fenced!\n\n| | |\n|---|---|\n"
        f"| Date | {one.at:%Y-%m-%d} |\n| Author | ann |\n| Status | Superseded by ADR 2 |\n"
        "\n## Context and Problem Statement\n\nc\n\n## Decision\n\nd\n\n## Consequences\n\n- e\n- f\n"
    )
    assert "| Supersedes | ADR 1 |" in decisions.markdown(two)
