"""A runner follows the registry: roles come, change and go while others work on."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from bus.bucket import Bucket
from services.fleet.entries import role_key
from tests.services.rig import Rig, until


async def echo(input: Any) -> Any:
    """A handler that gives back what it gets."""
    return input


async def test_runner_takes_up_a_changed_role(rig: Rig) -> None:
    """Work claimed after a change runs under the new handler and names its revision; what runs finishes under the old."""
    begun, go = asyncio.Event(), asyncio.Event()

    async def old(_input: Any) -> str:
        begun.set()
        await go.wait()
        return "old"

    async def new(_input: Any) -> str:
        return "new"

    await rig.role("shop/coder", old)
    first = rig.registry.role("shop", "coder").revision
    _, runner = await rig.runner()
    before = await rig.ask("shop/coder")
    await asyncio.wait_for(begun.wait(), 30)
    await rig.role("shop/coder", new)
    second = rig.registry.role("shop", "coder").revision
    await until(lambda: runner.workers["shop", "coder"].role.revision == second)
    after = await rig.ask("shop/coder")
    done = await rig.story.event(after.id, "completed")
    assert bytes(done.data.output) == b'"new"'
    go.set()
    done = await rig.story.event(before.id, "completed")
    assert bytes(done.data.output) == b'"old"'
    revisions = [(await rig.story.event(i.id, "claimed")).data.registry_revision for i in (before, after)]
    assert revisions == [first, second]


async def test_runner_names_the_prompt_of_a_claim(rig: Rig) -> None:
    """The handler gets the prompt's present text, and the claim names its digest."""

    async def say(_input: Any, ctx: Any) -> str:
        return str(ctx.prompt)

    registry: Bucket = rig.bucket("registry")
    await registry.put("prompts.rules", b"be brief")
    await rig.role("shop/coder", say, prompt="rules")
    _, runner = await rig.runner()
    one = await rig.ask("shop/coder")
    assert bytes((await rig.story.event(one.id, "completed")).data.output) == b'"be brief"'
    await registry.put("prompts.rules", b"be kind")
    await until(lambda: runner._desk.registry.prompts["rules"].text == "be kind")
    two = await rig.ask("shop/coder")
    assert bytes((await rig.story.event(two.id, "completed")).data.output) == b'"be kind"'
    digests = {rig.story.of(i.id, "claimed")[0].data.prompt_digest for i in (one, two)}
    assert len(digests) == 2
    assert all(digest.startswith("sha-256:") for digest in digests)


async def test_runner_hears_of_changes_while_a_role_leaves_slowly(rig: Rig) -> None:
    """A role that is removed while its handler runs lets that finish, and does not keep a new role waiting."""
    begun, go = asyncio.Event(), asyncio.Event()

    async def slow(_input: Any) -> str:
        begun.set()
        await go.wait()
        return "finished"

    await rig.role("shop/slow", slow)
    _, runner = await rig.runner()
    accepted = await rig.ask("shop/slow")
    await asyncio.wait_for(begun.wait(), 30)
    await rig.bucket("registry").delete(role_key("shop", "slow"))
    await rig.role("shop/fresh", echo)
    fresh = await rig.ask("shop/fresh", 1)
    await rig.story.event(fresh.id, "completed")
    assert set(runner.workers) == {("shop", "fresh")}
    go.set()
    done = await rig.story.event(accepted.id, "completed")
    assert msgspec.json.decode(done.data.output) == "finished"


async def test_runner_counts_what_it_has_handled(rig: Rig) -> None:
    """The evidence of a runner names results, claims in hand and the last answers of the server."""
    await rig.role("shop/coder", echo)
    running, runner = await rig.runner()
    await until(lambda: running.evidence().last_empty_at or runner.workers)
    for n in range(3):
        await rig.story.event((await rig.ask("shop/coder", n)).id, "completed")
    await until(lambda: running.evidence().handled == 3 and running.evidence().in_flight == 0)
    assert running.evidence().last_message_at is not None
    assert running.heartbeat().handled == 3


async def test_runner_waits_for_a_consumer_that_is_not_there_yet(rig: Rig) -> None:
    """A role whose consumer the warden has not made yet is worked for as soon as it is there."""
    await rig.role("shop/coder", echo)
    await rig.connection.api("CONSUMER.DELETE.INVOCATIONS.shop_coder")
    await rig.runner()
    accepted = await rig.ask("shop/coder", 1)
    await rig.role("shop/coder", echo)
    await rig.story.event(accepted.id, "completed")
