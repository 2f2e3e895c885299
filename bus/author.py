"""Who writes: stamps facts with an id, a time, a source and their causes.

The only place where ids and wall time meet events. The trace id is the root invocation's id, so a run tree is one trace
in any tool that reads W3C trace context, without a table that maps one to the other.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from bus import events
from bus import ids as id_makers
from bus.clock import Clock, SystemClock
from bus.envelope import JSON, Envelope
from bus.subjects import Ref, control


class Author:
    """One daemon's, or one person's, pen."""

    def __init__(
        self,
        source: str,
        *,
        actor: str = "",
        clock: Clock | None = None,
        new_id: Callable[[], str] = id_makers.new_id,
    ) -> None:
        #: ``/<daemon>/<boot id>``, ``/operator/<name>`` or ``/slack/<user id>``.
        self.source = source
        self.actor = actor
        self.clock = clock or SystemClock()
        self.new_id = new_id

    def now(self) -> datetime:
        """Wall time, UTC."""
        return self.clock.now()

    def invocation(self, ref: Ref, data: Any, *, root: str = "", cause: str = "", actor: str = "") -> Envelope:
        """An event of an invocation. `root` is the run tree's first invocation; empty means this one."""
        kind = type(data)
        id_ = self.new_id()
        root = root or ref.id
        return Envelope(
            specversion="1.0",
            id=id_,
            source=self.source,
            type=events.TYPES[kind],
            subject=ref.event(events.NAMES[kind][1]),
            time=self.clock.now(),
            datacontenttype=JSON,
            correlationid=root,
            causationid=cause,
            actor=actor or self.actor,
            traceparent=traceparent(root, id_),
            data=data,
        )

    def control(
        self, id_: str, data: Any, *, cause: str = "", root: str = "", actor: str = "", event_id: str = ""
    ) -> Envelope:
        """An event on CONTROL about the thing `id_`. A given `event_id` makes repeated writing harmless."""
        noun, name = events.NAMES[type(data)]
        return self.stamp(control(noun, id_, name), data, cause=cause, root=root, actor=actor, event_id=event_id)

    def stamp(
        self, subject: str, data: Any, *, cause: str = "", root: str = "", actor: str = "", event_id: str = ""
    ) -> Envelope:
        """An event on any subject."""
        return Envelope(
            specversion="1.0",
            id=event_id or self.new_id(),
            source=self.source,
            type=events.TYPES[type(data)],
            subject=subject,
            time=self.clock.now(),
            datacontenttype=JSON,
            correlationid=root,
            causationid=cause,
            actor=actor or self.actor,
            data=data,
        )


def traceparent(root: str, id_: str) -> str:
    """W3C trace context, version 00: the root's id is the trace, the end of the event's id the span."""
    trace, span = root.replace("-", ""), id_.replace("-", "")[-16:]
    return f"00-{trace}-{span}-01" if len(trace) == 32 and len(span) == 16 else f"00-{trace:0>32.32}-{span:0>16}-01"
