"""A real fleet in which a raised concern is triaged by a role, and what the allow-list lets through is done."""

from __future__ import annotations

import pytest

from bus.events import finding, ops
from tests.chaos.fleet import Fleet

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

FLEET = """
[monitor]
triage = "shop/ops"
allow = ["restart agent_runner-*"]
look = "500ms"

[projects.shop.roles.ops]
handler = { kind = "function", target = "handlers:propose" }
grace = "1s"
"""
HANDLERS = """
def propose(input):
    actions = [
        {"action": "restart", "target": "agent_runner-1", "why": "it is tired"},
        {"action": "restart", "target": "warden", "why": "so is this one"},
    ]
    return {"summary": "rest helps", "actions": actions}
"""


@pytest.mark.soak
async def test_allowed_proposal_is_done_and_another_waits_for_a_person(fleet: Fleet) -> None:
    """Of two proposed restarts the one on the allow-list brings a new process, with its action on the record; the other waits."""
    fleet.write(FLEET, HANDLERS)
    await fleet.up()
    before = await fleet.pid("agent_runner-1")
    raised = await fleet.systems("raise", "concern", "--title", "slow today")
    assert raised.status == 0, raised.err
    async with fleet.bus() as desk:
        done = await desk.control.subject(
            lambda r: r.subject.startswith("ctl.ops.") and isinstance(r.data, ops.Finished)
        )
        assert done.data.ok
        asked = [r.data for r in desk.control.records if isinstance(r.data, ops.Requested)]
        assert [(one.action, one.target, one.who) for one in asked] == [("restart", "agent_runner-1", "triage")]
        proposed = next(r.data for r in desk.control.records if isinstance(r.data, finding.Proposed))
        assert [(one.target, one.allowed) for one in proposed.proposals] == [
            ("agent_runner-1", True),
            ("warden", False),
        ]
    assert await fleet.pid("agent_runner-1") != before
    shown = (await fleet.systems("findings", "--output", "json")).json()
    assert any("warden" in str(one.get("proposals")) for one in shown["findings"])
