"""Sweeps on a real server: by the clock, on demand and at once after what cannot wait; what they find, and remember."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bus.events import finding as ev
from bus.events.finding import Kind
from bus.events.sweep import Finished, Started, Trigger, Verdict
from bus.store import Recorded
from services.monitor.status import Status
from tests.services.rig import Rig


async def echo(input: Any) -> Any:
    """Give the input back."""
    return input


def finished(rig: Rig, trigger: Trigger | None = None) -> list[Finished]:
    """The sweeps that have finished, in order."""
    data = [r.data for r in rig.control.records if isinstance(r.data, Finished)]
    return [one for one in data if trigger in (None, one.trigger)]


async def sweep(rig: Rig) -> Status:
    """Ask for a sweep, as `nats req monitor.sweep ''` does."""
    answer = await rig.connection.nc.request("monitor.sweep", b"", timeout=20)
    return msgspec.json.decode(answer.data, type=Status)
