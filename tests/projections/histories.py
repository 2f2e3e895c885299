"""Messages as a stream would hold them: histories that `decide` allows, soups of events that it would not, and rubbish."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from bus import envelope as ce
from bus import events
from bus.author import Author
from bus.events import daemon, deadletter, freeze, guard, loop, quota
from bus.events import invocation as ev
from bus.ids import key_id
from bus.invocation import (
    Bury,
    Cancel,
    Claim,
    Command,
    Complete,
    Cost,
    Discard,
    Fail,
    FallDue,
    Invocation,
    Limits,
    Redrive,
    Refused,
    Release,
    Sweep,
    decide,
    evolve,
)
from bus.store import CONTROL, DEAD_LETTERS, INVOCATIONS
from bus.subjects import Ref
from bus.wire import Delivery
from tests.projections.care_history import care

START = datetime(2026, 1, 1, tzinfo=UTC)
#: The same id under two roles is two invocations.
REFS = tuple(
    Ref(project, role, id_) for project in ("shop", "ledger") for role in ("coder", "clerk") for id_ in ("a", "b")
)
USAGES = (ev.Usage(), ev.Usage(input_tokens=7, output_tokens=3, model="gpt-9"), ev.Usage(input_tokens=5, model="small"))
#: Microseconds between two messages.
TICKS = (1, 250, 40_000_000, 2_000_000_000, -500_000)
HOLD = ev.Hold(id="h", tokens=100, usd_micros=50, keys=("system.tokens.day_20260101",))


class Stream:
    """One stream: its messages, with sequences and times of the server, whose clock may go back."""

    def __init__(self, name: str, chance: random.Random, ticks: Sequence[int] = TICKS) -> None:
        self.name = name
        self.ticks = ticks
        self.chance = chance
        self.deliveries: list[Delivery] = []
        self.seq = 0
        self.at = START
        self.author = Author("/test/boot", actor="alice", clock=self, new_id=self._new_id)

    def _new_id(self) -> str:
        return key_id(self.name, str(self.seq))

    def now(self) -> datetime:
        """The server's clock is everybody's."""
        return self.at

    def monotonic(self) -> float:
        """Seconds of that clock."""
        return (self.at - START).total_seconds()

    def put(self, subject: str, body: bytes) -> int:
        """Store a message: its sequence. Now and then one is missing before it."""
        self.seq += 1 if self.chance.random() < 0.95 else self.chance.randint(2, 9)
        self.at += timedelta(microseconds=self.chance.choice(self.ticks))
        stored_ns = int((self.at - START) / timedelta(microseconds=1)) * 1000 + int(START.timestamp()) * 10**9
        self.deliveries.append(Delivery(subject, body, "", self.seq, 1, self.seq, stored_ns, 0))
        return self.seq

    def event(self, ref: Ref, data: Any) -> int:
        """Store an event of an invocation."""
        root = self.chance.choice(["", "", "root-1"])
        return self.put(ref.event(events.NAMES[type(data)][1]), ce.encode(self.author.invocation(ref, data, root=root)))

    def control(self, id_: str, data: Any) -> int:
        """Store an event on CONTROL."""
        event = self.author.control(id_, data)
        return self.put(event.subject, ce.encode(event))


def life(stream: Stream, steps: int) -> None:
    """Invocations that go through what `decide` allows, side by side."""
    chance = stream.chance
    limits = Limits(max_attempts=2, max_crashes=2, idempotent=chance.random() < 0.8)
    states: dict[Ref, Invocation | None] = {}
    deliveries = 0

    def append(ref: Ref, found: Sequence[ev.InvocationEvent]) -> None:
        for event in found:
            seq = stream.event(ref, event)
            states[ref] = evolve(states.get(ref), event, seq, stream.at)

    for _ in range(steps):
        ref = chance.choice(REFS)
        state = states.get(ref)
        if state is None:
            asked = ev.Requested(root=chance.choice(["", "root-1"]), schedule=chance.choice(["", "steady"]))
            append(ref, [ev.Scheduled(due=START, request=asked) if chance.random() < 0.2 else asked])
            continue
        deliveries += 1
        holder, delivery = (state.claim.holder, state.claim.delivery) if state.claim else ("r1", deliveries)
        usage = chance.choice(USAGES)
        cost = Cost(usd_micros=chance.randint(0, 9), prices=1)
        fault = ev.Error(kind="E", message="it broke", fingerprint="f" * 12, permanent=chance.random() < 0.1)
        commands: list[Command] = [
            Claim(holder="r1", runner="run-1@h", delivery=deliveries, reply="x", hold=chance.choice([None, HOLD])),
            Complete(holder=holder, delivery=delivery, usage=usage, duration_ms=chance.random() * 1000, cost=cost),
            Fail(
                holder=holder, delivery=delivery, error=fault, retry_at=START, usage=usage, duration_ms=1.5, cost=cost
            ),
            Sweep(holder=holder, reason=ev.SweepReason.HOLDER_GONE),
            Release(reason=ev.ReleaseReason.DRAIN, holder=state.claim.holder if state.claim else ""),
            Bury(),
            Cancel(reason="enough"),
            Redrive(reason="again"),
            Discard(),
            FallDue(),
        ]
        weights = [6, 5, 4, 2, 2, 0.3, 0.3, 3, 1, 2]
        with suppress(Refused):
            append(ref, decide(state, chance.choices(commands, weights)[0], limits, stream.at))


def any_event(chance: random.Random) -> ev.InvocationEvent:
    """An event of any type with anything in it, whether it can follow or not."""
    usage = chance.choice(USAGES)
    settled = chance.choice([None, ev.Settlement(hold=HOLD, tokens=9, usd_micros=4, assumed=chance.random() < 0.5)])
    fault = ev.Error(kind=chance.choice("EF"), message="it broke", fingerprint=chance.choice(["f1", "f2"]))
    request = ev.Requested(
        parent=chance.choice(["", "p"]),
        root=chance.choice(["", "r"]),
        depth=chance.randint(0, 3),
        schedule=chance.choice(["", "steady"]),
        due=chance.choice([None, START]),
        generation=chance.randint(0, 2),
    )
    held: dict[str, Any] = {"holder": chance.choice(["r1", "r2"]), "delivery": chance.randint(0, 5)}
    made: list[ev.InvocationEvent] = [
        request,
        ev.Scheduled(due=START, request=request),
        ev.Claimed(**held, runner="run-1@h", attempt=chance.randint(1, 3), reply="x", hold=chance.choice([None, HOLD]))
        if chance.random() < 0.5
        else ev.Claimed(
            **held, runner="run-2@h", attempt=1, reply="x", registry_revision=8, prompt_digest="sha-256:ab"
        ),
        ev.Completed(**held, usage=usage, duration_ms=chance.choice([0.0, 0.0005, 12.25, 1e300]), settled=settled),
        ev.Failed(**held, attempt=1, error=fault, retry_at=chance.choice([None, START]), usage=usage, settled=settled),
        ev.Swept(**held, age_s=chance.random() * 100, reason=ev.SweepReason.ACK_WAIT, settled=settled),
        ev.Released(reason=ev.ReleaseReason.QUOTA, **held, settled=settled),
        ev.Cancelled(reason=chance.choice(["", "enough"]), settled=settled),
        ev.DeadLettered(reason=ev.DeathReason.PERMANENT_ERROR, error=chance.choice([None, fault]), settled=settled),
        ev.Redriven(reason=chance.choice(["", "again"])),
        ev.Discarded(),
    ]
    return chance.choice(made)


def rubbish(chance: random.Random) -> tuple[str, bytes]:
    """A message on our subjects that is no event, and where it lies."""
    ref = chance.choice(REFS)
    author = Author("/test/boot")
    good = msgspec.json.decode(ce.encode(author.invocation(ref, ev.Discarded())))
    subject = ref.event("discarded")
    found: list[tuple[str, bytes]] = [
        (subject, b"{"),
        (subject, b""),
        (subject, b'{"specversion":"1.0","id":"\xff"}'),
        (subject, msgspec.json.encode(good | {"specversion": "0.3"})),
        (subject, msgspec.json.encode(good | {"dataversion": 99})),
        (subject, msgspec.json.encode(good | {"type": "systems.invocation.cancelled"})),
        (ref.event("claimed"), msgspec.json.encode(good | {"type": "systems.invocation.claimed"})),
        (ref.event("exploded"), msgspec.json.encode(good | {"type": "systems.invocation.exploded"})),
        (Ref("shop", "coder", "elsewhere").event("discarded"), msgspec.json.encode(good)),
        ("inv.too.short", msgspec.json.encode(good)),
        (subject, b"[" * 5000),
        (subject, msgspec.json.encode(good | {"time": "yesterday"})),
        (subject, msgspec.json.encode({k: v for k, v in good.items() if k != "data"})),
    ]
    return chance.choice(found)


def soup(stream: Stream, count: int) -> None:
    """Events and rubbish in any order."""
    for _ in range(count):
        if stream.chance.random() < 0.05:
            stream.put(*rubbish(stream.chance))
        else:
            stream.event(stream.chance.choice(REFS), any_event(stream.chance))


def guards(stream: Stream, count: int) -> None:
    """Guards that trip and are cleared, and daemons that come and go, in any order."""
    chance = stream.chance
    until = chance.choice([None, START])
    for _ in range(count):
        token = chance.choice(["one", "two"])
        role = chance.choice(["shop/coder", "ledger/clerk"])
        key = f"{token}.tokens.day_20260101"
        made: list[tuple[str, Any]] = [
            (token, freeze.Frozen(mode="soft", seq=3, reason="fire", by=chance.choice(["", "bob"]), until=until)),
            (token, freeze.Thawed(frozen_s=2.5)),
            (token, quota.Tripped(key=key, used=5, held=0, cap=5, until=until)),
            (token, quota.Reset(key=key, why="raised")),
            (token, loop.Tripped(reason=loop.LoopReason.DEPTH, count=9, limit=8, role=role, invocation="i")),
            (token, loop.Cleared(reason="fine")),
            ("role", guard.Paused(role=role, reason="slow down", until=until)),
            ("role", guard.Resumed(role=role)),
            (
                token,
                daemon.Started(daemon="agent_runner", boot_id=f"b{stream.seq}", host="h", pid=stream.seq, version="1"),
            ),
            (token, daemon.Stopped(daemon="agent_runner", boot_id="b")),
            (
                token,
                daemon.Exited(
                    daemon="agent_runner", host="h", pid=1, status=-9, restart_in_s=chance.choice([None, 1.5])
                ),
            ),
            (token, daemon.GaveUp(daemon="agent_runner", host="h", exits=3, period_s=300, command="systems up")),
        ]
        stream.control(*chance.choice(made))


def copies(stream: Stream, letters: Sequence[Delivery]) -> None:
    """What the warden keeps of some of the deaths in a stream of invocations, now and then twice."""
    for letter in letters:
        if letter.subject.endswith(".dead_lettered") and stream.chance.random() < 0.8:
            _, project, role, id_, _ = letter.subject.split(".")
            kept = deadletter.Kept(
                project=project,
                role=role,
                invocation=id_,
                reason=ev.DeathReason.ATTEMPTS_SPENT,
                request=ev.Requested(root=stream.chance.choice(["", "r"])),
                requested_at=START,
                died_at=START,
                died_seq=letter.seq,
            )
            ref = Ref(project, role, id_)
            for _ in range(stream.chance.choice([1, 1, 2])):
                stream.put(ref.dead_letter, ce.encode(stream.author.stamp(ref.dead_letter, kept)))


def fleet(seed: int, steps: int) -> dict[str, list[Delivery]]:
    """The messages of three streams: lives, then a soup over the same invocations, guards, care, and copies of dead letters."""
    chance = random.Random(seed)
    log, control, dead = Stream(INVOCATIONS, chance), Stream(CONTROL, chance), Stream(DEAD_LETTERS, chance)
    life(log, chance.randint(0, steps))
    soup(log, chance.randint(0, steps))
    guards(control, chance.randint(0, steps))
    care(control, steps)
    copies(dead, log.deliveries)
    return {INVOCATIONS: log.deliveries, CONTROL: control.deliveries, DEAD_LETTERS: dead.deliveries}
