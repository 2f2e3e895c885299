"""What the record of a fleet says of an incident, for tests that follow one from beginning to end."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TypeVar

from bus.events import incident as ev
from bus.events.sweep import Finished, Trigger
from bus.store import Recorded
from services.incident.words import span
from tests.chaos.fleet import Desk, Fleet

T = TypeVar("T")


def of(desk: Desk, event: type[T], number: int = 1) -> list[tuple[Recorded, T]]:
    """The events of this kind of an incident, in order."""
    mine = (r for r in desk.control.records if r.subject.startswith(f"ctl.incident.{number}."))
    return [(record, record.data) for record in mine if isinstance(record.data, event)]


async def first(desk: Desk, event: type[T], count: int = 1) -> tuple[Recorded, T]:
    """The `count`-th event of this kind, waited for."""
    await desk.control.until(lambda: len(of(desk, event)) >= count)
    return of(desk, event)[count - 1]


async def begun(desk: Desk) -> None:
    """Wait for the first sweep: whoever goes away from now on is missed."""
    await desk.control.until(
        lambda: any(isinstance(r.data, Finished) and r.data.trigger is Trigger.START for r in desk.control.records)
    )


def keep_ways(fleet: Fleet, ways: str) -> None:
    """Write addresses where only their owner may read them."""
    fleet.home.prepare()
    file = fleet.home.path / "ways.env"
    file.write_text(ways)
    file.chmod(0o600)


def story_is_told(desk: Desk) -> ev.Drafted:
    """Hold the draft's moments, and how long each took, against the events' own times: the draft."""
    _, drafted = of(desk, ev.Drafted)[0]
    since = of(desk, ev.Declared)[0][1].since
    moments = {
        "declared": of(desk, ev.Declared)[0][0],
        "first call taken by a service": next(record for record, paged in of(desk, ev.Paged) if paged.ok),
        "acknowledged for the first time": of(desk, ev.Acknowledged)[0][0],
        "closed": of(desk, ev.Closed)[0][0],
    }
    told = _rows(drafted.markdown)
    assert told["it began"] == (since.replace(microsecond=0), "")
    for what, record in moments.items():
        at = record.stored_at
        assert told[what] == (at.replace(microsecond=0), span((at - since).total_seconds())), what
        assert f"`CONTROL:{record.seq}`" in drafted.markdown
    return drafted


def _rows(markdown: str) -> dict[str, tuple[datetime, str]]:
    """The post-mortem's table of reactions: what -> when, and after how long."""
    row = r"^\| ([a-z ]+) \| (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC \| ?(.*?) ?\|$"
    return {
        what: (datetime.fromisoformat(at + "+00:00"), after)
        for what, at, after in re.findall(row, markdown, re.MULTILINE)
    }
