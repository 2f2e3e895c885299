"""Nothing that anybody may publish ends the warden or a runner: what cannot be read is stepped over, wherever it lies."""

from __future__ import annotations

from typing import Any

import pytest

from bus.ids import new_id
from tests.services.rig import Rig

DEEP = b"[" * 100_000
RUBBISH = {
    "nothing": b"",
    "text": b"not json",
    "no utf-8 in a string": b'{"specversion":"\xff"}',
    "a string of no utf-8": b'"\xff\xfe"',
    "deep": DEEP,
    "deep inside": b'{"handler":{"kind":"function","target":"a:b"},"input_schema":{"a":' + DEEP,
    "a list": b"[1,2]",
    "null": b"null",
    "a lone surrogate": b'{"daemon":"\\ud800","due":"\\ud800"}',
    "huge numbers": b'{"due":1e400,"id":99999999999999999999999999}',
}


async def echo(input: Any) -> Any:
    """A handler that gives back what it gets."""
    return input


@pytest.mark.parametrize("rubbish", RUBBISH.values(), ids=RUBBISH.keys())
async def test_daemons_live_through_rubbish_everywhere(rig: Rig, rubbish: bytes) -> None:
    """The same rubbish on every subject that daemons read: work, guards and registry go on, and so does the next warden."""
    await rig.role("shop/coder", echo)
    first, task = await rig.warden()
    _, runner = await rig.runner()
    running = await rig.ask("shop/coder", 0)
    await rig.story.event(running.id, "completed")
    id_ = new_id()
    subjects = [
        *(
            f"inv.shop.coder.{id_}.{name}"
            for name in ("requested", "claimed", "completed", "dead_lettered", "cancelled")
        ),
        f"inv.shop.coder.{running.id}.failed",
        f"inv.{id_}",
        f"ctl.registry.{id_}.changed",
        f"ctl.daemon.{id_}.started",
        f"dlq.shop.coder.{id_}",
        "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.INVOCATIONS.shop_coder",
        "tick.cron.shop.coder.x",
        f"tick.delayed.shop.coder.{id_}",
        "$KV.registry.roles.shop.coder",
        "$KV.registry.prompts.rules",
        "$KV.registry.projects.shop",
        "$KV.liveness.agent_runner.x",
        "$KV.schedules.shop.coder.x",
        "requests.shop.coder",
        "fleet.status",
        f"fleet.cancel.{id_}",
    ]
    nc = rig.connection.nc
    for subject in subjects:
        await nc.publish(subject, rubbish)
    await nc.flush()
    accepted = await rig.ask("shop/coder", 1)
    await rig.story.event(accepted.id, "completed")
    await rig.control.subject(lambda r: r.subject.endswith(".rejected") and r.data.subject == f"inv.{id_}")
    await rig.bucket("registry").put("projects.after", b"{}")
    await rig.control.subject(lambda r: r.subject == "ctl.registry.projects_after.changed")
    assert not task.done()
    await rig.end(first)
    _, task = await rig.warden()
    await rig.bucket("registry").put("projects.later", b"{}")
    await rig.control.subject(lambda r: r.subject == "ctl.registry.projects_later.changed")
    again = await rig.ask("shop/coder", 2)
    await rig.story.event(again.id, "completed")
    assert not task.done()
    assert runner.workers.keys() == {("shop", "coder")}
