"""``systems show`` and ``systems why``: one invocation, and the run tree that it belongs to."""

from __future__ import annotations

import msgspec

from bus.errors import BusError
from bus.events import invocation as ev
from bus.follower import Follower
from bus.invocation import Invocation
from bus.store import INVOCATIONS, Recorded, fold, read
from bus.subjects import Ref, parse_event
from services import story
from services.cli import output
from services.cli.common import DEFAULTS, Common
from services.cli.exits import Exit
from services.cli.session import Session, operator

#: Invocations of a tree whose state is looked up: one read each.
NODES = 500
#: Requests that are looked through for a tree's members, from the root's own on.
SCAN = 1_000_000


class Unreadable(BusError):
    """An invocation without one readable event."""


async def show(id: str, /, *, common: Common = DEFAULTS) -> int:
    """Show the timeline of one invocation.

    Args:
        id: Id of the invocation.
        common: Which fleet, and how to print.
    """
    async with operator(common) as session:
        ref = await session.find(id)
        records = await session.history(ref)
    told = story.story(ref, records)
    if told is None:
        raise Unreadable(
            f"expected events of an invocation on {ref.all}, got none that can be read: {records[0].problem}"
        )
    if common.json:
        output.json(told)
        return Exit.DONE
    output.facts(story.header(ref, told, story.cause_of(ref, records)), 9)
    print()
    rows = [
        [output.moment(line.at), "" if line.after_s is None else f"+{output.age(line.after_s)}", line.event, line.what]
        for line in story.timeline(records)
    ]
    output.table(["time (UTC)", "after", "event", "what"], rows, right=["after"])
    return Exit.DONE


class Why(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to why, for programs."""

    #: The invocation itself first, its root last.
    chain: tuple[story.Causes, ...]
    tree: story.Node
    #: False: the tree may lack members, because the limit of the search was reached.
    complete: bool


async def why(id: str, /, *, scan: int = SCAN, common: Common = DEFAULTS) -> int:
    """Show who caused an invocation, up to a person or a schedule, and what the whole run tree became.

    Args:
        id: Id of the invocation.
        scan: Requests to look through for the members of the tree.
        common: Which fleet, and how to print.
    """
    async with operator(common) as session:
        ref = await session.find(id)
        chain, histories = await _chain(session, ref)
        top = chain[-1].ref if chain else ref
        root_seq = histories[top][0].seq
        members, complete = await _members(session, top, _root(histories[top], top), root_seq, scan)
        states = await _states(session, top, members, histories)
    grown = story.tree(top, members, states)
    if common.json:
        output.json(Why(chain=tuple(chain), tree=grown, complete=complete))
        return Exit.DONE
    for line in story.chain_lines(chain):
        print(line)
    print()
    for line in story.tree_lines(grown, marked=ref.id):
        print(line)
    if not complete:
        output.note(f"systems: the first {scan:,} requests after the root's were looked through; --scan looks further")
    if len(members) + 1 > NODES:
        output.note(f"systems: the tree has more than {NODES} members; the state of the others was not looked up")
    return Exit.DONE


async def _chain(session: Session, ref: Ref) -> tuple[list[story.Causes], dict[Ref, list[Recorded]]]:
    """The chain of causes, the invocation itself first, with the histories that were read."""
    chain: list[story.Causes] = []
    histories: dict[Ref, list[Recorded]] = {ref: await session.history(ref)}
    at: Ref | None = ref
    while at is not None:
        request = _request(histories[at])
        above = await _parent(session, request.parent) if request is not None and request.parent else None
        if above in histories:
            above = None  # a circle, written by hand
        if above is not None:
            histories[above] = await session.history(above)
        link = story.cause_of(at, histories[at], histories[above] if above is not None else ())
        if link is None:
            break
        chain.append(link)
        at = above
    return chain, histories


async def _parent(session: Session, id_: str) -> Ref | None:
    return await session.bus.store.find(id_) or (await session.archived()).find(id_)


def _request(records: list[Recorded]) -> ev.Requested | None:
    state = fold(records)
    return state.request if state is not None else None


def _root(records: list[Recorded], ref: Ref) -> str:
    request = _request(records)
    return (request.root if request is not None else "") or ref.id


async def _members(session: Session, top: Ref, root: str, start: int, limit: int) -> tuple[dict[Ref, str], bool]:
    """Members of a tree below its top, with their parents; False if the search ended at its limit."""
    members: dict[Ref, str] = {}
    for record in (await session.archived()).members(root):
        _take(members, record, root, top)
    needle = root.encode()
    seen = 0
    last = await session.bus.store.last(INVOCATIONS, "inv.*.*.*.requested")
    if last is None or last.seq < start:
        return members, True
    follower = Follower(
        session.bus.connection, INVOCATIONS, ["inv.*.*.*.requested", "inv.*.*.*.scheduled"], start=start
    )
    async for batch in follower.batches():
        for item in batch:
            seen += 1
            # Looked for as bytes first: most requests belong to other trees, and need no decoding.
            if needle not in item.data:
                continue
            _take(members, read(item.seq, item.subject, session.bus.author.now(), item.data), root, top)
        if batch[-1].pending == 0 or batch[-1].seq >= last.seq:
            return members, True
        if seen >= limit:
            return members, False
    raise AssertionError("a follower never ends by itself")


def _take(members: dict[Ref, str], record: Recorded, root: str, top: Ref) -> None:
    """Count the invocation of a request, if it is one of the tree."""
    if record.data is None:
        return
    ref, _ = parse_event(record.subject)
    request = record.data.request if isinstance(record.data, ev.Scheduled) else record.data
    if request.root == root and request.parent and ref != top:
        members.setdefault(ref, request.parent)


async def _states(
    session: Session, top: Ref, members: dict[Ref, str], histories: dict[Ref, list[Recorded]]
) -> dict[Ref, Invocation]:
    states: dict[Ref, Invocation] = {}
    for ref in [top, *members][:NODES]:
        records = histories[ref] if ref in histories else await session.history(ref)
        state = fold(records)
        if state is not None:
            states[ref] = state
    return states
