"""Heartbeats on a real server: who is there, who left, and who was never a heartbeat."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import UTC, datetime

import msgspec
import pytest

from bus.bucket import Bucket
from bus.connection import Connection
from bus.liveness import BEAT_S, Heartbeat, Liveness, Sign
from bus.publisher import Publisher
from bus.store import Store
from bus.topology import HEARTBEAT_TTL_S
from tests.bus.conftest import LIMIT_S


@pytest.fixture
def bucket(connection: Connection, publisher: Publisher, store: Store) -> Bucket:
    """The bucket behind it."""
    return Bucket("liveness", connection, publisher, store)


def heartbeat(boot_id: str) -> Heartbeat:
    """A sign of life."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return Heartbeat(
        daemon="agent_runner",
        instance="agent_runner-1",
        boot_id=boot_id,
        host="h",
        home="x",
        pid=1,
        started_at=now,
        at=now,
        in_flight=3,
    )


async def test_liveness_lists_who_is_there(bucket: Bucket) -> None:
    """Everybody that beats is listed once with the last evidence, and nobody that ended."""
    liveness = Liveness(bucket)
    assert await liveness.all() == []
    for _ in range(3):
        await liveness.beat(heartbeat("b-1"))
    await liveness.beat(heartbeat("b-2"))
    await liveness.end("agent_runner", "b-2")
    assert await liveness.all() == [heartbeat("b-1")]


async def test_liveness_steps_over_rubbish(bucket: Bucket) -> None:
    """A key that somebody put by hand blinds neither the list nor the watch."""
    liveness = Liveness(bucket)
    for rubbish in (b"", b"hello", b"{}", b'{"x":' + b"[" * 50_000):
        await bucket.put("agent_runner.rubbish", rubbish)
        assert await liveness.all() == []
    await liveness.beat(heartbeat("b-1"))
    async with asyncio.timeout(LIMIT_S), aclosing(liveness.watch()) as signs:
        assert await anext(signs) == Sign(boot_id="b-1", heartbeat=heartbeat("b-1"))


async def test_liveness_watch_tells_of_the_end(bucket: Bucket) -> None:
    """A beat and its end are told by boot id, and an end that was said did not expire."""
    liveness = Liveness(bucket)
    await liveness.beat(heartbeat("b-1"))
    async with asyncio.timeout(LIMIT_S), aclosing(liveness.watch()) as signs:
        assert (await anext(signs)).heartbeat == heartbeat("b-1")
        await liveness.end("agent_runner", "b-1")
        assert await anext(signs) == Sign(boot_id="b-1", heartbeat=None, expired=False)


async def test_liveness_leaves_nothing_that_stays(bucket: Bucket, publisher: Publisher, store: Store) -> None:
    """Beats and ends carry a time to live: daemons that come and go do not fill the bucket."""
    liveness = Liveness(bucket)
    await liveness.beat(heartbeat("b-1"))
    await liveness.end("agent_runner", "b-2")
    lives = [message.headers.get("Nats-TTL") async for message in store.messages(bucket.stream, "$KV.liveness.>")]
    assert lives == [f"{HEARTBEAT_TTL_S}s"] * 2


def test_liveness_believes_three_missed_beats() -> None:
    """A heartbeat lives at least three beats, so a short hiccup kills nobody."""
    assert 3 * BEAT_S <= HEARTBEAT_TTL_S


def test_liveness_seat_is_taken_over_by_a_new_boot() -> None:
    """The same instance of the same fleet on the same host is one seat, whatever its boot id."""
    old, new = heartbeat("b-1"), heartbeat("b-2")
    assert old.seat == new.seat
    assert msgspec.structs.replace(new, home="y").seat != old.seat
