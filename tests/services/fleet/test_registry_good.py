"""The registry keeps what is good: values that cannot be used take nothing away, not even over a restart."""

from __future__ import annotations

import msgspec

from services.fleet.entries import role_key
from services.fleet.registry import Registry
from services.fleet.spec import FunctionHandler, Role
from tests.services.rig import Rig, until

ROLE = Role(handler=FunctionHandler(target="a:b"))
KEY = role_key("shop", "coder")


async def opened(rig: Rig) -> Registry:
    """A registry that watches, closed with the rig."""
    registry = Registry(rig.bucket("registry"))
    await registry.open()
    rig.on_end(registry.close)
    return registry


async def test_registry_falls_back_to_the_newest_good_value(rig: Rig) -> None:
    """Who starts after a bad value was put takes the newest good one before it, and says what is refused and what is kept."""
    bucket = rig.bucket("registry")
    await bucket.put(KEY, msgspec.json.encode(ROLE))
    good = await bucket.put(KEY, msgspec.json.encode(msgspec.structs.replace(ROLE, concurrency=9)))
    await bucket.put(KEY, b"no role")
    bad = await bucket.put(KEY, b"{}")
    registry = await opened(rig)
    assert registry.role("shop", "coder").role.concurrency == 9
    assert registry.role("shop", "coder").revision == good
    refused = registry.refused[KEY]
    assert (refused.revision, refused.kept) == (bad, good)
    assert "expected the key 'handler'" in refused.sentence
    await bucket.put(KEY, msgspec.json.encode(ROLE))
    await until(lambda: not registry.refused)
    assert registry.role("shop", "coder").role.concurrency == ROLE.concurrency


async def test_registry_takes_a_role_when_its_prompt_comes(rig: Rig) -> None:
    """A role that names a prompt which is not there yet is refused, and takes effect as soon as the prompt is put."""
    registry = await opened(rig)
    changed: list[str] = []
    registry.on_change = changed.append
    bucket = rig.bucket("registry")
    await bucket.put(KEY, msgspec.json.encode(msgspec.structs.replace(ROLE, prompt="rules")))
    await until(lambda: KEY in registry.refused)
    assert registry.roles == {}
    await bucket.put("prompts.rules", b"be brief")
    await until(lambda: changed == ["prompts.rules", KEY])
    assert registry.prompt(registry.role("shop", "coder").role) == registry.prompts["rules"]
    assert registry.refused == {}


async def test_registry_read_again_forgets_what_is_gone(rig: Rig) -> None:
    """A role that was taken out between two readings is gone after the second, and the revision counts its end."""
    bucket = rig.bucket("registry")
    await bucket.put(KEY, msgspec.json.encode(ROLE))
    registry = Registry(bucket)
    await registry.load()
    assert set(registry.roles) == {("shop", "coder")}
    gone = await bucket.delete(KEY)
    await registry.load()
    assert (registry.roles, registry.seen) == ({}, gone)
