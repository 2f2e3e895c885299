"""The gate, on a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
import structlog
from structlog.testing import capture_logs

from bus import gate as gates
from bus import plan, trips
from bus import topology as shape
from bus.bucket import Bucket
from bus.connection import Connection
from bus.flags import Mode
from bus.gate import ALWAYS, Gate
from bus.publisher import Publisher
from bus.refusal import GuardRefused, Reason, Refusal
from bus.server import EmbeddedServer
from bus.store import Store

STREAMS = shape.Topology(streams=shape.streams())


@pytest.fixture
async def gate(connection: Connection, publisher: Publisher, store: Store) -> AsyncIterator[Gate]:
    """An open gate, before the publisher's writes."""
    made = Gate(connection, store, lambda name: Bucket(name, connection, publisher, store))
    await made.open()
    yield made
    await made.close()


async def test_gate_that_was_never_opened_refuses(connection: Connection, publisher: Publisher, store: Store) -> None:
    """Who has not looked at the flags cannot say that they are clear."""
    unopened = Gate(connection, store, lambda name: Bucket(name, connection, publisher, store))
    with pytest.raises(GuardRefused) as refused:
        unopened.check("inv.shop.coder.x.requested")
    assert refused.value.refusal.reason is Reason.UNVERIFIED_FLAG


async def test_gate_follows_the_flag(gate: Gate, connection: Connection, until: Callable[..., Any]) -> None:
    """A flag put by anybody closes the gate of everybody, and a clear opens it again."""
    gate.check("inv.shop.coder.x.requested")
    await connection.nc.publish("$KV.flags.kill_switch", b"frozen")
    await until(lambda: gate.switch.id)
    with pytest.raises(GuardRefused) as refused:
        gate.check("inv.shop.coder.x.requested")
    assert refused.value.refusal.reason is Reason.FROZEN
    assert "systems thaw" in str(refused.value)
    await connection.nc.publish("$KV.flags.kill_switch", b"clear")
    await gate.opened()
    gate.check("inv.shop.coder.x.requested")


async def test_gate_freezes_at_what_it_hears_and_clears_at_what_it_reads(
    gate: Gate, connection: Connection, until: Callable[..., Any]
) -> None:
    """A clear that the stream refused is heard by every subscriber, and must not open the gate."""
    await connection.nc.publish("$KV.flags.kill_switch", b"frozen")
    await until(lambda: gate.switch.id)
    await connection.nc.publish("$KV.flags.kill_switch", b"clear", headers={"Nats-Expected-Last-Sequence": "99999"})
    await connection.nc.flush()
    await gate._look()
    assert gate.switch.mode is Mode.SOFT


async def test_gate_outlives_a_deleted_flag(
    gate: Gate, connection: Connection, publisher: Publisher, store: Store, until: Callable[..., Any]
) -> None:
    """Deleting the flag leaves the gate closed, and the problem told; also for a client that comes later."""
    bucket = Bucket("flags", connection, publisher, store)
    await bucket.put("kill_switch", b"frozen")
    await until(lambda: gate.switch.id)
    await bucket.delete("kill_switch")
    await until(lambda: gate.switch.problem)
    assert gate.closed
    later = Gate(connection, store, lambda name: Bucket(name, connection, publisher, store))
    await later.open()
    try:
        assert later.switch.mode is Mode.SOFT
        assert later.switch.id == gate.switch.id
    finally:
        await later.close()


async def test_gate_refuses_when_the_flags_cannot_be_read(
    gate: Gate, server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, until: Callable[..., Any]
) -> None:
    """A client that has lost the server refuses, says why, and goes on when the server is back."""
    monkeypatch.setattr(gates, "STALE_S", 0.5)
    monkeypatch.setattr(gates, "_LOOK_S", 0.1)
    await gate._look()
    await server.stop()
    await until(lambda: gate.stale)
    with pytest.raises(GuardRefused) as refused:
        gate.check("inv.shop.coder.x.requested")
    assert refused.value.refusal.reason is Reason.UNVERIFIED_FLAG
    gate.check("ctl.freeze.r1.receipt")
    await server.start()
    monkeypatch.setattr(gates, "STALE_S", 5.0)
    await gate.opened()


async def test_gate_looks_as_soon_as_the_server_is_back(
    gate: Gate, server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, until: Callable[..., Any]
) -> None:
    """A server that is back is asked for the flags at once, and not when the next look is due."""
    monkeypatch.setattr(gates, "_LOOK_S", 3600.0)
    await server.stop()
    await until(lambda: not gate._connection.is_up)
    gate._nudged.set()  # whoever waits goes by the new pause from now on
    await until(lambda: not gate._nudged.is_set())
    lost = gate._connection.up_since
    await server.start()
    await until(lambda: gate._connection.up_since > lost)
    # By a question that was put after its return, and not by one that had waited for it.
    await until(lambda: gate._believed_until >= gate._connection.up_since + gates.STALE_S)


@pytest.mark.parametrize(("is_made", "level"), [(False, "info"), (True, "warning")])
async def test_gate_without_trips_warns_where_there_is_a_log(
    connection: Connection, publisher: Publisher, until: Callable[..., Any], is_made: bool, level: str
) -> None:
    """That nobody can say what tripped is a warning, but not on a server that has no bus yet."""
    if is_made:
        await plan.apply(connection, STREAMS, await plan.plan(connection, STREAMS))
        await connection.api("STREAM.DELETE.KV_trips")
    store = Store(connection, publisher)
    gate = Gate(connection, store, lambda name: Bucket(name, connection, publisher, store))
    # A test of a fleet in the same process leaves the command line's way of logging behind: nothing less than warnings.
    structlog.reset_defaults()
    with capture_logs() as told:
        await gate.open()
        await until(lambda: any(one["event"] == "trips_unwatched" for one in told))
        await gate.close()
    assert {one["log_level"] for one in told if one["event"] == "trips_unwatched"} == {level}


async def test_every_write_path_is_named_or_refused(
    gate: Gate, connection: Connection, until: Callable[..., Any]
) -> None:
    """Of every subject that a stream takes it is known whether it passes in a freeze: what is not named is refused."""
    await connection.nc.publish("$KV.flags.kill_switch", b"frozen")
    await until(lambda: gate.switch.id)
    passed: set[str] = set()
    for stream in shape.streams():
        for subject in stream.config["subjects"]:
            try:
                gate.check(subject.replace(">", "a.b.c.d"))
            except GuardRefused:
                continue
            passed.add(stream.name)
    assert passed == {"CONTROL", "DEAD_LETTERS", "SPEND", "KV_flags", "KV_liveness", "KV_trips", "DRILL"} & {
        stream.name for stream in shape.streams()
    }
    assert all(not prefix.startswith(("inv", "sched", "tick", "$KV.registry", "$O.")) for prefix in ALWAYS)


async def test_publisher_sends_nothing_past_a_closed_gate(
    gate: Gate, publisher: Publisher, connection: Connection, until: Callable[..., Any]
) -> None:
    """A write that the gate refuses never reaches the server."""
    publisher.gate = gate
    await connection.nc.publish("$KV.flags.kill_switch_hard", b"frozen")
    await until(lambda: gate.switch.id)
    before = (await connection.api("STREAM.INFO.INVOCATIONS"))["state"]["last_seq"]
    with pytest.raises(GuardRefused, match="only a person"):
        await publisher.publish("inv.a.b.c.requested", b"{}")
    assert (await connection.api("STREAM.INFO.INVOCATIONS"))["state"]["last_seq"] == before


async def test_trips_refuse_what_they_cover(
    gate: Gate, connection: Connection, publisher: Publisher, store: Store, until: Callable[..., Any]
) -> None:
    """A standing trip is known to every gate, covers its scope and nothing else, and ends when it is cleared; rubbish is stepped over."""
    standing = trips.Trips(Bucket("trips", connection, publisher, store))
    await standing.bucket.put("quota.rubbish", b"{")
    refusal = Refusal(reason=Reason.CAPPED, scope="shop", command="systems quota raise shop --to N --reason TEXT")
    await standing.put("quota.shop.tokens.day_2026-01-31", refusal)
    await standing.put(trips.tree_key("root"), Refusal(reason=Reason.LOOP, scope="tree root"))
    await standing.bucket.put(trips.RAMP, msgspec.json.encode(trips.Ramp(per_second=2)))
    await until(lambda: gate.ramp)
    assert gate.refusal(role="shop/coder") == refusal
    assert gate.refusal(role="ledger/bookkeeper") is None
    assert gate.refusal(role="ledger/bookkeeper", root="root") is not None
    await standing.clear("quota.shop.tokens.day_2026-01-31")
    await standing.clear(trips.RAMP)
    await until(lambda: gate.ramp is None)
    assert gate.refusal(role="shop/coder") is None
