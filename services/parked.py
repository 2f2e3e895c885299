"""Deliveries that a runner holds without a claim, because a guard lets none be made: asked of all runners, never guessed.

What was handed out and is claimed by nobody may be lost, or may wait in a runner's hand for its turn, for room under a cap,
for a price. Only the runner knows. One that is dead does not answer, and what it held counts as lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import msgspec
from nats.aio.subscription import Subscription

from bus.connection import Connection

#: Where it is asked, over plain NATS; every runner answers.
SUBJECT = "runner.parked"
#: Seconds that runners have for an answer.
_ANSWER_S = 1.0

_numbers = msgspec.json.Decoder(list[int])


async def held(connection: Connection, seqs: Iterable[int], runners: int) -> set[int]:
    """Which of these sequences of INVOCATIONS runners hold.

    Args:
        connection: to the bus.
        seqs: what is asked for.
        runners: how many answers to wait for; what has not come within a second is not waited for.
    """
    found: set[int] = set()
    answers = 0
    complete = asyncio.Event()

    def hear(_subject: str, _reply: str, payload: bytes, _block: bytes | None) -> None:
        nonlocal answers
        found.update(_numbers.decode(payload))
        answers += 1
        if answers >= runners:
            complete.set()

    inbox = connection.nc.new_inbox()
    subscription = await connection.nc.sink(inbox, hear)
    try:
        connection.nc.send(SUBJECT, msgspec.json.encode(list(seqs)), reply=inbox)
        if runners:
            async with asyncio.timeout(_ANSWER_S):
                await complete.wait()
    except TimeoutError:
        pass  # one of them is dead, or as good as that
    finally:
        await connection.nc.unsink(subscription)
    return found


async def answer(connection: Connection, holds: Callable[[Iterable[int]], list[int]]) -> Subscription:
    """Answer for one runner, until the subscription is given up."""

    def hear(_subject: str, reply: str, payload: bytes, _block: bytes | None) -> None:
        try:
            asked = _numbers.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return  # a question of nobody that we know
        if reply:
            connection.nc.send(reply, msgspec.json.encode(holds(asked)))

    return await connection.nc.sink(SUBJECT, hear)
