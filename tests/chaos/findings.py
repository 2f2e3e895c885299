"""What the record says of findings: which were opened, which still are, and when one is over."""

from __future__ import annotations

from bus.events import finding as ev
from bus.events.finding import Kind
from bus.store import Recorded
from tests.chaos.fleet import Desk


def events(desk: Desk, kind: Kind, event: type, subject: str = "") -> list[Recorded]:
    """The events about findings of a kind (and a subject that begins so), in order."""
    prints = {
        r.subject.split(".")[2]
        for r in desk.control.records
        if isinstance(r.data, ev.Opened) and r.data.kind is kind and r.data.subject.startswith(subject)
    }
    return [r for r in desk.control.records if isinstance(r.data, event) and r.subject.split(".")[2] in prints]


def standing(desk: Desk, *kinds: Kind, subject: str) -> bool:
    """Whether a finding of one of these kinds, about a subject that begins so, is open."""
    last = {r.subject.split(".")[2]: r.data for r in desk.control.records if ".finding." in r.subject}
    return any(
        not isinstance(last[r.subject.split(".")[2]], ev.Closed)
        for kind in kinds
        for r in events(desk, kind, ev.Opened, subject)
    )


async def clear(desk: Desk, *kinds: Kind, subject: str) -> None:
    """Wait until no such finding is open: a start in a busy moment may have made one."""
    await desk.control.until(lambda: not standing(desk, *kinds, subject=subject))


async def closed(desk: Desk, opened: Recorded) -> None:
    """Wait until a finding is over."""
    print_ = opened.subject.split(".")[2]
    await desk.control.subject(
        lambda r: r.seq > opened.seq and isinstance(r.data, ev.Closed) and r.subject.split(".")[2] == print_
    )
