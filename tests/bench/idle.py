"""What a fleet costs that has nothing to do: the part of one core and the memory of all its processes, the server's included.

Memory is the proportional share (PSS): pages that several processes share are counted once. Processes are those whose command line
or environment names the fleet's home.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from pathlib import Path

from tests.bench.report import Row
from tests.bench.rig import Rig
from tests.bench.scale import Scale
from tests.chaos.fleet import Fleet

MB = 1_000_000
#: Per cent of one core, and megabytes, at most.
CPU_PERCENT, MEMORY_MB = 3.0, 400
#: Seconds after the start that do not count, and seconds that do.
_SETTLE_S, _WATCH_S = 20.0, 60.0
_FLEET = """
[projects.bench.roles.noop]
handler = { kind = "function", target = "handlers:noop" }
"""


async def measure(_rig: Rig, _scale: Scale) -> list[Row]:
    """Watch a whole fleet do nothing."""
    with tempfile.TemporaryDirectory(prefix="bench-idle-") as folder:
        fleet = Fleet(Path(folder))
        fleet.write(_FLEET, "async def noop(input):\n    return input\n")
        try:
            await fleet.up()
            await asyncio.sleep(_SETTLE_S)
            pids = fleet.processes()
            before, begun = {pid: _cpu_s(pid) for pid in pids}, time.perf_counter()
            await asyncio.sleep(_WATCH_S)
            used = sum(_cpu_s(pid) - before[pid] for pid in pids)
            percent = 100 * used / (time.perf_counter() - begun)
            memory = sum(_pss(pid) for pid in pids) / MB
        finally:
            await fleet.down()
    return [
        Row(
            what="idle fleet: all processes, part of one core",
            unit="%",
            ours=percent,
            target=f"< {CPU_PERCENT:g} %",
            met=percent < CPU_PERCENT,
            note=f"over {_WATCH_S:g} s, {len(pids)} processes",
        ),
        Row(
            what="idle fleet: memory of all processes",
            unit="MB",
            ours=memory,
            target=f"< {MEMORY_MB} MB",
            met=memory < MEMORY_MB,
            note="proportional share",
        ),
    ]


def _cpu_s(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _pss(pid: int) -> int:
    """Bytes of a process's proportional share of memory."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
