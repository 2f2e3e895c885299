"""The plan on a real server: what differs is shown, what loses something is refused, and the rest is done."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bus import errors, plan
from bus.connection import Connection
from bus.events.topology import Change
from bus.publisher import Publisher
from bus.store import INVOCATIONS
from bus.topology import SERVICE_CONSUMERS, Consumer, Stream, Topology, role_consumer, streams


def role(name: str = "coder", *, max_deliver: int = 7, ack_wait_s: float = 900) -> Consumer:
    """A role's consumer."""
    return role_consumer("shop", name, ack_wait_s=ack_wait_s, max_deliver=max_deliver, max_ack_pending=4)


def declared(*consumers: Consumer, **changed: Any) -> Topology:
    """The bus as it ships, with INVOCATIONS changed."""
    made = tuple(
        msgspec.structs.replace(stream, config=stream.config | changed) if stream.name == INVOCATIONS else stream
        for stream in streams()
    )
    return Topology(streams=made, consumers=(*SERVICE_CONSUMERS, *consumers))


async def done(connection: Connection, topology: Topology, **options: Any) -> list[plan.Step]:
    """Plan and apply: the steps."""
    steps = await plan.plan(connection, topology, **options)
    await plan.apply(connection, topology, steps)
    return steps


async def test_plan_creates_everything_once(connection: Connection) -> None:
    """On an empty server everything is to be created, with each field shown; the second time there is nothing to do."""
    topology = declared(role())
    steps = await done(connection, topology)
    assert len(steps) == len(topology.streams) + len(topology.consumers)
    assert {step.action for step in steps} == {"create"}
    assert [step.kind for step in steps] == ["stream"] * len(topology.streams) + ["consumer"] * len(topology.consumers)
    assert Change(field="subjects", before="null", after='["inv.>"]') in steps[0].changes
    assert steps[0].why
    assert await plan.plan(connection, topology) == []


async def test_plan_shows_the_field_that_differs(connection: Connection) -> None:
    """A changed declaration is one step with one change, before and after, and nothing else is touched."""
    await done(connection, declared(role()))
    window = declared(role(), duplicate_window=60_000_000_000)
    (step,) = await plan.plan(connection, window)
    assert (step.kind, step.name, step.action, step.destructive) == ("stream", INVOCATIONS, "update", "")
    assert step.changes == (Change(field="duplicate_window", before="120000000000", after="60000000000"),)
    await done(connection, window)
    assert await plan.plan(connection, window) == []


async def test_plan_finds_a_stream_that_was_edited_by_hand(connection: Connection) -> None:
    """What somebody changed on the server is found, and put back; what we do not declare is left as it is."""
    await done(connection, declared())
    config = (await connection.api("STREAM.INFO.CONTROL"))["config"]
    edited = config | {
        "max_age": 3600 * 10**9,
        "duplicate_window": 10**9,
        "description": "mine",
        "max_msg_size": 512_000,
    }
    await connection.api("STREAM.UPDATE.CONTROL", edited)
    (step,) = await done(connection, declared())
    assert step.name == "CONTROL"
    assert [change.field for change in step.changes] == ["duplicate_window", "max_age"]
    config = (await connection.api("STREAM.INFO.CONTROL"))["config"]
    assert (config["description"], config["max_msg_size"]) == ("mine", 512_000)


async def test_plan_finds_an_age_limit_that_was_set_by_hand(connection: Connection) -> None:
    """An age limit on requests would let them vanish: it is found and taken away."""
    await done(connection, declared())
    config = (await connection.api(f"STREAM.INFO.{INVOCATIONS}"))["config"]
    await connection.api(f"STREAM.UPDATE.{INVOCATIONS}", config | {"max_age": 3600 * 10**9, "max_bytes": 10**6})
    (step,) = await done(connection, declared())
    assert [change.field for change in step.changes] == ["max_age", "max_bytes"]
    assert step.destructive == ""
    assert await plan.plan(connection, declared()) == []


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"storage": "memory"}, "storage cannot be changed in place (live: 'file', declared: 'memory')"),
        ({"retention": "workqueue"}, "retention cannot be changed in place"),
        ({"max_age": 10**9}, "max_age would drop messages that are kept now"),
        ({"max_bytes": 1000}, "max_bytes would drop messages that are kept now"),
        ({"max_msgs_per_subject": 1}, "max_msgs_per_subject would drop messages that are kept now"),
    ],
)
async def test_plan_refuses_what_loses_something(
    connection: Connection, changed: dict[str, Any], sentence: str
) -> None:
    """A destructive step is marked with its reason, refused with it, and nothing at all is done."""
    await done(connection, declared())
    harmless = declared(role(), **changed)
    steps = await plan.plan(connection, harmless)
    with pytest.raises(errors.Conflict) as caught:
        await plan.apply(connection, harmless, steps)
    assert str(caught.value).startswith(
        f"expected only changes that lose nothing, got: stream {INVOCATIONS}: {sentence}"
    )
    assert await plan.plan(connection, declared()) == []
    assert "shop_coder" not in ((await connection.api(f"CONSUMER.NAMES.{INVOCATIONS}")).get("consumers") or [])


async def test_plan_does_what_loses_something_if_that_is_allowed(connection: Connection) -> None:
    """With leave, a destructive change is made."""
    await done(connection, declared())
    shorter = declared(max_age=3600 * 10**9)
    await plan.apply(connection, shorter, await plan.plan(connection, shorter), allow_destructive=True)
    assert await plan.plan(connection, shorter) == []


async def test_plan_does_not_take_a_protection_back(connection: Connection) -> None:
    """A stream that forbids deletion cannot be declared to allow it again."""
    await done(connection, declared())
    weaker = Topology(
        streams=(Stream(name="CONTROL", config={"subjects": ["ctl.>"], "deny_delete": False}),),
    )
    (step,) = await plan.plan(connection, weaker)
    assert step.destructive == "deny_delete cannot be taken back"


async def test_plan_changes_a_role_in_place(connection: Connection, publisher: Publisher) -> None:
    """A consumer's new limits are an update that keeps its position; max_deliver is raised but never lowered."""
    await done(connection, declared(role()))
    await publisher.publish("inv.shop.coder.x.requested", b"work")
    (step,) = await done(connection, declared(role(ack_wait_s=60, max_deliver=9)))
    assert [change.field for change in step.changes] == ["ack_wait", "max_deliver"]
    info = await connection.api(f"CONSUMER.INFO.{INVOCATIONS}.shop_coder")
    assert (info["num_pending"], info["config"]["max_deliver"]) == (1, 9)
    assert await plan.plan(connection, declared(role(ack_wait_s=60, max_deliver=5))) == []
    (step,) = await done(connection, declared(role(ack_wait_s=30, max_deliver=5)))
    assert [change.field for change in step.changes] == ["ack_wait"]
    info = await connection.api(f"CONSUMER.INFO.{INVOCATIONS}.shop_coder")
    assert (info["config"]["ack_wait"], info["config"]["max_deliver"]) == (30 * 10**9, 9)


async def test_plan_prunes_roles_only_when_nothing_waits(connection: Connection, publisher: Publisher) -> None:
    """A role that is no longer registered loses its consumer, unless work waits on it, and only if asked."""
    await done(connection, declared(role("coder"), role("tester")))
    await publisher.publish("inv.shop.tester.x.requested", b"work")
    assert await plan.plan(connection, declared()) == []
    steps = await plan.plan(connection, declared(), prune_roles=True)
    assert {(step.name, step.action, step.destructive) for step in steps} == {
        (f"{INVOCATIONS}/shop_coder", "delete", ""),
        (f"{INVOCATIONS}/shop_tester", "delete", "1 work items wait on it"),
    }
    with pytest.raises(errors.Conflict, match="shop_tester: 1 work items wait on it"):
        await plan.apply(connection, declared(), steps)
    (kept,) = await done(connection, declared(role("tester")), prune_roles=True)
    assert kept.name == f"{INVOCATIONS}/shop_coder"


async def test_plan_prunes_nobody_elses_consumers(connection: Connection) -> None:
    """A consumer that is not a role's stays, whoever made it and however idle it is."""
    await done(connection, declared())
    for name, filter_ in (("audit", "inv.>"), ("shop_coder", "inv.shop.>"), ("x_y", "inv.shop.coder.*.requested")):
        config = {"durable_name": name, "filter_subject": filter_, "ack_policy": "explicit"}
        body = {"stream_name": INVOCATIONS, "config": config}
        await connection.api(f"CONSUMER.CREATE.{INVOCATIONS}.{name}", body)
    assert await plan.plan(connection, declared(), prune_roles=True) == []


async def test_plan_prunes_on_a_server_without_streams(connection: Connection) -> None:
    """On an empty server there is nothing to prune, and that is no error."""
    assert {step.action for step in await plan.plan(connection, declared(), prune_roles=True)} == {"create"}
