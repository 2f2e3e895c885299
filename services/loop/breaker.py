"""When a run tree has gone too far. Pure: a tree, the invocation that the last record was about, the limits, and a verdict."""

from __future__ import annotations

from bus.events.loop import LoopReason, Tripped
from bus.refusal import Reason, Refusal
from bus.store import Recorded
from bus.subjects import parse_event
from services.fleet.spec import LoopLimits
from services.loop.tree import Node, Tree, Trip

#: What stays possible for a stopped tree.
_ALLOWED = "its running handlers finish, other trees go on"

_WORDS = {
    LoopReason.DEPTH: "{role} was asked {count:,} levels below the root, {limit:,} are allowed (loop.depth)",
    LoopReason.FAN_OUT: "one invocation made {count:,} requests, {limit:,} are allowed (loop.fan_out)",
    LoopReason.DESCENDANTS: "the root has caused {count:,} invocations, {limit:,} are allowed (loop.descendants)",
    LoopReason.REPEATED_INPUT: "{role} was asked {count:,} times for the same input, {limit:,} are allowed (loop.same_input)",
    LoopReason.PING_PONG: "{role} and another role answered one another {count:,} times in a row, {limit:,} are allowed "
    "(loop.ping_pong)",
    LoopReason.NO_PROGRESS: "{count:,} tokens went to inputs that were asked for before, {limit:,} are allowed "
    "(loop.tokens_without_progress)",
}


def verdict(tree: Tree, id_: str, limits: LoopLimits) -> tuple[LoopReason, int, int] | None:
    """Which limit the tree has passed with what just happened to an invocation: the reason, the count and the limit."""
    node = tree.nodes.get(id_)
    if node is None:
        return None
    counts = (
        (LoopReason.DEPTH, node.depth, limits.depth),
        (LoopReason.PING_PONG, node.run, limits.ping_pong),
        (LoopReason.REPEATED_INPUT, tree.keys.get(node.key, 0), limits.same_input),
        (LoopReason.FAN_OUT, _widest(tree, node), limits.fan_out),
        (LoopReason.DESCENDANTS, tree.descendants, limits.descendants),
        (LoopReason.NO_PROGRESS, tree.barren, limits.tokens_without_progress),
    )
    return next((found for found in counts if found[1] > found[2]), None)


def _widest(tree: Tree, node: Node) -> int:
    asker = tree.nodes.get(node.parent)
    return asker.asked if asker is not None else 0


def decide(tree: Tree, id_: str, record: Recorded, limits: LoopLimits) -> Trip | None:
    """The trip that a record causes; None for none, and for a tree that has tripped already."""
    if tree.tripped is not None:
        return None
    found = verdict(tree, id_, limits)
    if found is None:
        return None
    reason, count, limit = found
    ref, _ = parse_event(record.subject)
    return Trip(
        reason=reason,
        count=count,
        limit=limit,
        role=f"{ref.project}/{ref.role}",
        invocation=id_,
        seq=record.seq,
        at=record.stored_at,
        tokens=tree.tokens,
        usd_micros=tree.usd_micros,
        descendants=tree.descendants,
    )


def event(trip: Trip) -> Tripped:
    """The trip as CONTROL keeps it."""
    return Tripped(
        reason=trip.reason,
        count=trip.count,
        limit=trip.limit,
        role=trip.role,
        invocation=trip.invocation,
        tokens=trip.tokens,
        usd_micros=trip.usd_micros,
        descendants=trip.descendants,
    )


def refusal(root: str, trip: Trip) -> Refusal:
    """The trip as it stands until a person clears it."""
    because = _WORDS[trip.reason].format(role=trip.role, count=trip.count, limit=trip.limit)
    return Refusal(
        reason=Reason.LOOP,
        scope=f"tree {root}",
        because=because,
        since=trip.at,
        command=f"systems loop clear {root} --reason TEXT",
        allowed=_ALLOWED,
    )
