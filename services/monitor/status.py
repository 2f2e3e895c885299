"""What is open and when was looked, as people and programs see it: the answer of ``monitor.status``."""

from __future__ import annotations

from datetime import datetime

import msgspec

from bus.events.sweep import Finished
from bus.store import CONTROL
from services.daemon import Bus


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """A sweep that is over."""

    id: str
    at: datetime
    finished: Finished


class Open(msgspec.Struct, frozen=True, kw_only=True):
    """An open finding, as people see it."""

    fingerprint: str
    kind: str
    severity: str
    title: str
    subject: str
    since: datetime
    detail: str = ""
    evidence: tuple[str, ...] = ()
    command: str = ""
    cause: str = ""
    by: str = ""
    silenced_by: str = ""
    silenced_until: datetime | None = None
    #: What a triage proposes, as ``restart warden (waits for a person): why``.
    proposals: tuple[str, ...] = ()


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What ``monitor.status`` answers, and ``monitor.sweep`` when its sweep is over."""

    #: The last sweep; None: there was none.
    last: Done | None
    next_at: datetime | None
    findings: tuple[Open, ...]


async def last_sweep(bus: Bus) -> Done | None:
    """The last sweep that finished, by the record."""
    last = await bus.store.last(CONTROL, "ctl.sweep.*.finished")
    if last is None or not isinstance(last.data, Finished):
        return None
    return Done(id=last.subject.split(".")[2], at=last.stored_at, finished=last.data)
