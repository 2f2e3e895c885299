"""Registry changes: recorded, and followed by consumers and runners, however they were put."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bus.events import registry as ev
from services.fleet.entries import role_key
from services.fleet.spec import FunctionHandler, Role
from tests.services.rig import Rig, until


async def echo(input: Any) -> Any:
    """A handler that gives back what it gets."""
    return input


async def test_journal_writes_each_change_once(rig: Rig) -> None:
    """A changed and a removed key are events in CONTROL with their revisions, and a restart adds none."""
    first, _ = await rig.warden()
    role = Role(handler=FunctionHandler(target="a:b"))
    await rig.put("shop/coder", role)
    await rig.bucket("registry").put("prompts.rules", b"be brief")
    await rig.bucket("registry").delete(role_key("shop", "coder"))
    await rig.control.subject(lambda r: isinstance(r.data, ev.Removed))
    await rig.end(first)
    await rig.warden()
    await rig.put("shop/other", role)
    await rig.control.subject(lambda r: r.subject == "ctl.registry.roles_shop_other.changed")
    written = [r.data for r in rig.control.records if isinstance(r.data, ev.Changed | ev.Removed)]
    assert [(type(w).__name__, w.key, w.replaced) for w in written] == [
        ("Changed", "roles.shop.coder", 0),
        ("Changed", "prompts.rules", 0),
        ("Removed", "roles.shop.coder", written[0].revision),
        ("Changed", "roles.shop.other", 0),
    ]
    assert isinstance(written[1], ev.Changed)
    assert msgspec.json.decode(written[1].value) == "be brief"


async def test_journal_makes_the_consumer_of_a_role_that_was_put_by_hand(rig: Rig) -> None:
    """A role put into the bucket while everything runs gets its consumer, and a runner works for it."""
    await rig.warden()
    _, runner = await rig.runner()
    await rig.role("shop/stage", echo)
    value = msgspec.json.encode(rig.registry.role("shop", "stage").role)
    await rig.bucket("registry").put("roles.shop.fresh", value)
    await until(lambda: ("shop", "fresh") in runner.workers)
    await rig.registry.load()
    accepted = await rig.ask("shop/fresh", 1)
    await rig.story.event(accepted.id, "completed")


async def test_journal_brings_a_consumer_to_a_changed_limit(rig: Rig) -> None:
    """New limits of a role arrive at its consumer."""
    await rig.role("shop/coder", echo, max_in_flight=7)
    await rig.warden()
    role = msgspec.structs.replace(rig.registry.role("shop", "coder").role, max_in_flight=9, max_attempts=8)
    await rig.put("shop/coder", role)
    await rig.control.subject(lambda r: isinstance(r.data, ev.Changed) and r.data.replaced > 0)

    async def config() -> tuple[int, int]:
        found = (await rig.connection.api("CONSUMER.INFO.INVOCATIONS.shop_coder"))["config"]
        return found["max_ack_pending"], found["max_deliver"]

    for _ in range(400):
        if await config() == (9, role.limits.max_deliver):
            break
    assert await config() == (9, role.limits.max_deliver)


@pytest.mark.parametrize(
    "value",
    [
        b"not json",
        b"{}",
        b'{"handler":{"kind":"functoin"}}',
        b"[]",
        b'{"handler":{"kind":"function","target":"x"},"concurency":1}',
    ],
)
async def test_journal_keeps_the_last_good_role(rig: Rig, value: bytes) -> None:
    """A value that is no role takes no working role away, is on the record, and the next good one counts."""
    await rig.role("shop/coder", echo)
    await rig.warden()
    _, runner = await rig.runner()
    good = rig.registry.role("shop", "coder")
    await rig.bucket("registry").put("roles.shop.coder", value)
    refused = (await rig.control.subject(lambda r: isinstance(r.data, ev.Refused))).data
    assert (refused.key, refused.kept, bool(refused.sentence)) == ("roles.shop.coder", good.revision, True)
    accepted = await rig.ask("shop/coder", 1)
    await rig.story.event(accepted.id, "completed")
    claimed = await rig.story.event(accepted.id, "claimed")
    assert claimed.data.registry_revision == good.revision
    await rig.put("shop/coder", msgspec.structs.replace(good.role, concurrency=9))
    await until(lambda: runner.workers["shop", "coder"].role.role.concurrency == 9)


@pytest.mark.parametrize("key", ["roles.shop.a.b", "roles.shop", "roles.Shop.X", "rules.shop.coder", "x"])
async def test_journal_survives_a_key_that_names_nothing(rig: Rig, key: str) -> None:
    """A key that can be no role's stops neither warden nor runner, nor the work of others."""
    await rig.role("shop/coder", echo)
    _, task = await rig.warden()
    _, runner = await rig.runner()
    value = msgspec.json.encode(rig.registry.role("shop", "coder").role)
    await rig.bucket("registry").put(key, value)
    await rig.bucket("registry").put("roles.shop.after", value)
    await until(lambda: ("shop", "after") in runner.workers)
    await rig.registry.load()
    accepted = await rig.ask("shop/after", 1)
    await rig.story.event(accepted.id, "completed")
    assert not task.done()
    assert set(runner.workers) == {("shop", "coder"), ("shop", "after")}
