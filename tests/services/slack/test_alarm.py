"""What is wrong with Slack itself is raised where people look."""

from __future__ import annotations

import asyncio

from bus.events import finding
from services.slack.alarm import Alarm
from services.slack.screen import Refused
from services.slack.standing import NoLine, State
from tests.services.rig import Rig


async def test_broken_line_and_refused_channel_are_raised(rig: Rig) -> None:
    """A channel that refuses and a socket that stays down become concerns that say what to click."""
    await rig.warden()
    alarm, line = Alarm(rig.bus), NoLine()
    line.stand(State.REFUSED, "invalid_auth: copy the token anew")
    watching = asyncio.create_task(alarm.watch(line, 0.1))
    await alarm.channel("#shop", Refused("is_archived"))
    raised = await rig.control.until(
        lambda: (
            found
            if len(found := [r.data for r in rig.control.records if isinstance(r.data, finding.Raised)]) == 2
            else None
        )
    )
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    said = {one.title: one.detail for one in raised}
    assert "unarchive the channel" in said["Slack takes nothing for #shop: is_archived"]
    assert "copy the token anew" in said["Nothing that people do in Slack reaches the fleet: refused"]
