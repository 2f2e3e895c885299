"""What is wrong with Slack itself, raised as a concern: Slack is the one place where nobody can be told of it.

While the warden is away, which takes concerns, it is tried again; `systems slack status` tells it in any case.
"""

from __future__ import annotations

import asyncio

import structlog

from bus import errors
from bus.events.finding import Severity
from services.daemon import Bus
from services.monitor import raising
from services.requests.service import ACTOR
from services.slack.screen import Refused
from services.slack.standing import Line

log = structlog.get_logger()

#: Seconds until a concern that nobody took is raised again.
_AGAIN_S = 1.0
_MORE = "What belongs there waits, and the other channels go on. `systems slack status` says how much, `systems slack check` what to click."


class Alarm:
    """Raises concerns."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def channel(self, name: str, refused: Refused) -> None:
        """Slack takes nothing for a channel."""
        await self._raise(f"Slack takes nothing for {name}: {refused.what}", f"{refused.remedy}\n{_MORE}".strip())

    async def watch(self, line: Line, patience: float) -> None:
        """For ever: a line that stays broken for longer than it takes to make another one is raised, once each time."""
        told = ""
        while True:
            await asyncio.sleep(patience)
            standing = line.standing
            broken_s = (self._bus.author.now() - standing.since).total_seconds()
            if not standing.state.broken:
                told = ""
            elif broken_s > patience and told != standing.why:
                told = standing.why
                title = f"Nothing that people do in Slack reaches the fleet: {standing.state.value}"
                await self._raise(
                    title, f"{standing.why}\nMessages are still sent; `systems slack check` says what to click."
                )

    async def _raise(self, title: str, detail: str) -> None:
        """Raise it; while nobody is there to take it, again and again."""
        asked = raising.Raise(severity=Severity.CONCERN, title=title, detail=detail)
        while True:
            try:
                await raising.ask(self._bus.connection, asked, {ACTOR: "slack_mirror"})
            except (raising.MonitorAway, errors.Unanswered) as exc:
                log.warning("slack_concern_unraised", title=title, error=str(exc), again_s=_AGAIN_S)
                await asyncio.sleep(_AGAIN_S)
            except errors.BusError as exc:
                # We have raised too much within the hour: what we said before stands.
                log.warning("slack_concern_refused", title=title, error=str(exc))
                return
            else:
                return
