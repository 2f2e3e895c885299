"""Heartbeats: who is there, and by what evidence.

A key of the bucket is ``<daemon>.<boot id>``; it expires when it is not renewed. That a process beats does not prove that
it works, all the less because the beats come from a thread beside its event loop (:mod:`services.pulse`): the evidence
inside says when it last handled a message, when the server last answered an empty pull, how late its event loop runs, and
whether that stands still at this moment.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import datetime

import msgspec
import structlog

from bus.bucket import Bucket, Entry
from bus.topology import HEARTBEAT_TTL_S

log = structlog.get_logger()

#: Seconds between two beats: three may be lost before the holder counts as dead.
BEAT_S = 4.0


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a daemon says of itself, with evidence."""

    #: Kind of daemon: ``agent_runner``.
    daemon: str
    #: Seat of the process: ``agent_runner-1``. A new boot id in the same seat on the same host replaces the old one.
    instance: str
    boot_id: str
    host: str
    #: Tells the fleets of one machine apart: a digest of the state directory's path.
    home: str
    pid: int
    started_at: datetime
    at: datetime
    version: str = ""
    #: The release that its code is of; empty for the installation.
    release: str = ""
    #: Seconds that the event loop was late at worst since the last beat.
    loop_lag_s: float = 0.0
    #: Seconds for which the event loop has not turned; 0 while it turns.
    stuck_s: float = 0.0
    #: What holds it up meanwhile: an invocation or a task, and the line of code; empty while it turns.
    stuck_in: str = ""
    #: When it last handled a message.
    last_message_at: datetime | None = None
    #: When the server last answered it that nothing waits.
    last_empty_at: datetime | None = None
    #: When something in its hands last gave a sign of progress.
    progress_at: datetime | None = None
    #: Work in its hands.
    in_flight: int = 0
    #: Work done since it started.
    handled: int = 0
    #: It takes no new work and waits for what it has.
    draining: bool = False
    #: Newest revision of the bucket `registry` that it has looked at and runs with; 0 for none.
    config_revision: int = 0

    @property
    def seat(self) -> tuple[str, str, str]:
        """Who replaces whom: (host, home, instance)."""
        return (self.host, self.home, self.instance)


class Sign(msgspec.Struct, frozen=True, kw_only=True):
    """A heartbeat, or its end."""

    boot_id: str
    #: None: the daemon is not there any more.
    heartbeat: Heartbeat | None = None
    #: It ended by running out of time; nobody took it back.
    expired: bool = False


def before(own: Heartbeat, beats: Sequence[Heartbeat]) -> Heartbeat | None:
    """Who goes first: another daemon of its kind in another seat that has started earlier; None for nobody. Pure.

    One in the same seat is an earlier life of this one, whose heartbeat has not expired.
    """
    others = [beat for beat in beats if beat.daemon == own.daemon and beat.seat != own.seat]
    earlier = [beat for beat in others if (beat.started_at, beat.boot_id) < (own.started_at, own.boot_id)]
    return min(earlier, key=lambda beat: (beat.started_at, beat.boot_id), default=None)


class Liveness:
    """The ``liveness`` bucket."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    async def beat(self, heartbeat: Heartbeat) -> None:
        """Say that the daemon is alive."""
        key = f"{heartbeat.daemon}.{heartbeat.boot_id}"
        await self._bucket.put(key, msgspec.json.encode(heartbeat), ttl_s=HEARTBEAT_TTL_S)

    async def end(self, daemon: str, boot_id: str) -> None:
        """Say that the daemon is gone: its claims may be swept at once."""
        await self._bucket.delete(f"{daemon}.{boot_id}", ttl_s=HEARTBEAT_TTL_S)

    async def all(self) -> list[Heartbeat]:
        """Everybody whose heartbeat has not expired. A value that is no heartbeat is left out."""
        beats = (_read(entry) for entry in (await self._bucket.items()).values())
        return [beat for beat in beats if beat is not None]

    async def watch(self) -> AsyncGenerator[Sign, None]:
        """Every heartbeat that is still kept and then every sign, for ever."""
        async with aclosing(self._bucket.watch()) as entries:
            async for entry in entries:
                boot_id = entry.key.rpartition(".")[2]
                if entry.gone:
                    yield Sign(boot_id=boot_id, expired=entry.expired)
                elif (beat := _read(entry)) is not None:
                    yield Sign(boot_id=boot_id, heartbeat=beat)


def _read(entry: Entry) -> Heartbeat | None:
    try:
        return msgspec.json.decode(entry.value, type=Heartbeat)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        # Anybody may put a key: rubbish here must not blind the ones who watch.
        log.warning("heartbeat_unreadable", key=entry.key, error=str(exc))
        return None
