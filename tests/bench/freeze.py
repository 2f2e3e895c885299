"""The kill switch under load: from the flag's put to the last accepted write of four writers, and what the server lets by.

The client layer alone in the first row (the server would still take everything), the server layer alone in the last:
writers without a gate, and a stream that is frozen while they write.
"""

from __future__ import annotations

import asyncio
import time
from statistics import quantiles

from bus import errors
from bus.author import Author
from bus.context import Context
from bus.refusal import GuardRefused
from bus.store import INVOCATIONS
from services.daemon import Bus, open_bus
from tests.bench.report import Row
from tests.bench.rig import Rig
from tests.bench.scale import Scale

#: Milliseconds that the client layer may take, 99 of 100 times.
P99_MS = 50.0
WRITERS = 4
#: Publishes under way at once, for each writer.
_AT_ONCE = 64
#: Seconds of writing before the flag is put.
_RUN_UP_S = 0.1
_SUBJECT = "inv.bench.freeze.x.noted"


class Writer:
    """Writes as fast as it is let."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        #: Time and sequence of the last write that the server acknowledged.
        self.last_at = 0.0
        self.last_seq = 0
        self.written = 0

    async def run(self) -> None:
        """Until it is refused."""
        await asyncio.gather(*(self._write() for _ in range(_AT_ONCE)))

    async def _write(self) -> None:
        while True:
            try:
                ack = await self._bus.publisher.publish(_SUBJECT, b"{}")
            except (GuardRefused, errors.StreamFrozen):
                return
            self.last_at, self.last_seq = time.perf_counter(), max(self.last_seq, ack.seq)
            self.written += 1


async def measure(rig: Rig, scale: Scale) -> list[Row]:
    """Freeze and thaw again and again."""
    cycles = max(10, 20 * scale.rounds // 3)
    context = Context(url=rig.server.url)
    buses = [await open_bus(context, f"writer-{n}", Author("/bench/writer")) for n in range(WRITERS)]
    person = await open_bus(context, "person", Author("/bench/person"))
    try:
        taken = [await _by_clients(buses, person) for _ in range(cycles)]
        for bus in buses:
            bus.publisher.gate = None
        late = sum([await _by_server(buses, person) for _ in range(cycles)])
    finally:
        for bus in (*buses, person):
            await bus.close()
    p50, p99 = _percentiles(taken)
    what = f"flag to the last accepted write, {WRITERS} writers"
    return [
        Row(what=f"{what}, p50", unit="ms", ours=p50),
        Row(what=f"{what}, p99", unit="ms", ours=p99, target=f"< {P99_MS:g} ms", met=p99 < P99_MS),
        Row(
            what=f"writes after the server layer's answer, {cycles} freezes",
            unit="",
            ours=late,
            target="0",
            met=late == 0,
        ),
    ]


async def _by_clients(buses: list[Bus], person: Bus) -> float:
    """Milliseconds from the put to the last accepted write."""
    writers = [Writer(bus) for bus in buses]
    writing = asyncio.gather(*(writer.run() for writer in writers))
    await asyncio.sleep(_RUN_UP_S)
    begun = time.perf_counter()
    await person.bucket("flags").put("kill_switch", b"frozen")
    await writing
    await person.bucket("flags").put("kill_switch", b"clear")
    for bus in buses:
        await bus.gate.opened()
    return max(0.0, max(writer.last_at for writer in writers) - begun) * 1000


async def _by_server(buses: list[Bus], person: Bus) -> int:
    """Writes that were stored after the server had answered that the stream is frozen."""
    writers = [Writer(bus) for bus in buses]
    writing = asyncio.gather(*(writer.run() for writer in writers))
    await asyncio.sleep(_RUN_UP_S)
    config = (await person.connection.api(f"STREAM.INFO.{INVOCATIONS}"))["config"]
    answer = await person.connection.api(f"STREAM.UPDATE.{INVOCATIONS}", config | {"discard": "new", "max_bytes": 1})
    frozen_at = int(answer["state"]["last_seq"])
    await writing
    after = int((await person.connection.api(f"STREAM.INFO.{INVOCATIONS}"))["state"]["last_seq"])
    await person.connection.api(f"STREAM.UPDATE.{INVOCATIONS}", config)
    return after - frozen_at


def _percentiles(values: list[float]) -> tuple[float, float]:
    cuts = quantiles(values, n=100, method="inclusive")
    return cuts[49], cuts[98]
