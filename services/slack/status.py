"""What the mirror says of itself, on the subject ``slack.status``."""

from __future__ import annotations

from datetime import datetime

import msgspec
from nats import errors as driver
from nats.micro.request import Request

from bus import errors
from bus.connection import Connection
from services.daemon import Bus
from services.micro import Micro
from services.slack.channel import Status
from services.slack.mirror import Mirror
from services.slack.standing import Line, Standing

SUBJECT = "slack.status"
#: Seconds that an answer may take.
_ANSWER_S = 3.0


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The whole of it."""

    line: Standing
    #: When something was heard from Slack.
    heard_at: datetime | None = None
    channels: tuple[Status, ...] = ()
    #: Stream -> events that are not shown yet.
    behind: dict[str, int] = {}


class MirrorAway(errors.BusUnreachable):
    """Nobody answers."""

    def __init__(self) -> None:
        errors.BusError.__init__(
            self,
            f"expected slack_mirror to answer on {SUBJECT}, got nobody: set enabled = true under [slack] in fleet.toml and start "
            "the fleet anew, or see `systems status` for why the daemon is down",
        )


async def serve(bus: Bus, mirror: Mirror, line: Line) -> Micro:
    """Answer until closed."""
    micro = Micro(bus, at_once=4)

    async def status(_: Request) -> bytes:
        behind = {name: len(source.open) + source.pending for name, source in mirror.sources.items()}
        return msgspec.json.encode(
            Report(line=line.standing, heard_at=line.heard_at, channels=mirror.statuses(), behind=behind)
        )

    await micro.serve("slack", "What waits for Slack, and why", {"status": (SUBJECT, status)})
    return micro


async def ask(connection: Connection) -> Report:
    """What the mirror says of itself.

    Raises:
        MirrorAway: nobody answers.
    """
    try:
        answer = await connection.nc.request(SUBJECT, b"", timeout=_ANSWER_S)
    except (driver.NoRespondersError, driver.TimeoutError, TimeoutError) as exc:
        raise MirrorAway from exc
    return msgspec.json.decode(answer.data, type=Report)
