"""Looks at the server and the machine: streams, copies, room, memory, clocks, the certificate, and whether the server ended."""

from __future__ import annotations

import asyncio
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

from bus.events.finding import Evidence
from bus.server import EmbeddedServer
from bus.store import CONTROL, parse_time
from services.daemon import Bus, control_id
from services.health.daemons import RECENT_EXIT_S
from services.monitor.seen import ServerSeen, StreamSeen

#: Messages that a replica may be behind.
_BEHIND = 10_000


async def look(bus: Bus, host: str, store: Path) -> ServerSeen:
    """Look once.

    Raises:
        BusError: the server does not answer.
    """
    connection = bus.connection
    before = bus.author.now()
    info, account, listed = await asyncio.gather(
        connection.api(f"STREAM.INFO.{CONTROL}"), connection.api("INFO"), _streams(bus)
    )
    after = bus.author.now()
    most = account.get("limits", {}).get("max_storage", -1)
    seat = control_id(EmbeddedServer.name, host)
    exited = await bus.store.last(CONTROL, f"ctl.daemon.{seat}.exited")
    lately = exited is not None and (after - exited.stored_at).total_seconds() <= RECENT_EXIT_S
    return ServerSeen(
        streams=listed,
        disk_left=_disk_left(store),
        store_left=1 - account["storage"] / most if most > 0 else None,
        memory_left=_memory_left(),
        skew_s=_skew(before, info["ts"], after),
        born=parse_time(info["created"]),
        certificate_ends=connection.certificate_ends,
        ended_at=exited.stored_at if exited is not None and lately else None,
        ended=Evidence(CONTROL, exited.seq) if exited is not None and lately else None,
    )


async def _streams(bus: Bus) -> tuple[StreamSeen, ...]:
    found: list[StreamSeen] = []
    while True:
        page = await bus.connection.api("STREAM.LIST", {"offset": len(found)})
        listed = page.get("streams") or []
        found += [_stream(info) for info in listed]
        if not listed or len(found) >= page.get("total", 0):
            return tuple(found)


def _stream(info: dict[str, Any]) -> StreamSeen:
    state, config = info["state"], info["config"]
    replicas = (info.get("cluster") or {}).get("replicas") or []
    away = [r["name"] for r in replicas if r.get("offline") or not r.get("current", True) or r.get("lag", 0) > _BEHIND]
    return StreamSeen(
        name=config["name"],
        last_seq=state["last_seq"],
        messages=state["messages"],
        bytes=state["bytes"],
        max_bytes=config.get("max_bytes", -1),
        away=tuple(sorted(away)),
    )


def _skew(before: datetime, server: str, after: datetime) -> float:
    """Seconds that the server's clock is ahead; 0 where the time that the request took could explain it."""
    there = parse_time(server)
    if before <= there <= after:
        return 0.0
    return (there - after).total_seconds() if there > after else (there - before).total_seconds()


def _disk_left(store: Path) -> float | None:
    if not store.is_dir():
        return None
    usage = shutil.disk_usage(store)
    return usage.free / usage.total if usage.total else None


def _memory_left(meminfo: Path = Path("/proc/meminfo")) -> float | None:
    """The part of the machine's memory that is free for use; None where the system does not say."""
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
    except FileNotFoundError:
        return None
    total, free = (int(lines[name].split()[0]) for name in ("MemTotal", "MemAvailable"))
    return free / total
