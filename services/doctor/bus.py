"""What only a running bus can tell: the server's version and features, room, clock, shape, and children that stay down."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec

from bus import errors
from bus.author import Author
from bus.context import Context
from bus.store import CONTROL
from bus.topology import streams
from services.config import drift
from services.daemon import Bus, open_bus
from services.doctor.check import Check, failure, ok, warning
from services.home import Home
from services.launcher import control
from services.launcher.supervisor import State

#: Seconds that this machine's clock may differ from the server's: due times and windows of spend follow both.
_SKEW_S, _FAR_S = 0.5, 5.0
#: Part of the server's room above which somebody should look.
_FILLED = 0.75


async def look(home: Home, where: Context | None) -> list[Check]:
    """Everything; `where` is None when nobody says where a server is."""
    found = await _children(home)
    if where is None:
        return [*found, ok("bus", "no fleet runs here")]
    try:
        bus = await open_bus(where, "systems-doctor", Author("/operator/doctor", actor="doctor"))
    except errors.ServerTooOld as exc:
        return [*found, failure("bus", str(exc), "upgrade the server")]
    except errors.BusUnreachable as exc:
        return [*found, failure("bus", str(exc), home.launch(""))]
    try:
        return [*found, *await _of(bus)]
    finally:
        await bus.close()


async def _children(home: Home) -> list[Check]:
    if home.launcher() is None:
        return []
    try:
        answer = await control.ask(home, control.Status())
    except errors.BusError as exc:
        return [failure("launcher", str(exc), "look into logs/launcher.log in the home")]
    down = [child for child in answer.children if child.state in (State.GAVE_UP, State.STOPPED)]
    if down:
        return [failure("launcher", f"{child.name} is down: {child.state.value}", child.command) for child in down]
    return [ok("launcher", f"pid {answer.pid}, {len(answer.children)} children")]


async def _of(bus: Bus) -> list[Check]:
    version = bus.connection.nc.connected_server_version
    found = [ok("bus", f"nats-server {version.major}.{version.minor}.{version.patch} at {bus.connection.url}")]
    try:
        account = await bus.connection.api("INFO")
    except errors.BusError as exc:
        return [*found, failure("jetstream", str(exc), "enable JetStream in the server's configuration")]
    found += _room(account)
    missing = [stream.name for stream in streams() if not await _is_there(bus, stream.name)]
    if missing:
        return [*found, warning("streams", f"missing: {', '.join(missing)}", "systems apply, or systems up")]
    found.append(await _skew(bus))
    drifted = await drift.look(bus)
    if drifted.empty:
        found.append(ok("shape", "as declared"))
    else:
        found.append(warning("shape", f"not as declared: {len(drifted.steps)} of the bus", "systems drift"))
    return found


def _room(account: dict[str, object]) -> Iterator[Check]:
    limits = account.get("limits")
    most = limits.get("max_storage", -1) if isinstance(limits, dict) else -1
    used = account.get("storage", 0)
    if isinstance(most, int) and isinstance(used, int) and most > 0 and used > _FILLED * most:
        yield warning("storage", f"{used:,} of {most:,} bytes are used", "free space, or raise the server's limit")
    else:
        yield ok("jetstream", f"{used:,} bytes in {account.get('streams', 0)} streams")


async def _is_there(bus: Bus, stream: str) -> bool:
    try:
        await bus.connection.api(f"STREAM.INFO.{stream}")
    except errors.ServerError:
        return False
    return True


async def _skew(bus: Bus) -> Check:
    before = datetime.now(UTC)
    info = await bus.connection.api(f"STREAM.INFO.{CONTROL}")
    after = datetime.now(UTC)
    told = msgspec.convert(info["ts"], datetime)
    skew = (told - (before + (after - before) / 2)).total_seconds()
    found = f"the server's clock differs by {skew * 1000:+.0f} ms"
    if abs(skew) > _FAR_S:
        return failure("clock skew", found, "let both machines follow one time server")
    if abs(skew) > _SKEW_S:
        return warning("clock skew", found, "let both machines follow one time server")
    return ok("clock skew", found)
