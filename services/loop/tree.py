"""Run trees: what each of them has asked for and spent so far, folded from the log.

Plain state, fed with the records of INVOCATIONS; :mod:`services.loop.breaker` judges it. A request that has asked for nothing
is a seed of two short strings; it becomes a tree with its first descendant. A tree is dropped when nothing of it is open any
more, so the size of it all is the backlog's, and what one tree remembers is bounded by :data:`KEPT`.
"""

from __future__ import annotations

import contextlib
import hashlib
from datetime import datetime

import msgspec

from bus.events import invocation as ev
from bus.events.loop import LoopReason
from bus.store import Recorded
from bus.subjects import parse_event

#: Inputs, and ended invocations, that one tree remembers; the oldest are forgotten first.
KEPT = 20_000
#: Bytes of an input up to which the order of its keys and its white space do not matter.
_NORMAL_LIMIT = 16 * 1024


class Trip(msgspec.Struct, frozen=True, kw_only=True):
    """A tree passed a limit."""

    reason: LoopReason
    count: int
    limit: int
    #: ``project/role`` whose request or result passed it, that invocation, and the event's sequence and time.
    role: str
    invocation: str
    seq: int
    at: datetime
    #: Spend and size of the tree at that moment.
    tokens: int
    usd_micros: int
    descendants: int


class Node(msgspec.Struct):
    """One invocation of a tree."""

    role: str
    #: Digest of role and input.
    key: str
    depth: int = 0
    #: The invocation that asked, and its role.
    parent: str = ""
    above: str = ""
    #: How many times in a row two roles have answered one another, up to here.
    run: int = 0
    #: Requests that it made.
    asked: int = 0
    #: The tree had asked this role for this input before.
    repeat: bool = False
    open: bool = True


class Tree(msgspec.Struct):
    """One run tree: an invocation and all that it caused."""

    root: str
    nodes: dict[str, Node] = {}
    #: How often each role and input was asked for.
    keys: dict[str, int] = {}
    #: Ids that a completion has announced in its batch, and that come next in the log.
    expected: set[str] = set()
    descendants: int = 0
    tokens: int = 0
    usd_micros: int = 0
    #: Tokens spent on repeated inputs since anything new was asked for.
    barren: int = 0
    #: Invocations that have not ended.
    open: int = 0
    tripped: Trip | None = None

    def ask(self, id_: str, role: str, key: str, request: ev.Requested) -> None:
        """One more request; a put-back of a known one only opens it again."""
        self.expected.discard(id_)
        node = self.nodes.get(id_)
        if node is not None:
            if not node.open:
                node.open = True
                self.open += 1
            return
        node = Node(role, key, request.depth, request.parent)
        parent = self.nodes.get(request.parent)
        if parent is not None:
            # The depth in the event is its writer's word; the tree knows better.
            node.depth = max(request.depth, parent.depth + 1)
            node.above = parent.role
            parent.asked += 1
            if role != parent.role:
                node.run = parent.run + 1 if role == parent.above else 1
        if id_ != self.root and request.generation == 0:
            self.descendants += 1
        seen = self.keys.pop(key, 0)
        # Behind the others again: what was asked for lately is forgotten last.
        self.keys[key] = seen + 1
        if len(self.keys) > KEPT:
            del self.keys[next(iter(self.keys))]
        node.repeat = seen > 0
        if not seen:
            self.barren = 0
        self.nodes[id_] = node
        self.open += 1

    def spend(self, id_: str, tokens: int, usd_micros: int) -> None:
        """An attempt has used something."""
        self.tokens += tokens
        self.usd_micros += usd_micros
        node = self.nodes.get(id_)
        if node is not None and node.repeat:
            self.barren += tokens

    def end(self, id_: str, follow_ups: tuple[str, ...] = ()) -> None:
        """An invocation has ended; a completion's follow-ups are the next in the log."""
        self.expected.update(f for f in follow_ups if f not in self.nodes)
        node = self.nodes.get(id_)
        if node is None or not node.open:
            return
        node.open = False
        self.open -= 1
        if len(self.nodes) > KEPT:
            del self.nodes[id_]

    def clear(self) -> None:
        """Begin to count again. Depth is not counted but a place: it stays what it is."""
        self.tripped, self.descendants, self.barren = None, 0, 0
        self.keys.clear()
        for node in self.nodes.values():
            node.asked = node.run = 0

    @property
    def over(self) -> bool:
        """Nothing of it is open, and nothing is to come."""
        return self.open <= 0 and not self.expected


class Forest(msgspec.Struct):
    """All trees with open work."""

    trees: dict[str, Tree] = {}
    #: Roots that have asked for nothing yet: role and key of each.
    seeds: dict[str, tuple[str, str]] = {}
    #: Sequence of the last record folded.
    position: int = 0

    def take(self, record: Recorded, usd_micros: int = 0) -> tuple[Tree, str] | None:
        """Fold one record: the tree that it belongs to, and the invocation. None when there is no tree to judge.

        Args:
            record: of INVOCATIONS; rubbish is passed over.
            usd_micros: what the usage in it costs.
        """
        self.position = record.seq
        if record.data is None or record.event is None:
            return None
        ref, _ = parse_event(record.subject)
        match record.data:
            case ev.Requested() as request:
                return self._ask(ref.id, f"{ref.project}/{ref.role}", request)
            case ev.Scheduled(request=request):
                return self._ask(ref.id, f"{ref.project}/{ref.role}", request)
            case ev.Completed(usage=usage, follow_ups=follow_ups):
                return self._end(record.event.correlationid, ref.id, usage, usd_micros, follow_ups)
            case ev.Failed(usage=usage):
                return self._spend(record.event.correlationid, ref.id, usage, usd_micros)
            case ev.Cancelled() | ev.DeadLettered() | ev.Discarded():
                return self._end(record.event.correlationid, ref.id, ev.Usage(), 0, ())
        return None

    def clear(self, root: str) -> None:
        """A person let the tree go on."""
        tree = self.trees.get(root)
        if tree is not None:
            tree.clear()

    def _ask(self, id_: str, role: str, request: ev.Requested) -> tuple[Tree, str] | None:
        root = request.root or id_
        if root == id_ and root not in self.trees:
            self.seeds[root] = (role, key_of(role, request))
            return None
        tree = self._grown(root) or self.trees.setdefault(root, Tree(root))
        tree.ask(id_, role, key_of(role, request), request)
        return tree, id_

    def _spend(self, root: str, id_: str, usage: ev.Usage, usd_micros: int) -> tuple[Tree, str] | None:
        tokens = usage.input_tokens + usage.output_tokens
        # What nobody used grows no tree from a seed.
        tree = self._grown(root) if tokens or usd_micros else self.trees.get(root)
        if tree is None:
            return None
        tree.spend(id_, tokens, usd_micros)
        return tree, id_

    def _end(
        self, root: str, id_: str, usage: ev.Usage, usd_micros: int, follow_ups: tuple[str, ...]
    ) -> tuple[Tree, str] | None:
        if root not in self.trees and not follow_ups:
            self.seeds.pop(root, None)
            return None
        tree = self._grown(root)
        if tree is None:
            return None
        tree.spend(id_, usage.input_tokens + usage.output_tokens, usd_micros)
        tree.end(id_, follow_ups)
        if tree.over:
            # A tree that is over has nothing left to stop.
            del self.trees[root]
            return None
        return tree, id_

    def _grown(self, root: str) -> Tree | None:
        tree = self.trees.get(root)
        seed = self.seeds.pop(root, None)
        if tree is None and seed is not None:
            role, key = seed
            tree = self.trees[root] = Tree(root, {root: Node(role, key)}, {key: 1}, open=1)
        return tree


def key_of(role: str, request: ev.Requested) -> str:
    """Digest of a role and an input. The order of keys and white space count for nothing in a small input."""
    if request.input_ref is not None:
        content = request.input_ref.digest.encode()
    else:
        content = bytes(request.input)
        if len(content) <= _NORMAL_LIMIT:
            # What is too deep to be taken apart is told apart by its bytes.
            with contextlib.suppress(msgspec.MsgspecError, ValueError, RecursionError):
                content = msgspec.json.encode(msgspec.json.decode(content), order="deterministic")
    return hashlib.blake2b(role.encode() + b"\0" + content, digest_size=12).hexdigest()
