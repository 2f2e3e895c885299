"""The floor: the least that the same work can cost with plain nats-py.

For each delivered request two acknowledged publishes under a fence and one acknowledgement of the delivery; answers come
to one inbox of its own, and all deliveries to one pull. No event is built, none is decoded, nothing is looked after.
"""

from __future__ import annotations

import asyncio
import json
import os
import time

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from tests.bench.leg import Found, Meter, Task, bounded, run, say_ready

_EXPECTED = "Nats-Expected-Last-Subject-Sequence"
_SCOPE = f"{_EXPECTED}-Subject"
_CLAIMED = b'{"by":"runner-1","delivery":1}'
_COMPLETED = b'{"usage":{"in":1,"out":1}}'


class Acks:
    """Acknowledged publishes over one inbox, without what ``request`` costs."""

    def __init__(self, nc: Client) -> None:
        self._nc = nc
        self._waiting: dict[str, asyncio.Future[bytes]] = {}
        self._count = 0
        self._prefix = f"_INBOX.acks{os.getpid()}."

    async def open(self) -> None:
        """Listen for answers."""
        await self._nc.subscribe(self._prefix + "*", cb=self._answered)

    async def _answered(self, message: Msg) -> None:
        future = self._waiting.pop(message.subject, None)
        if future is not None and not future.done():
            future.set_result(message.data)

    async def publish(self, subject: str, payload: bytes, headers: dict[str, str] | None = None) -> bytes:
        """Publish and wait for the answer."""
        self._count += 1
        reply = f"{self._prefix}{self._count}"
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[reply] = future
        await self._nc.publish(subject, payload, reply=reply, headers=headers)
        return await future


class Claimant:
    """Works deliveries off; each in a task of its own, as a handler needs one."""

    def __init__(self, nc: Client, acks: Acks, task: Task) -> None:
        self._nc, self._acks, self._task = nc, acks, task
        self._tasks: set[asyncio.Task[None]] = set()
        self._done = 0
        self.finished = asyncio.Event()
        #: Nanoseconds from the stamp in each request to its acknowledged claim.
        self.claimed_ns: list[int] = []

    async def take(self, message: Msg) -> None:
        """Called by the driver for each delivery."""
        if message.headers and "Status" in message.headers:
            return
        task = asyncio.create_task(self._work(message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, message: Msg) -> None:
        prefix = message.subject.rpartition(".")[0]
        fence = {_EXPECTED: message.reply.split(".")[5], _SCOPE: f"{prefix}.>"}
        claimed = json.loads(await self._acks.publish(f"{prefix}.claimed", _CLAIMED, fence))
        if self._task.handler == "stamp":
            self.claimed_ns.append(time.monotonic_ns() - json.loads(message.data)["data"]["input"]["at"])
        fence = {_EXPECTED: str(claimed["seq"]), _SCOPE: f"{prefix}.>"}
        completed = json.loads(await self._acks.publish(f"{prefix}.completed", _COMPLETED, fence))
        assert completed["seq"], f"expected both appends to be accepted, got: {claimed}, {completed}"
        await self._nc.publish(message.reply, b"+ACK")
        self._done += 1
        if self._done == self._task.count:
            self.finished.set()


async def claim(task: Task) -> Found:
    """Work `count` requests off."""
    nc = await nats.connect(task.url)
    acks = Acks(nc)
    await acks.open()
    claimant = Claimant(nc, acks, task)
    inbox = f"_INBOX.work{os.getpid()}"
    await nc.subscribe(inbox, cb=claimant.take)
    await nc.flush()
    say_ready()
    meter = Meter()
    pull = json.dumps({"batch": task.count, "expires": 600_000_000_000}).encode()
    await nc.publish(f"$JS.API.CONSUMER.MSG.NEXT.INVOCATIONS.bench_{task.role}", pull, reply=inbox)
    await claimant.finished.wait()
    found = meter.read(task.count, latency_ns=tuple(claimant.claimed_ns))
    await nc.close()
    return found


async def publish(task: Task) -> Found:
    """Publish `count` acknowledged messages of `size` bytes, each on a subject of its own."""
    nc = await nats.connect(task.url)
    acks = Acks(nc)
    await acks.open()
    payload = b"x" * task.size
    number = iter(range(task.count))
    say_ready()
    meter = Meter()
    await bounded(
        task.count,
        task.concurrency,
        lambda: acks.publish(f"inv.bench.{task.role}.00000000-0000-7000-8000-{next(number):012d}.requested", payload),
    )
    found = meter.read(task.count)
    await nc.close()
    return found


if __name__ == "__main__":
    run({"claim": claim, "publish": publish})
