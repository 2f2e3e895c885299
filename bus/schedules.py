"""The server's own schedules (ADR-51): no client's timer has to be alive for a tick to be stored.

A schedule is a message on ``sched.<name>``; its ticks are messages on ``tick.<name>`` with the same payload. Setting it
again replaces it. A one-time schedule removes itself after its tick.
"""

from __future__ import annotations

from datetime import UTC, datetime

from bus import subjects, wire
from bus.connection import Connection
from bus.publisher import Publisher
from bus.topology import SCHEDULES

#: How long a tick is kept: longer than any outage that should be caught up with.
_TICK_TTL = "168h"


class Schedules:
    """Schedules on SCHEDULES."""

    def __init__(self, connection: Connection, publisher: Publisher) -> None:
        self._connection = connection
        self._publisher = publisher

    async def repeat(self, name: str, cron: str, payload: bytes, *, time_zone: str = "UTC") -> None:
        """Tick again and again.

        Args:
            name: subject tokens behind ``sched.`` and ``tick.``.
            cron: 6 fields, seconds first, or ``@every 10s``.
            payload: what each tick carries.
            time_zone: IANA name for the cron fields.

        Raises:
            ServerError: the server does not understand the pattern (10189).
        """
        headers = {
            wire.SCHEDULE: cron,
            wire.SCHEDULE_TARGET: subjects.tick(name),
            wire.SCHEDULE_TTL: _TICK_TTL,
        }
        if not cron.startswith("@"):
            headers[wire.SCHEDULE_ZONE] = time_zone
        await self._publisher.publish(subjects.schedule(name), payload, headers)

    async def once(self, name: str, at: datetime, payload: bytes) -> None:
        """Tick at one time; at once if that is past."""
        headers = {
            wire.SCHEDULE: f"@at {at.astimezone(UTC).strftime('%Y-%m-%dT%H:%M:%S.%fZ')}",
            wire.SCHEDULE_TARGET: subjects.tick(name),
            wire.SCHEDULE_TTL: _TICK_TTL,
        }
        await self._publisher.publish(subjects.schedule(name), payload, headers)

    async def remove(self, name: str) -> None:
        """Tick no more. Nothing happens when there is no such schedule."""
        await self._connection.api(f"STREAM.PURGE.{SCHEDULES}", {"filter": subjects.schedule(name)})

    async def names(self, prefix: str) -> dict[str, int]:
        """Names of the schedules that begin with `prefix`, with the number of messages on each."""
        info = await self._connection.api(
            f"STREAM.INFO.{SCHEDULES}", {"subjects_filter": subjects.schedule(f"{prefix}.>")}
        )
        found: dict[str, int] = info["state"].get("subjects") or {}
        return {subject.partition(".")[2]: count for subject, count in found.items()}
