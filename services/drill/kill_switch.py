"""The kill switch: thrown for real on a stream of its own, so that every daemon and the server obey while work goes on.

The drill switch (:data:`bus.flags.DRILL`) is another flag and another stream for the very code that the real one runs
through: each client's gate, the warden's hand on the server, each daemon's receipt.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from bus import errors, flags, wire
from bus.refusal import GuardRefused
from services.drill.drill import Fired, NotProven
from services.drill.sandbox import Sandbox

#: Where the drill writes.
SUBJECT = "drill.write"
#: Writes under way at once.
_LANES = 16
#: Writes that are accepted before the flag is put.
_WARM_UP = 200


class Writer:
    """Writes through its client's gate as fast as it can, until it is refused."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._publisher = sandbox.bus.publisher
        self._loop = asyncio.get_running_loop()
        self.accepted = 0
        #: Loop time of the last acknowledged write.
        self.last_at = 0.0
        self.refused = 0
        self.warm = asyncio.Event()

    async def run(self) -> None:
        """Until every lane is refused."""
        await asyncio.gather(*(self._lane() for _ in range(_LANES)))

    async def _lane(self) -> None:
        while True:
            try:
                await self._publisher.publish(SUBJECT, b"x")
            except (GuardRefused, errors.StreamFrozen):
                self.refused += 1
                return
            self.accepted += 1
            self.last_at = self._loop.time()
            if self.accepted >= _WARM_UP:
                self.warm.set()


class KillSwitch:
    """A flag stops every client at once, then the server, and each daemon says that it has stopped."""

    name = "kill-switch"
    guard = "kill switch"
    expected = "the flag to be refused by client and server, and answered by every daemon"
    works = False

    async def run(self, sandbox: Sandbox) -> Fired:
        """Put the drill's flag under full writes, and time the last accepted one from the put."""
        before = await _config(sandbox, flags.REAL.stream)
        writer = Writer(sandbox)
        task = asyncio.create_task(writer.run())
        try:
            await _either(writer.warm.wait(), task)
            bucket = sandbox.bus.bucket(flags.BUCKET)
            put_at = asyncio.get_running_loop().time()
            revision = await bucket.put(flags.DRILL.soft, flags.frozen(reason="drill", by=sandbox.actor))
            await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        took_s = max(0.0, writer.last_at - put_at)
        id_ = f"{flags.DRILL.letter}{revision}"
        frozen = await sandbox.guards.event("frozen", id_=id_)
        code = await _raw(sandbox)
        if code != wire.Code.STORE_FULL:
            raise NotProven("a publish that asks no gate to be refused by the server", f"error code {code}")
        owe = set(frozen.data.owe)
        await sandbox.guards.until(lambda: owe <= _receipts(sandbox, id_))
        after = await _state(sandbox, flags.DRILL.stream)
        if after["last_seq"] > frozen.data.seq:
            raise NotProven(f"nothing after sequence {frozen.data.seq}", f"sequence {after['last_seq']}")
        if await _config(sandbox, flags.REAL.stream) != before or sandbox.bus.gate.switch.frozen:
            raise NotProven("real work to go on", f"{flags.REAL.stream} was touched")
        await bucket.put(flags.DRILL.soft, flags.clear(reason="the drill is over", by=sandbox.actor))
        await sandbox.guards.event("thawed", id_=id_)
        while sandbox.bus.gate.drill.frozen:
            await sandbox.bus.gate.changed(1.0)
        await sandbox.bus.publisher.publish(SUBJECT, b"x")
        return Fired(
            took_s=took_s,
            evidence=(
                f"{writer.accepted:,} writes accepted; the last one {took_s * 1000:.1f} ms after the flag was put",
                f"a raw publish was refused by the server with {code}, and 0 writes followed sequence {frozen.data.seq}",
                f"{len(owe)} of {len(owe)} receipts: {', '.join(sorted(owe))}",
                f"{flags.REAL.stream} was not touched, and writes are taken again after the thaw",
            ),
        )


def _receipts(sandbox: Sandbox, id_: str) -> set[str]:
    return {record.data.instance for record in sandbox.guards.all("receipt", id_=id_)}


async def _either(wanted: Any, task: asyncio.Task[None]) -> None:
    """Wait for something that does not come when the task has failed."""
    waiting = asyncio.ensure_future(wanted)
    try:
        await asyncio.wait({waiting, task}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    if task.done():
        task.result()


async def _raw(sandbox: Sandbox) -> int:
    """The server's error code for a publish that asks nobody; 0 when it is stored."""
    answer = await sandbox.bus.connection.nc.request(SUBJECT, b"raw", timeout=5)
    return int(msgspec.json.decode(answer.data).get("error", {}).get("err_code", 0))


async def _config(sandbox: Sandbox, stream: str) -> dict[str, Any]:
    config: dict[str, Any] = (await sandbox.bus.connection.api(f"STREAM.INFO.{stream}"))["config"]
    return config


async def _state(sandbox: Sandbox, stream: str) -> dict[str, Any]:
    state: dict[str, Any] = (await sandbox.bus.connection.api(f"STREAM.INFO.{stream}"))["state"]
    return state
