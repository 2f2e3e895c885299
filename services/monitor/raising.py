"""Raising a concern over NATS, for whoever is not the monitor: handlers, scripts and the command line."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from nats import errors as driver

from bus import errors
from bus.connection import Connection
from bus.events.finding import Severity
from services.micro import No

#: Where it is raised.
SUBJECT = "monitor.raise"
#: Seconds that an answer may take.
_ANSWER_S = 5.0


class RaiseRefused(errors.BusError):
    """A concern was not taken; the sentence says why, and what holds instead."""


class Raise(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is raised, as JSON."""

    severity: Severity
    title: str
    detail: str = ""
    #: ``STREAM:SEQUENCE`` each; any other text becomes a line of the detail.
    evidence: tuple[str, ...] = ()


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to one that was taken."""

    fingerprint: str
    #: It was open already, and nothing was written.
    deduplicated: bool = False


class MonitorAway(errors.BusUnreachable):
    """Nobody takes what is raised."""

    def __init__(self) -> None:
        errors.BusError.__init__(
            self,
            f"expected somebody to answer on {SUBJECT}, got nobody: the warden, in which the monitor runs, is away; "
            "see `systems status`",
        )


async def ask(connection: Connection, asked: Raise, headers: Mapping[str, str]) -> Taken:
    """Raise something.

    Raises:
        RaiseRefused: it was not taken; the sentence says why.
        MonitorAway: nobody is there to take it.
        Unanswered: it may have been taken; raising it again does no harm.
    """
    try:
        answer = await connection.nc.request(
            SUBJECT, msgspec.json.encode(asked), headers=dict(headers), timeout=_ANSWER_S
        )
    except driver.NoRespondersError as exc:
        raise MonitorAway from exc
    except (driver.Error, TimeoutError) as exc:
        raise errors.Unanswered(SUBJECT, _ANSWER_S) from exc
    if (answer.headers or {}).get("Nats-Service-Error"):
        raise RaiseRefused(msgspec.json.decode(answer.data, type=No).reason)
    return msgspec.json.decode(answer.data, type=Taken)
