"""The topology: what is declared, and that the real server takes it as it is."""

from __future__ import annotations

import pytest

from bus import plan, topology
from bus.connection import Connection
from bus.invocation import Limits
from bus.store import CONTROL, DEAD_LETTERS, INVOCATIONS, stream_of
from bus.topology import SERVICE_CONSUMERS, Topology

STREAMS = {stream.name: stream for stream in topology.streams()}


def test_topology_names_are_unique_and_explained() -> None:
    """No stream is declared twice, and each says why it is as it is."""
    assert len(STREAMS) == len(topology.streams())
    assert all(stream.why for stream in STREAMS.values())


def test_topology_lets_nothing_waiting_expire() -> None:
    """Requests, dead letters and control events have no age limit, and what guards do cannot be erased."""
    for name in (INVOCATIONS, CONTROL, DEAD_LETTERS):
        assert not STREAMS[name].config.get("max_age")
        assert STREAMS[name].config["storage"] == "file"
        assert STREAMS[name].config["retention"] == "limits"
    assert STREAMS[CONTROL].config["deny_delete"]
    assert STREAMS[CONTROL].config["deny_purge"]
    assert STREAMS[INVOCATIONS].config["allow_atomic"]


def test_topology_marks_expire_no_later_than_heartbeats() -> None:
    """A time to live below the mark's would be raised to it by the server, and a dead daemon seen late."""
    config = STREAMS["KV_liveness"].config
    assert config["subject_delete_marker_ttl"] <= topology.HEARTBEAT_TTL_S * 1_000_000_000
    assert config["allow_msg_ttl"]


def test_topology_stores_do_not_overlap() -> None:
    """The store looks for each subject in the one stream that takes it."""
    for subject in ("inv.a.b.c.requested", "ctl.a.b.c", "dlq.a.b.c"):
        head = subject.partition(".")[0]
        assert [name for name, stream in STREAMS.items() if f"{head}.>" in stream.config["subjects"]] == [
            stream_of(subject)
        ]


def test_topology_replicas_reach_every_stream() -> None:
    """A fleet on three servers keeps three copies of everything."""
    assert {stream.config["num_replicas"] for stream in topology.streams(3)} == {3}


def test_topology_role_consumer_has_no_backoff() -> None:
    """The server's own backoff list would replace ack_wait: retries wait by a delayed NAK instead."""
    limits = Limits(max_attempts=3, max_crashes=3)
    made = topology.role_consumer("shop", "coder", ack_wait_s=900, max_deliver=limits.max_deliver, max_ack_pending=32)
    assert made.name == "shop_coder"
    assert made.config["filter_subject"] == "inv.shop.coder.*.requested"
    assert (made.config["ack_wait"], made.config["max_deliver"]) == (900_000_000_000, 7)
    assert "backoff" not in made.config


@pytest.mark.usefixtures("topology")
async def test_topology_is_taken_by_the_server_as_declared(connection: Connection) -> None:
    """Applied to a fresh server, nothing differs afterwards: no stream, no bucket, no consumer."""
    role = topology.role_consumer("shop", "coder", ack_wait_s=900, max_deliver=7, max_ack_pending=32)
    declared = Topology(streams=topology.streams(), consumers=(*SERVICE_CONSUMERS, role))
    await plan.apply(connection, declared, await plan.plan(connection, declared))
    assert await plan.plan(connection, declared, prune_roles=True) == []
