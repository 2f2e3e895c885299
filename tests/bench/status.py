"""The panel from the shell: the whole life of `systems status`, beside a bare Python that asks the warden one question.

Both are fresh processes that take turns against the same fleet, so that what disturbs the machine disturbs both. Wall time is
what a person waits, processor time is what stays comparable on a busy machine.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from bus import context
from tests.bench.report import Row
from tests.bench.rig import Rig
from tests.bench.scale import Scale
from tests.chaos.fleet import SYSTEMS, Fleet

#: Milliseconds from the shell to the panel, start-up included.
LIMIT_MS = 300.0
_FLEET = """
[projects.bench.roles]
noop = { handler = { kind = "function", target = "handlers:noop" } }
strict = { handler = { kind = "function", target = "handlers:noop" }, input_schema = { type = "object" } }
"""
#: The floor: connect, ask, print, end.
_ASK = """
import asyncio, sys, nats
async def ask():
    nc = await nats.connect(sys.argv[1], user_credentials=sys.argv[2] or None, user=sys.argv[3] or None, password=sys.argv[4] or None)
    sys.stdout.buffer.write((await nc.request("fleet.status", b"", timeout=5)).data)
    await nc.close()
asyncio.run(ask())
"""


async def measure(_rig: Rig, scale: Scale) -> list[Row]:
    """Take turns, on a real fleet."""
    with tempfile.TemporaryDirectory(prefix="bench-status-") as folder:
        fleet = Fleet(Path(folder))
        fleet.write(_FLEET, "async def noop(input):\n    return input\n")
        try:
            await fleet.up()
            where = context.load(fleet.home.path, None, None, fleet.environ)
            login = [where.url, str(where.creds or ""), where.user or "", where.password or ""]
            ours, floor = [SYSTEMS, "status"], [sys.executable, "-c", _ASK, *login]
            pairs = []
            for _ in range(4 * scale.rounds):
                mine = await asyncio.to_thread(_run, ours, fleet.environ, (0, 1))
                pairs.append((mine, await asyncio.to_thread(_run, floor, fleet.environ, (0,))))
        finally:
            await fleet.down()
    wall = median(mine[0] for mine, _ in pairs)
    return [
        Row(
            what=f"systems status from the shell, p50 of {len(pairs)}",
            unit="ms",
            ours=wall,
            floor=median(bare[0] for _, bare in pairs),
            ratios=tuple(mine[0] / bare[0] for mine, bare in pairs),
            target=f"< {LIMIT_MS:g} ms",
            met=wall < LIMIT_MS,
        ),
        Row(
            what="  its processor time",
            unit="ms",
            ours=median(mine[1] for mine, _ in pairs),
            floor=median(bare[1] for _, bare in pairs),
            ratios=tuple(mine[1] / bare[1] for mine, bare in pairs),
        ),
    ]


def _run(command: list[str], environ: dict[str, str], statuses: tuple[int, ...]) -> tuple[float, float]:
    """A process from its start to its end: milliseconds of wall time, and of the processor."""
    begun = time.perf_counter()
    pid = os.posix_spawn(
        command[0], command, environ, file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    )
    _, status, used = os.wait4(pid, 0)
    took = time.perf_counter() - begun
    if os.waitstatus_to_exitcode(status) not in statuses:
        raise RuntimeError(
            f"expected {command[0]} to end with one of {statuses}, got: {os.waitstatus_to_exitcode(status)}"
        )
    return 1000 * took, 1000 * (used.ru_utime + used.ru_stime)
