"""Drills that cannot be made now."""

from __future__ import annotations

import pytest

from bus.refusal import GuardRefused, Reason, Refusal
from services.drill.drill import prove
from services.drill.orphan import Orphan
from services.home import Home
from tests.services.rig import Rig, until


async def test_drill_is_refused_where_its_work_could_not_be_done(rig: Rig) -> None:
    """With a cap of the whole system reached a drill is refused with that cap's words, and no guard is called unproven."""
    capped = Refusal(reason=Reason.CAPPED, scope="system", because="all is used")
    await rig.bus.trips.put("quota.system.tokens.day", capped)
    await until(lambda: rig.bus.gate.trips)
    with pytest.raises(GuardRefused, match="all is used"):
        await prove(Orphan(), rig.bus, Home(rig.home), "ann")
    assert not [r for r in rig.control.records if r.subject.startswith("ctl.drill.")]
