"""How the app stands with Slack: connected, lost, refused, or in console mode."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum

import msgspec
import structlog

log = structlog.get_logger()


class State(StrEnum):
    """How a line stands."""

    CONNECTING = "connecting"
    UP = "up"
    #: Nothing was heard for too long, or it broke; another one is being made.
    LOST = "lost"
    #: Slack does not take our token.
    REFUSED = "refused"
    #: There are no tokens: console mode.
    CONSOLE = "console"

    @property
    def broken(self) -> bool:
        """Nothing that people do in Slack reaches the app."""
        return self in (State.LOST, State.REFUSED)


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What a line says of itself."""

    state: State
    since: datetime
    #: What is wrong and what to do; empty where nothing is.
    why: str = ""


class Line(ABC):
    """What both kinds of line have in common: their standing, and who hears of its changes."""

    def __init__(self, on_change: Callable[[Standing], None]) -> None:
        self._on_change = on_change
        self.standing = Standing(state=State.CONNECTING, since=datetime.now(UTC))
        #: Wall time of the last sign of life.
        self.heard_at: datetime | None = None

    @abstractmethod
    async def run(self) -> None:
        """Keep the line up; ends only by cancellation, or by an error that no waiting heals."""

    def stand(self, state: State, why: str = "") -> None:
        """Take another standing, if it is another."""
        if (self.standing.state, self.standing.why) == (state, why):
            return
        self.standing = Standing(state=state, since=datetime.now(UTC), why=why)
        log.info("slack_line", state=state.value, why=why)
        self._on_change(self.standing)


class NoLine(Line):
    """Console mode: nothing comes from Slack."""

    def __init__(self) -> None:
        super().__init__(lambda _: None)
        self.stand(State.CONSOLE, "there are no tokens; docs/slack.md says how to install the app")

    async def run(self) -> None:
        """For ever."""
        await asyncio.Event().wait()
