"""What a result was measured on, read from the machine; without a name that would identify it."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

import msgspec


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """A machine and its programs."""

    cpu: str
    #: That this process may use.
    cores: int
    memory_gb: float
    kernel: str
    python: str
    server: str
    driver: str
    uvloop: str
    #: Processes that wanted to run in the last minute before the start, on average.
    load: float


def look(server: str) -> Machine:
    """This machine; `server` is the version that the nats-server told."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(
        cpu=_cpu(),
        cores=cores,
        memory_gb=round(memory / 1e9, 1),
        kernel=f"{platform.system()} {platform.release().partition('-')[0]}",
        python=platform.python_version(),
        server=server,
        driver=version("nats-py"),
        uvloop=version("uvloop"),
        load=round(os.getloadavg()[0], 2),
    )


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except FileNotFoundError:  # no Linux
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
