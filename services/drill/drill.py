"""One drill: a real fault on the running fleet, the guard's act that is waited for, and an event that says how it went.

``prove`` is the whole skeleton; what differs between the guards is a :class:`Drill` of its own module each. It always clears
away, after Ctrl-C as after a failure, and ends in one event ``ctl.drill.<guard>.passed|failed`` (none after Ctrl-C: nothing
was proven then).
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import msgspec

from bus import errors
from bus.events.drill import Failed, Passed
from bus.refusal import GuardRefused
from services.daemon import Bus
from services.drill.sandbox import Sandbox
from services.fleet.spec import SANDBOX
from services.home import Home

#: Seconds after which a guard that has not fired does not fire.
LIMIT_S = 45.0
#: Letters of an id that tell one drill's roles from another's.
_TAG = 8


class Fired(msgspec.Struct, frozen=True, kw_only=True):
    """What a drill saw of a guard that fired."""

    #: Seconds from the fault to the guard's act.
    took_s: float
    #: Step by step, for people.
    evidence: tuple[str, ...] = ()


class NotProven(Exception):
    """The guard did not fire, or not as it must."""

    def __init__(self, expected: str, got: str) -> None:
        self.expected = expected
        self.got = got
        super().__init__(f"expected {expected}, got: {got}")


class Drill(Protocol):
    """How one guard is proven."""

    #: As on the command line: ``kill-switch``.
    name: str
    #: As the panel calls it: ``kill switch``.
    guard: str
    #: What it waits for, told when it did not come.
    expected: str
    #: It makes work, which a reached cap of the whole system keeps from being done.
    works: bool

    async def run(self, sandbox: Sandbox) -> Fired:
        """Inject the fault and watch.

        Raises:
            NotProven: the guard acted, and not as it must.
        """
        ...


async def prove(drill: Drill, bus: Bus, home: Home, actor: str, *, limit_s: float = LIMIT_S) -> Passed | Failed:
    """Run one drill on a running fleet, clear away, and write down how it went.

    Raises:
        GuardRefused: the kill switch is thrown, or a cap of the whole system is reached: no work may be made or done.
        BusUnreachable: the bus went away.
    """
    refusal = bus.gate.refusal(role=f"{SANDBOX}/{drill.name}" if drill.works else "")
    if refusal is not None:
        raise GuardRefused(refusal)
    sandbox = Sandbox(bus, home, actor, bus.author.new_id()[-_TAG:])
    event: Passed | Failed
    try:
        async with sandbox.opened():
            try:
                async with asyncio.timeout(limit_s):
                    fired = await drill.run(sandbox)
            except TimeoutError:
                seen = [record.subject for record in (*sandbox.work.records, *sandbox.guards.records)]
                raise NotProven(
                    drill.expected, f"nothing within {limit_s:g} s, after {', '.join(seen[-3:]) or 'no event'}"
                ) from None
        event = Passed(guard=drill.guard, took_s=round(fired.took_s, 4), evidence=fired.evidence)
    except NotProven as exc:
        event = Failed(guard=drill.guard, expected=exc.expected, got=exc.got, evidence=_seen(sandbox))
    await bus.store.append(bus.author.control(drill.name.replace("-", "_"), event))
    return event


def _seen(sandbox: Sandbox) -> tuple[str, ...]:
    """The last events that a failed drill saw."""
    records = sorted((*sandbox.work.records, *sandbox.guards.records), key=lambda record: record.stored_at)
    return tuple(f"{record.stored_at:%H:%M:%S.%f} {record.subject}" for record in records[-20:])


@contextmanager
def alone(home: Home) -> Iterator[None]:
    """Be the only drill of this home: two would clear away each other's work.

    Raises:
        Conflict: another one runs.
    """
    home.run.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(home.run / "drill.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise errors.Conflict(
                f"expected no drill under way in {home.path}, got: another one; wait for its end"
            ) from None
        yield
    finally:
        os.close(descriptor)
