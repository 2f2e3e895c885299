"""Roles and prompts change under load: every invocation ends, under the revision that its claim names."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import msgspec
import pytest

from bus.events import invocation as ev
from tests.services.rig import Rig

COUNT = 300


async def said(input: Any, ctx: Any) -> Any:
    """What it was told to be, after a moment in which that may change."""
    before = ctx.prompt
    await asyncio.sleep(0.002)
    return [before, ctx.prompt]


@pytest.mark.slow
async def test_reload_under_load_loses_nothing(rig: Rig) -> None:
    """300 invocations complete, each under the one prompt that its claim names, while prompt and role change by hand."""
    await rig.warden()
    bucket = rig.bucket("registry")
    await bucket.put("prompts.tone", b"tone 0")
    await rig.registry.load()
    await rig.role("shop/coder", said, prompt="tone", concurrency=8)
    await rig.runner()
    role = rig.registry.role("shop", "coder").role
    accepted = [(await rig.ask("shop/coder", n)).id for n in range(COUNT // 2)]
    for change in range(1, 11):
        await bucket.put("prompts.tone", f"tone {change}".encode())
        await bucket.put("roles.shop.coder", b"{}" if change % 3 == 0 else _encoded(role, change))
        accepted += [(await rig.ask("shop/coder", n)).id for n in range(COUNT // 20)]
    await rig.story.until(lambda: all("completed" in rig.story.events.get(id_, ()) for id_ in accepted))
    digests = {f"sha-256:{hashlib.sha256(f'tone {n}'.encode()).hexdigest()}": f"tone {n}" for n in range(11)}
    for id_ in accepted:
        assert rig.story.events[id_] == ["requested", "claimed", "completed"]
        claimed, completed = rig.story.of(id_, "claimed")[0].data, rig.story.of(id_, "completed")[0].data
        assert isinstance(claimed, ev.Claimed)
        told = digests[claimed.prompt_digest]
        assert msgspec.json.decode(completed.output) == [told, told]
    last = await rig.ask("shop/coder", "last")
    completed = (await rig.story.event(last.id, "completed")).data
    assert msgspec.json.decode(completed.output) == ["tone 10", "tone 10"]
    assert len({rig.story.of(id_, "claimed")[0].data.registry_revision for id_ in accepted}) > 1


def _encoded(role: Any, change: int) -> bytes:
    return msgspec.json.encode(msgspec.structs.replace(role, concurrency=8 + change % 2))


async def test_every_daemon_says_which_revision_it_runs(rig: Rig) -> None:
    """A change is told by each daemon's next heartbeat, which comes at once, also when the value was refused."""
    await rig.warden()
    await rig.role("shop/coder", said)
    await rig.runner()
    revision = await rig.bucket("registry").put("roles.shop.coder", b"{}")
    beats: list[int] = []

    async def look() -> None:
        while len(beats) < 2 or min(beats) < revision:
            beats[:] = [beat.config_revision for beat in await rig.bus.liveness.all()]

    await asyncio.wait_for(look(), 30)
    assert beats == [revision, revision]
