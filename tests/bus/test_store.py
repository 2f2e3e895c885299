"""The log on a real server: fences, lost answers, batches, paging and rubbish."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from bus import errors, ids, wire
from bus.author import Author
from bus.connection import Connection, connect
from bus.events import invocation as ev
from bus.events.daemon import Stopped
from bus.invocation import Status
from bus.publisher import Publisher
from bus.server import EmbeddedServer
from bus.store import CONTROL, INVOCATIONS, Append, Store, fold, stream_of
from bus.subjects import Ref
from bus.topology import Topology
from tests.bus.conftest import LIMIT_S, Address
from tests.bus.proxy import Proxy


@pytest.fixture
def ref() -> Ref:
    """An invocation that nobody has seen."""
    return Ref("shop", "coder", ids.new_id())


@pytest.fixture
async def proxy(server: EmbeddedServer) -> AsyncIterator[Proxy]:
    """A proxy in front of the server."""
    async with Proxy(server.port) as running:
        yield running


@pytest.fixture
async def shaky(proxy: Proxy, topology: Topology) -> AsyncIterator[Store]:
    """A store that reaches the server through the proxy, and waits only half a second for an answer."""
    connection = await connect(Address(proxy.url), "shaky")
    publisher = Publisher(connection, answer_s=0.5)
    await publisher.open()
    yield Store(connection, publisher)
    await publisher.close()
    await connection.close()


def requested(author: Author, ref: Ref) -> Append:
    """The first event of an invocation, fenced on nothing being there."""
    return Append(author.invocation(ref, ev.Requested()), 0, ref.all)


async def begin(store: Store, author: Author, ref: Ref) -> int:
    """Ask for work: the sequence."""
    first = requested(author, ref)
    return await store.append(first.event, expect=0, scope=ref.all)


async def test_store_fence_lets_one_of_two_writers_in(store: Store, author: Author, ref: Ref) -> None:
    """Of two appends with the same expectation the second is refused, by code."""
    seq = await begin(store, author, ref)
    await store.append(author.invocation(ref, ev.Cancelled(reason="1")), expect=seq, scope=ref.all)
    with pytest.raises(errors.SequenceConflict) as caught:
        await store.append(author.invocation(ref, ev.Cancelled(reason="2")), expect=seq, scope=ref.all)
    assert caught.value.code == wire.Code.WRONG_LAST_SEQUENCE
    assert [record.data for record in (await store.history(ref))[1:]] == [ev.Cancelled(reason="1")]


async def test_store_fence_holds_among_many_writers_at_once(store: Store, author: Author, ref: Ref) -> None:
    """Of fifty writers at the same moment exactly one wins, and the others learn it."""
    seq = await begin(store, author, ref)
    writers = [
        store.append(author.invocation(ref, ev.Cancelled(reason=str(n))), expect=seq, scope=ref.all) for n in range(50)
    ]
    results = await asyncio.gather(*writers, return_exceptions=True)
    assert sum(isinstance(result, int) for result in results) == 1
    assert sum(isinstance(result, errors.SequenceConflict) for result in results) == 49


async def test_store_fence_of_one_invocation_does_not_bind_another(store: Store, author: Author, ref: Ref) -> None:
    """Invocations are fenced apart, also when one id is the beginning of the other."""
    await begin(store, author, ref)
    await begin(store, author, Ref(ref.project, ref.role, ref.id + "0"))


async def test_store_append_again_returns_the_first_sequence(store: Store, author: Author, ref: Ref) -> None:
    """The same event with its old fence is found as stored, and stored only once."""
    event = requested(author, ref).event
    first = await store.append(event, expect=0, scope=ref.all)
    assert await store.append(event, expect=0, scope=ref.all) == first
    assert await store.append(event) == first
    assert len(await store.history(ref)) == 1


async def test_store_append_whose_answer_is_swallowed_is_stored_once(
    shaky: Store, proxy: Proxy, store: Store, author: Author, ref: Ref
) -> None:
    """The server stores, its answer is lost and the connection breaks: the append returns what was stored."""
    proxy.swallow = True
    task = asyncio.create_task(begin(shaky, author, ref))
    async with asyncio.timeout(LIMIT_S):
        await proxy.lost.wait()
        proxy.cut()
        seq = await task
    assert [record.seq for record in await store.history(ref)] == [seq]


async def test_store_append_whose_request_is_lost_is_stored_once(
    shaky: Store, proxy: Proxy, store: Store, author: Author, ref: Ref
) -> None:
    """The connection breaks before the server has the event: it is sent again."""
    proxy.cut_before(b"HPUB inv.")
    async with asyncio.timeout(LIMIT_S):
        seq = await begin(shaky, author, ref)
    assert proxy.lost.is_set()
    assert [record.seq for record in await store.history(ref)] == [seq]


async def test_store_append_that_lost_meanwhile_is_a_conflict(
    shaky: Store, proxy: Proxy, store: Store, author: Author, ref: Ref
) -> None:
    """After a lost request somebody else's event is in the way: the fence is believed."""
    seq = await begin(store, author, ref)
    proxy.cut_before(b"HPUB inv.")
    task = asyncio.create_task(shaky.append(author.invocation(ref, ev.Cancelled()), expect=seq, scope=ref.all))
    async with asyncio.timeout(LIMIT_S):
        await proxy.lost.wait()
        await store.append(author.invocation(ref, ev.Cancelled(reason="quicker")), expect=seq, scope=ref.all)
        with pytest.raises(errors.SequenceConflict):
            await task
    assert len(await store.history(ref)) == 2


async def test_store_batch_is_stored_whole_and_in_order(store: Store, author: Author, ref: Ref) -> None:
    """Members lie one after the other, and the answer is the last one's sequence."""
    seq = await begin(store, author, ref)
    other = Ref("ledger", "clerk", ids.new_id())
    last = await store.append_batch(
        [
            Append(author.invocation(ref, ev.Released(reason=ev.ReleaseReason.DRAIN)), seq, ref.all),
            Append(author.invocation(ref, ev.Requested(generation=1)), None, ref.all),
            requested(author, other),
        ]
    )
    assert last == seq + 3
    state = fold(await store.history(ref))
    assert state is not None
    assert (state.requested_seq, state.status) == (seq + 2, Status.QUEUED)
    assert [record.seq for record in await store.history(other)] == [last]


async def test_store_batch_with_one_stale_member_stores_nothing(store: Store, author: Author, ref: Ref) -> None:
    """One fence that does not hold refuses the whole batch."""
    seq = await begin(store, author, ref)
    fresh = [Ref("ledger", "clerk", ids.new_id()) for _ in range(3)]
    batch = [requested(author, other) for other in fresh]
    batch.insert(2, Append(author.invocation(ref, ev.Cancelled()), seq - 1, ref.all))
    with pytest.raises(errors.SequenceConflict):
        await store.append_batch(batch)
    for other in fresh:
        assert await store.history(other) == []
    assert len(await store.history(ref)) == 1


async def test_store_batch_repeated_is_found(store: Store, author: Author, ref: Ref) -> None:
    """The same batch again resolves to the first one's sequence, with fences (10071) and without (10201)."""
    batch = [requested(author, ref), Append(author.invocation(ref, ev.Cancelled()), None, ref.all)]
    last = await store.append_batch(batch)
    assert await store.append_batch(batch) == last
    unfenced = [Append(item.event) for item in batch]
    assert await store.append_batch(unfenced) == last
    assert len(await store.history(ref)) == 2


async def test_store_batch_whose_answer_is_swallowed_is_stored_once(
    shaky: Store, proxy: Proxy, store: Store, author: Author, ref: Ref
) -> None:
    """A commit whose answer is lost is found as stored."""
    batch = [requested(author, ref), Append(author.invocation(ref, ev.Cancelled()), None, ref.all)]
    proxy.swallow = True
    task = asyncio.create_task(shaky.append_batch(batch))
    async with asyncio.timeout(LIMIT_S):
        await proxy.lost.wait()
        proxy.cut()
        last = await task
    assert [record.seq for record in await store.history(ref)] == [last - 1, last]


@pytest.mark.parametrize("position", [1, 2, 3])
async def test_store_batch_torn_by_the_connection_is_stored_once(
    shaky: Store, proxy: Proxy, store: Store, author: Author, ref: Ref, position: int
) -> None:
    """The connection breaks before the first member, in the middle, or before the commit: whole or not at all, and once."""
    batch = [requested(author, ref)]
    batch += [Append(author.invocation(ref, ev.Cancelled(reason=str(n))), None, ref.all) for n in range(2)]
    proxy.cut_before(f"Nats-Batch-Sequence: {position}\r\n".encode())
    async with asyncio.timeout(LIMIT_S):
        last = await shaky.append_batch(batch)
    assert proxy.lost.is_set()
    assert [record.seq for record in await store.history(ref)] == [last - 2, last - 1, last]


async def test_store_batch_over_the_limit_is_refused_clearly(store: Store, author: Author, ref: Ref) -> None:
    """A thousand events go into one batch; one more is refused before anything is sent."""
    events = [author.invocation(ref, ev.Cancelled(reason=str(n))) for n in range(1001)]
    with pytest.raises(errors.Conflict, match="expected at most 1,000 events in one batch, got: 1,001"):
        await store.append_batch([Append(event) for event in events])
    last = await store.append_batch([Append(event) for event in events[:1000]])
    assert [record.seq for record in await store.history(ref)] == list(range(last - 999, last + 1))


async def test_store_batch_of_one_is_an_append(store: Store, author: Author, ref: Ref) -> None:
    """A batch of one event needs no batch."""
    last = await store.append_batch([requested(author, ref)])
    assert [record.seq for record in await store.history(ref)] == [last]


async def test_store_refuses_a_batch_of_nothing(store: Store) -> None:
    """Appending nothing is a mistake of the caller and said to be one."""
    with pytest.raises(errors.Conflict, match="at least one event"):
        await store.append_batch([])


async def test_store_folds_over_rubbish(store: Store, author: Author, ref: Ref, publisher: Publisher) -> None:
    """Anything that is put on an invocation's subjects is kept, tells its problem, and only moves the fence."""
    await begin(store, author, ref)
    other = author.control("b", Stopped(daemon="d", boot_id="b"))
    foreign = msgspec.json.encode(other)
    rubbish: list[tuple[str, bytes, dict[str, str]]] = [
        ("claimed", b"", {}),
        ("claimed", b"hello", {}),
        ("completed", b"\xff\xfe", {}),
        ("cancelled", b'{"data":' + b"[" * 50_000, {}),
        ("stopped", foreign, {}),
        ("no_such_event", foreign, {}),
        ("deeper.still.cancelled", b"{}", {}),
        ("claimed", b"x", {"Status": "204", "Description": "EOB"}),
        ("claimed", b"x", {"Nats-Sequence": "1", "Nats-Subject": "inv.a.b.c.d", "Nats-Time-Stamp": "never"}),
    ]
    for name, payload, headers in rubbish:
        await publisher.publish(ref.event(name), payload, headers)
    records = await store.history(ref)
    assert [record.subject for record in records[1:]] == [ref.event(name) for name, _, _ in rubbish]
    assert all(record.problem and record.data is None for record in records[1:])
    state = fold(records)
    assert state is not None
    assert (state.status, state.last_seq) == (Status.QUEUED, records[-1].seq)
    await store.append(author.invocation(ref, ev.Cancelled()), expect=state.last_seq, scope=ref.all)


async def test_store_reads_beyond_one_page(store: Store, author: Author, ref: Ref, publisher: Publisher) -> None:
    """History, read, last and find see all of more messages than one request brings."""
    await begin(store, author, ref)
    events = [author.invocation(ref, ev.Cancelled(reason=str(n))) for n in range(1249)]
    stored = [await store.append_batch([Append(e) for e in events[i : i + 625]]) for i in (0, 625)]
    assert stored[-1] == 1250
    assert [record.seq for record in await store.history(ref)] == list(range(1, 1251))
    for start, limit, expected in [(1, 500, 500), (1, 501, 501), (700, 0, 551), (1250, 0, 1), (1251, 0, 0), (1, 1, 1)]:
        found = [record.seq async for record in store.read(INVOCATIONS, "inv.>", start=start, limit=limit)]
        assert found == list(range(start, start + expected))
    last = await store.last(INVOCATIONS, ref.all)
    assert last is not None
    assert (last.seq, last.data) == (1250, ev.Cancelled(reason="1248"))
    assert await store.find(ref.id) == ref
    assert await store.find(ids.new_id()) is None
    assert await store.last(INVOCATIONS, "inv.no.such.>") is None
    assert await store.state(Ref("a", "b", "c")) is None


@pytest.mark.soak
async def test_store_reads_on_after_the_connection_broke(
    shaky: Store, proxy: Proxy, store: Store, author: Author, ref: Ref
) -> None:
    """A read that loses its answers goes on behind the last one that came, and gives each message once."""
    await store.append_batch([Append(author.invocation(ref, ev.Cancelled(reason=str(n)))) for n in range(900)])
    seen: list[int] = []
    async with asyncio.timeout(LIMIT_S):
        async for record in shaky.read(INVOCATIONS, ref.all):
            seen.append(record.seq)
            if len(seen) in (100, 600):
                proxy.cut()
    assert seen == list(range(1, 901))


async def test_store_says_that_the_stream_is_frozen(
    store: Store, author: Author, ref: Ref, connection: Connection
) -> None:
    """A frozen stream refuses appends and batches by code, reading goes on, and the thaw lets them in."""
    seq = await begin(store, author, ref)
    config = (await connection.api(f"STREAM.INFO.{INVOCATIONS}"))["config"]
    await connection.api(f"STREAM.UPDATE.{INVOCATIONS}", config | {"discard": "new", "max_bytes": 1})
    event = author.invocation(ref, ev.Cancelled())
    batch = [Append(event, seq, ref.all), requested(author, Ref("a", "b", "c"))]
    with pytest.raises(errors.StreamFrozen):
        await store.append(event, expect=seq, scope=ref.all)
    with pytest.raises(errors.StreamFrozen):
        await store.append_batch(batch)
    assert len(await store.history(ref)) == 1
    await store.append(author.control("b", Stopped(daemon="d", boot_id="b")))
    await connection.api(f"STREAM.UPDATE.{INVOCATIONS}", config)
    assert await store.append_batch(batch) == seq + 2


async def test_store_says_how_large_an_event_may_be(store: Store, author: Author, ref: Ref) -> None:
    """An event over the server's limit is refused before it is sent, with both sizes and the remedy."""
    raw = msgspec.Raw(b'"' + b"x" * 1_100_000 + b'"')
    with pytest.raises(errors.PayloadTooLarge, match=r"at most 1,048,576 bytes, got: 1,100,.*artifact"):
        await store.append(author.invocation(ref, ev.Requested(input=raw)), expect=0, scope=ref.all)
    assert await store.history(ref) == []


async def test_store_says_that_there_is_no_stream(
    connection: Connection, publisher: Publisher, author: Author, ref: Ref
) -> None:
    """Before ``systems apply`` appending and reading fail at once with the remedy or the stream's name."""
    bare = Store(connection, publisher)
    with pytest.raises(
        errors.ServerError, match=rf"a publish to {ref.event('requested')} .* run `systems apply`"
    ) as caught:
        await begin(bare, author, ref)
    assert caught.value.code == wire.Code.STREAM_NOT_FOUND
    with pytest.raises(errors.ServerError, match=r"a read of INVOCATIONS .* there is no such stream"):
        await bare.history(ref)


async def test_store_keeps_control_events_apart(store: Store, author: Author) -> None:
    """An event on ctl lies in CONTROL and is read back as its Struct."""
    data: Any = Stopped(daemon="runner", boot_id="b-1", reason="asked")
    seq = await store.append(author.control("b-1", data))
    record = await store.last(CONTROL, "ctl.daemon.b-1.>")
    assert record is not None
    assert (record.seq, record.data, record.problem) == (seq, data, "")


def test_store_knows_only_its_own_subjects() -> None:
    """A subject that no stream of ours holds is a mistake with a name."""
    with pytest.raises(errors.BadSubject, match=r"one of inv\.>, ctl\.>, dlq\.>"):
        stream_of("other.x")
