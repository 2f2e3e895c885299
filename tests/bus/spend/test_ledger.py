"""Reservations on a real server: never past a cap, whoever asks at the same time, and never without an answer."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from bus import errors
from bus.connection import connect
from bus.counters import Counters
from bus.events.invocation import Hold, Settlement
from bus.ids import new_id
from bus.publisher import Publisher
from bus.server import EmbeddedServer
from bus.spend import BASE, Grant, Ledger, Limit, Short, Unseeded, Want
from bus.topology import Topology
from tests.bus.conftest import Address

DAY = "shop.tokens.day_2026-11-24"
HOUR = "shop_coder.tokens.hour_2026-11-24T13"
USD = "system.usd.month_2026-11"


class Watched(Counters):
    """Counters of a test: they note every message, and may lose answers."""

    additions: list[tuple[str, int, str]]
    lose: Callable[[], bool] = staticmethod(lambda: False)

    async def add(self, key: str, amount: int, *, message_id: str = "") -> int:
        """Add, and perhaps keep the answer back."""
        self.additions.append((key, amount, message_id))
        total = await super().add(key, amount, message_id=message_id)
        if self.lose():
            raise errors.Unanswered(f"a publish to spend.{key}", 0)
        return total


@pytest.fixture
async def process(server: EmbeddedServer, topology: Topology) -> AsyncIterator[Callable[[], Awaitable[Watched]]]:
    """Makes the counters of one more process, with a connection of its own."""
    async with AsyncExitStack() as stack:

        async def start() -> Watched:
            connection = await connect(Address(server.url), "process")
            stack.push_async_callback(connection.close)
            publisher = Publisher(connection)
            await publisher.open()
            stack.push_async_callback(publisher.close)
            counters = Watched(connection, publisher)
            counters.additions = []
            return counters

        yield start


@pytest.fixture
async def counters(process: Callable[[], Awaitable[Watched]]) -> Watched:
    """Seeded counters."""
    found = await process()
    for key in (DAY, HOUR, USD):
        await found.seed(key, BASE)
    found.additions.clear()
    return found


def ledger(counters: Counters) -> Ledger:
    """A ledger that waits for nothing."""
    return Ledger(counters, new_id, flush_s=0.001, again_s=0.001)


def want(tokens: int, *limits: Limit, usd: int = 0) -> Want:
    """A want."""
    return Want(id=new_id(), tokens=tokens, usd_micros=usd, limits=limits)


def used(hold: Hold, tokens: int) -> Settlement:
    """The end of a claim that used so much."""
    return Settlement(hold=hold, tokens=tokens)


async def test_ledger_reserves_settles_and_gives_back(counters: Watched) -> None:
    """A grant moves every counter of the want by its own unit; the rest comes back at the end."""
    mine = ledger(counters)
    answer = await mine.reserve(want(100, Limit(DAY, 1000), Limit(USD, 500), usd=30))
    assert isinstance(answer, Grant)
    assert answer.hold.keys == (DAY, USD)
    assert (await counters.total(DAY), await counters.total(USD)) == (BASE + 100, BASE + 30)
    mine.settle(Settlement(hold=answer.hold, tokens=60, usd_micros=12))
    await mine.close()
    assert (await counters.total(DAY), await counters.total(USD)) == (BASE + 60, BASE + 12)


async def test_ledger_grants_to_the_token(counters: Watched) -> None:
    """A cap can be filled to its last token, and one token more is short; what did not fit is given back."""
    mine = ledger(counters)
    assert isinstance(await mine.reserve(want(999, Limit(DAY, 1000))), Grant)
    assert await mine.reserve(want(2, Limit(DAY, 1000))) == Short(DAY, 1, 2)
    assert isinstance(await mine.reserve(want(1, Limit(DAY, 1000))), Grant)
    assert await mine.reserve(want(1, Limit(DAY, 1000))) == Short(DAY, 0, 1)
    assert isinstance(await mine.reserve(want(0, Limit(DAY, 1000))), Grant)
    await mine.close()
    assert await counters.total(DAY) == BASE + 1000


async def test_ledger_reserves_on_all_counters_or_on_none(counters: Watched) -> None:
    """A want that one cap has no room for leaves nothing on the others."""
    mine = ledger(counters)
    assert await mine.reserve(want(50, Limit(HOUR, 1000), Limit(DAY, 40))) == Short(DAY, 40, 50)
    await mine.close()
    assert await counters.total(HOUR) == BASE


async def test_ledger_sends_one_message_for_each_counter(counters: Watched) -> None:
    """All that asks at once goes out in one round, together with what came back."""
    mine = ledger(counters)
    answers = await asyncio.gather(*[mine.reserve(want(1, Limit(DAY, 1000), Limit(HOUR, 1000))) for _ in range(200)])
    assert all(isinstance(answer, Grant) for answer in answers)
    assert sorted((key, amount) for key, amount, _ in counters.additions) == sorted([(DAY, 200), (HOUR, 200)])
    counters.additions.clear()
    for answer in answers:
        assert isinstance(answer, Grant)
        mine.settle(used(answer.hold, 0))
    await mine.reserve(want(5, Limit(DAY, 1000)))
    assert sorted((key, amount) for key, amount, _ in counters.additions) == sorted([(DAY, -195), (HOUR, -200)])


async def test_ledger_refuses_a_counter_that_nobody_has_counted(counters: Watched) -> None:
    """A missing counter grants nothing, and nothing is added to it."""
    mine = ledger(counters)
    key = "shop.tokens.day_2026-11-25"
    assert await mine.reserve(want(1, Limit(key, 1000), Limit(DAY, 1000))) == Unseeded(key)
    await mine.close()
    assert counters.additions == []
    await counters.seed(key, BASE + 10)
    assert await mine.reserve(want(991, Limit(key, 1000))) == Short(key, 990, 991)


async def test_ledger_notices_a_counter_that_was_deleted(counters: Watched) -> None:
    """A counter that is gone grants nothing from then on, until it is counted again."""
    mine = ledger(counters)
    assert isinstance(await mine.reserve(want(1, Limit(DAY, 1000))), Grant)
    await counters._connection.api("STREAM.PURGE.SPEND", {"filter": f"spend.{DAY}"})
    assert await mine.reserve(want(1, Limit(DAY, 1000))) == Unseeded(DAY)
    assert await mine.reserve(want(1, Limit(DAY, 1000))) == Unseeded(DAY)
    await counters.seed(DAY, BASE + 1)
    assert isinstance(await mine.reserve(want(999, Limit(DAY, 1000))), Grant)


async def test_ledger_repeats_what_was_not_answered_with_the_same_id(counters: Watched) -> None:
    """A lost answer is asked for again, and what was counted is not counted twice."""
    mine = ledger(counters)
    lost = iter([True, True, False])
    counters.lose = lambda: next(lost)
    assert isinstance(await mine.reserve(want(10, Limit(DAY, 1000))), Grant)
    assert len(counters.additions) == 3
    assert len({message_id for _, _, message_id in counters.additions}) == 1
    assert await counters.total(DAY) == BASE + 10


async def test_ledger_takes_back_what_was_asked_for_by_somebody_who_left(counters: Watched) -> None:
    """Cancelled before or after the answer, a reservation leaves nothing behind."""
    mine = ledger(counters)
    for pause in (0, 1, 3, 10, 30):
        task = asyncio.create_task(mine.reserve(want(10, Limit(DAY, 1000))))
        for _ in range(pause):
            await asyncio.sleep(0)
        task.cancel()
        results = await asyncio.gather(task, return_exceptions=True)
        if isinstance(results[0], Grant):
            mine.give_back(results[0].hold)
    await mine.close()
    assert await counters.total(DAY) == BASE


async def test_ledger_steps_over_counters_that_are_none(counters: Watched) -> None:
    """A settlement that somebody wrote by hand, with rubbish for a counter, stops nothing."""
    mine = ledger(counters)
    mine.settle(used(Hold(id="x", tokens=5, keys=("no counter", "shop.>", DAY)), 2))
    await mine.close()
    assert await counters.total(DAY) == BASE - 3
    assert [key for key, _, _ in counters.additions] == [DAY]


async def test_ledger_tells_when_something_came_back(counters: Watched) -> None:
    """Who waits for room hears of a settlement once its counter has moved, and not of its own refusal."""
    mine = ledger(counters)
    heard: list[int] = []
    mine.on_room = lambda: heard.append(len(counters.additions))
    first = await mine.reserve(want(1000, Limit(DAY, 1000)))
    assert isinstance(first, Grant)
    await mine.reserve(want(1, Limit(DAY, 1000)))
    assert heard == []
    mine.settle(used(first.hold, 400))
    await mine.close()
    assert heard == [len(counters.additions)]


async def test_many_ledgers_never_pass_a_cap(process: Callable[[], Awaitable[Watched]], counters: Watched) -> None:
    """Eight processes with lost answers and random use: what is held and used stays under both caps at every grant."""
    caps = {DAY: 20_000, HOUR: 12_000}
    holding = dict.fromkeys(caps, 0)
    most = dict.fromkeys(caps, 0)
    chance = random.Random(7)

    async def work(mine: Ledger) -> None:
        for _ in range(12):
            tokens = chance.randint(0, 900)
            keys = chance.choice([(DAY,), (DAY, HOUR)])
            asked = want(tokens, *(Limit(key, caps[key]) for key in keys))
            answer = Grant(hold) if (hold := mine.at_once(asked)) is not None else await mine.reserve(asked)
            if not isinstance(answer, Grant):
                assert isinstance(answer, Short)
                continue
            for key in keys:
                holding[key] += tokens
                most[key] = max(most[key], holding[key])
                assert holding[key] <= caps[key]
            await asyncio.sleep(0)
            spent = chance.randint(0, tokens)
            for key in keys:
                holding[key] -= tokens - spent
            mine.settle(used(answer.hold, spent))

    ledgers: list[Ledger] = []
    for _ in range(8):
        its = await process()
        its.lose = lambda: chance.random() < 0.05
        ledgers.append(ledger(its))
    await asyncio.gather(*(work(mine) for mine in ledgers for _ in range(8)))
    await asyncio.gather(*(mine.close() for mine in ledgers))
    for key, amount in holding.items():
        assert await counters.total(key) == BASE + amount
    assert most[HOUR] > caps[HOUR] // 2


async def test_claims_are_granted_ahead_of_the_answer_and_never_beyond_the_counter(
    process: Callable[[], Awaitable[Watched]], counters: Watched
) -> None:
    """Under a wide cap most claims wait for no answer; the counter holds all of them at once, and all comes back in the end."""
    its = await process()
    mine = Ledger(its, new_id, flush_s=0.005, again_s=0.01)
    other = ledger(counters)
    limit, at_once, granted = Limit(DAY, 10**9), 0, 0

    async def work() -> None:
        nonlocal at_once, granted
        for _ in range(100):
            asked = want(10, limit)
            hold = mine.at_once(asked)
            if hold is None:
                answer = await mine.reserve(asked)
                assert isinstance(answer, Grant)
                hold = answer.hold
            else:
                at_once += 1
            granted += 10
            await asyncio.sleep(0.001)
            mine.settle(used(hold, 10))

    async def watch() -> None:
        while True:
            held = granted
            assert await counters.total(DAY) >= BASE + held

    watching = asyncio.create_task(watch())
    await asyncio.gather(*(work() for _ in range(8)))
    assert not watching.done()
    watching.cancel()
    await asyncio.gather(mine.close(), other.close())
    assert at_once > granted / 10 / 2
    assert await counters.total(DAY) == BASE + granted


async def test_tight_cap_is_filled_to_its_last_token_beside_advances(counters: Watched) -> None:
    """What was counted in advance goes back before the cap is near: the last token can be had, and one more cannot."""
    mine = Ledger(counters, new_id, flush_s=0.005, again_s=0.01)
    limit = Limit(DAY, 1_000)
    got = 0
    async with asyncio.timeout(30):
        while got < 1_000:
            hold = mine.at_once(want(10, limit))
            if hold is None:
                answer = await mine.reserve(want(10, limit))
                if not isinstance(answer, Grant):
                    assert isinstance(answer, Short)
                    await asyncio.sleep(0)
                    continue
            got += 10
    assert mine.at_once(want(1, limit)) is None
    assert isinstance(await mine.reserve(want(1, limit)), Short)
    await mine.close()
    assert await counters.total(DAY) == BASE + 1_000
