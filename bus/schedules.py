"""The server's own schedules (ADR-51): no client's timer has to be alive for a tick to be stored.

A schedule is a message on ``sched.<name>``; its ticks are messages on ``tick.<name>`` with the same payload. Setting it
again replaces it. A one-time schedule removes itself after its tick.
"""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from bus import errors, subjects, wire
from bus.connection import Connection
from bus.driver import parse_headers
from bus.publisher import Publisher
from bus.topology import SCHEDULES

#: How long a tick is kept: longer than any outage that should be caught up with.
_TICK_TTL = "168h"


class Schedules:
    """Schedules on SCHEDULES."""

    def __init__(self, connection: Connection, publisher: Publisher) -> None:
        self._connection = connection
        self._publisher = publisher

    async def repeat(self, name: str, cron: str, payload: bytes, *, time_zone: str = "") -> None:
        """Tick again and again.

        Args:
            name: subject tokens behind ``sched.`` and ``tick.``.
            cron: 6 fields, seconds first, or ``@every 10s``.
            payload: what each tick carries.
            time_zone: IANA name for the cron fields; empty is UTC.

        Raises:
            ServerError: the server does not understand the pattern (10189).
        """
        headers = {
            wire.SCHEDULE: cron,
            wire.SCHEDULE_TARGET: subjects.tick(name),
            wire.SCHEDULE_TTL: _TICK_TTL,
        }
        if time_zone:
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

    async def pattern(self, name: str) -> tuple[str, str] | None:
        """The cron pattern and time zone ("" for none) that a schedule is set to; None when it is not set."""
        try:
            answer = await self._connection.api(
                f"STREAM.MSG.GET.{SCHEDULES}", {"last_by_subj": subjects.schedule(name)}
            )
        except errors.ServerError as exc:
            if exc.code == wire.Code.MESSAGE_NOT_FOUND:
                return None
            raise
        headers = parse_headers(msgspec.convert(answer["message"].get("hdrs", ""), bytes))
        return headers.get(wire.SCHEDULE, ""), headers.get(wire.SCHEDULE_ZONE, "")

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
