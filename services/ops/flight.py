"""A canary invocation: asked for as anybody asks, worked on by one runner, followed to its end.

It proves more than a heartbeat: the warden follows the registry, makes consumers and takes requests, and this very runner
claims, works and writes its result. Its role exists for as long as that takes, in the drills' project, of which the tables
and the monitor keep quiet.
"""

from __future__ import annotations

import asyncio
import contextlib

import msgspec
from nats import errors as driver

from bus import errors, subjects
from bus.invocation import Refused
from services.daemon import Bus
from services.drill.drill import alone
from services.drill.sandbox import Sandbox
from services.fleet.spec import SANDBOX
from services.home import Home
from services.micro import No
from services.release import canary
from services.requests.requests import Accepted
from services.requests.service import ACTOR

#: Seconds that it may take, a drill that is under way included.
LIMIT_S = 60.0
#: Seconds between two tries.
_AGAIN_S = 0.2
_ENDS = ("completed", "dead_lettered", "cancelled")


class CanaryFailed(errors.BusError):
    """The canary invocation did not complete."""


async def fly(
    bus: Bus, home: Home, host: str, instance: str, who: str, *, limit_s: float = LIMIT_S
) -> dict[str, object]:
    """Have one runner do a piece of work: the evidence.

    Args:
        bus: where.
        home: the fleet's.
        host: the runner's.
        instance: the runner.
        who: on whose behalf.
        limit_s: seconds that it may take.

    Raises:
        CanaryFailed: it was refused, failed, or did not end in time.
    """
    loop = asyncio.get_running_loop()
    sandbox = Sandbox(bus, home, who, canary.tag(host, home.token, instance))
    reached = "a drill that is under way to end"
    try:
        with contextlib.ExitStack() as stack:
            async with asyncio.timeout(limit_s):
                await _alone(home, stack)
                reached = "the warden to make its consumer"
                async with sandbox.opened():
                    begun = loop.time()
                    path = await sandbox.role(canary.PREFIX, canary.ROLE)
                    reached = "the warden to take it"
                    accepted = await _ask(bus, path, who)
                    reached = f"{instance} to complete {accepted.id}"
                    ended = await sandbox.work.event_of(_ENDS, accepted.id)
                    took = loop.time() - begun
    except TimeoutError as exc:
        raise CanaryFailed(
            f"expected a canary to complete within {limit_s:g} s, got: it still waits for {reached}"
        ) from exc
    except Refused as exc:
        raise CanaryFailed(f"expected a canary to complete, got: {exc}") from exc
    event = ended.subject.rpartition(".")[2]
    if event != "completed":
        raise CanaryFailed(f"expected the canary {accepted.id} to complete, got: {event}; systems show {accepted.id}")
    return {"invocation": accepted.id, "took_s": round(took, 3)}


async def _alone(home: Home, stack: contextlib.ExitStack) -> None:
    """Hold the place of the drills until the stack ends; a drill that is under way is waited for."""
    while True:
        try:
            stack.enter_context(alone(home))
        except errors.Conflict:
            await asyncio.sleep(_AGAIN_S)
        else:
            return


async def _ask(bus: Bus, path: str, who: str) -> Accepted:
    """Ask over NATS, as every agent does; a warden that is being started is waited for."""
    project, name = subjects.parse_role(path)
    assert project == SANDBOX
    body = msgspec.json.encode(canary.INPUT)
    while True:
        try:
            answer = await bus.connection.nc.request(
                subjects.ask(project, name), body, timeout=LIMIT_S, headers={ACTOR: who}
            )
        except driver.NoRespondersError:
            await asyncio.sleep(_AGAIN_S)
            continue
        if "Nats-Service-Error-Code" not in (answer.headers or {}):
            return msgspec.json.decode(answer.data, type=Accepted)
        no = msgspec.json.decode(answer.data, type=No)
        if no.refused != "UnknownName":
            raise CanaryFailed(f"expected the canary to be taken, got: {no.reason}")
        await asyncio.sleep(_AGAIN_S)  # it answers before it has heard of the role
