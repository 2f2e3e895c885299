"""Every guard is proven on a running fleet of processes, as a person would have it done."""

from __future__ import annotations

import pytest

from tests.chaos.fleet import Fleet

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

#: With caps over everything, for which the drills' own roles have to say what they use.
FLEET = """
[quota]
caps = [{ cap = 1_000_000, window = "day" }, { cap = 10, unit = "usd", window = "day" }]

[projects.shop.roles.coder]
handler = { kind = "trace", speed = 1000 }
max_usd = 0
"""
GUARDS = {"kill switch", "quota breaker", "stuck-claim sweep", "poison-message breaker", "loop breaker"}


async def test_every_drill_passes_and_the_panel_says_so(fleet: Fleet) -> None:
    """`systems drill all` passes, leaves nothing behind, and the panel shows of each guard when it was last proven."""
    fleet.write(FLEET)
    await fleet.up()
    done = await fleet.systems("drill", "all", limit_s=120)
    assert done.status == 0, done.out + done.err
    status = (await fleet.systems("status", "--output", "json")).json()
    guards = {guard["name"]: guard["proof"] for guard in status["guards"]}
    assert guards.keys() == GUARDS
    assert all(proof is not None and proof["passed"] for proof in guards.values())
    assert status["dead_letters"] == 0
    assert status["trips"] == []
    assert [role["role"] for role in status["roles"]] == ["shop/coder"]
    async with fleet.bus() as desk:
        assert {project for project, _ in desk.registry.roles} == {"shop"}


@pytest.mark.soak
async def test_drills_come_by_the_clock(fleet: Fleet) -> None:
    """With `[drills] every` a fleet that was never drilled proves its guards soon after its start, the real switch untouched."""
    fleet.write(FLEET + '[drills]\nevery = "1h"\n')
    await fleet.up()
    async with fleet.bus() as desk:
        for guard in ("kill_switch", "quota", "orphan", "poison", "loop"):
            subjects = {f"ctl.drill.{guard}.passed", f"ctl.drill.{guard}.failed"}
            proof = await desk.control.subject(lambda r, s=subjects: r.subject in s, limit_s=90)  # type: ignore[misc]
            assert proof.subject.endswith(".passed"), proof.data
        assert not [r for r in desk.control.records if r.subject.startswith("ctl.freeze.r")]
