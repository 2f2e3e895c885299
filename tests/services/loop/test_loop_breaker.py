"""The rule of the loop breaker, limit by limit: at the limit nothing happens, one above it the tree trips."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from bus.author import Author
from bus.events import invocation as ev
from bus.events.loop import LoopReason
from bus.store import Recorded
from bus.subjects import Ref
from services.fleet.spec import LoopLimits
from services.loop import breaker
from services.loop.tree import Forest, Trip

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
AUTHOR = Author("/test", actor="tester")
#: Far above everything that a test does.
WIDE = LoopLimits(
    depth=900, fan_out=900, descendants=900, same_input=900, ping_pong=900, tokens_without_progress=9_000_000
)


class Story:
    """Records of one tree, folded and judged as they come."""

    def __init__(self, **limits: int) -> None:
        self._limits = msgspec.structs.replace(WIDE, **limits)
        self._forest = Forest()
        self.trips: list[Trip] = []
        self._roles: dict[str, str] = {}

    def _take(self, id_: str, data: Any) -> None:
        ref = Ref("shop", self._roles[id_], id_)
        event = AUTHOR.invocation(ref, data, root="root")
        record = Recorded(self._forest.position + 1, event.subject, NOON, event, data)
        found = self._forest.take(record)
        if found is not None:
            tree, judged = found
            trip = breaker.decide(tree, judged, record, self._limits)
            if trip is not None:
                tree.tripped = trip
                self.trips.append(trip)

    def ask(self, id_: str, parent: str = "", *, role: str = "coder", input: Any = None, depth: int = 0) -> None:
        """A request; an input of its own unless one is given."""
        self._roles[id_] = role
        raw = msgspec.Raw(msgspec.json.encode(id_ if input is None else input))
        self._take(id_, ev.Requested(input=raw, root="root", parent=parent, depth=depth))

    def done(self, id_: str, tokens: int = 0) -> None:
        """A completion."""
        self._take(id_, ev.Completed(holder="h", delivery=1, usage=ev.Usage(input_tokens=tokens)))

    @property
    def reasons(self) -> list[tuple[LoopReason, int, int]]:
        """What tripped: the reason, the count and the limit."""
        return [(trip.reason, trip.count, trip.limit) for trip in self.trips]


def chain(story: Story, length: int, roles: tuple[str, ...], *, same: bool = False) -> None:
    """Requests that each ask for the next one."""
    above = ""
    for n in range(length):
        name = "root" if n == 0 else f"i{n}"
        story.ask(name, above, role=roles[n % len(roles)], input="again" if same else None, depth=n)
        above = name


@pytest.mark.parametrize(("length", "trips"), [(4, []), (5, [(LoopReason.DEPTH, 4, 3)])])
def test_depth(length: int, trips: list[Any]) -> None:
    """A request that lies deeper than allowed trips its tree."""
    story = Story(depth=3)
    chain(story, length, ("coder",))
    assert story.reasons == trips


def test_depth_that_its_writer_hides_is_known_from_the_tree() -> None:
    """A request that calls itself shallow is as deep as the tree says."""
    story = Story(depth=2)
    story.ask("root")
    for above, name in (("root", "a"), ("a", "b"), ("b", "c")):
        story.ask(name, above, depth=0)
    assert story.reasons == [(LoopReason.DEPTH, 3, 2)]


@pytest.mark.parametrize(("children", "trips"), [(3, []), (4, [(LoopReason.FAN_OUT, 4, 3)])])
def test_fan_out(children: int, trips: list[Any]) -> None:
    """One invocation may make so many requests, and not one more."""
    story = Story(fan_out=3)
    story.ask("root")
    for n in range(children):
        story.ask(f"i{n}", "root")
    assert story.reasons == trips


@pytest.mark.parametrize(("length", "trips"), [(4, []), (5, [(LoopReason.DESCENDANTS, 4, 3)])])
def test_descendants(length: int, trips: list[Any]) -> None:
    """A root may cause so many invocations, however they hang together."""
    story = Story(descendants=3)
    chain(story, length, ("coder", "tester", "writer", "reader", "clerk"))
    assert story.reasons == trips


@pytest.mark.parametrize(("times", "trips"), [(2, []), (3, [(LoopReason.REPEATED_INPUT, 3, 2)])])
def test_same_input(times: int, trips: list[Any]) -> None:
    """The same role with the same input, however its keys are ordered, counts as the same; another role does not."""
    story = Story(same_input=2)
    story.ask("root")
    story.ask("other", "root", role="tester", input={"a": 1, "b": 2})
    for n in range(times):
        story.ask(f"i{n}", "root", input={"a": 1, "b": 2} if n % 2 else {"b": 2, "a": 1})
    assert story.reasons == trips


@pytest.mark.parametrize(("roles", "trips"), [(("a", "b"), [(LoopReason.PING_PONG, 4, 3)]), (("a", "b", "c"), [])])
def test_ping_pong(roles: tuple[str, ...], trips: list[Any]) -> None:
    """Two roles that answer one another trip; three in a round are no such pair."""
    story = Story(ping_pong=3)
    chain(story, 5, roles)
    assert story.reasons == trips


def test_spend_without_progress() -> None:
    """Tokens that go to inputs that were there before add up until something new is asked for, and trip above the limit."""
    story = Story(tokens_without_progress=100)
    story.ask("root", input="x")
    for n in range(2):
        story.ask(f"a{n}", "root", input="x")
        story.done(f"a{n}", 50)
    story.ask("new", "root", input="y")
    story.done("new", 1_000)
    for n in range(2):
        story.ask(f"b{n}", "root", input="x")
        story.done(f"b{n}", 50)
    assert story.reasons == []
    story.ask("c", "root", input="x")
    story.done("c", 1)
    assert story.reasons == [(LoopReason.NO_PROGRESS, 101, 100)]


def test_tree_trips_once() -> None:
    """A tree that has tripped is not told of again."""
    story = Story(depth=1)
    chain(story, 6, ("coder",))
    assert len(story.reasons) == 1
