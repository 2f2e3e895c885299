"""Asking the monitor for a sweep, as people do."""

from __future__ import annotations

import msgspec
from nats import errors as driver

from bus import errors
from services.daemon import Bus
from services.monitor.status import Status
from services.requests.service import ACTOR

#: Seconds that a sweep may take.
SWEEP_S = 60.0


async def sweep(bus: Bus, by: str) -> Status:
    """Look at the whole fleet now.

    Raises:
        BusUnreachable: the warden, in which the monitor runs, is away.
        Unanswered: the sweep was not over in time.
    """
    try:
        answer = await bus.connection.nc.request("monitor.sweep", b"", headers={ACTOR: by}, timeout=SWEEP_S)
    except driver.NoRespondersError as exc:
        raise errors.BusUnreachable(
            bus.connection.url,
            "the monitor, which runs in the warden, does not answer",
            "see `systems status`, or run `systems start warden`",
        ) from exc
    except (driver.Error, TimeoutError) as exc:
        raise errors.Unanswered("monitor.sweep", SWEEP_S) from exc
    return msgspec.json.decode(answer.data, type=Status)
