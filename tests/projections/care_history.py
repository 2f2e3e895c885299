"""What the monitor and people do about a fleet, as events in any order: also ones that no fence would let in."""

from __future__ import annotations

import random
from datetime import timedelta, timezone
from typing import TYPE_CHECKING, Any

import msgspec

from bus.events import card, decision, finding, ops, sweep

if TYPE_CHECKING:
    from tests.projections.histories import Stream

#: Evidence of actions: whatever JSON there is.
_SEEN = (b"{}", b'{"pid":7,"was":[1,null,"\xc3\xa9"]}', b'"word"', b"null", b"3")
_EVIDENCE = (
    (),
    (finding.Evidence("CONTROL", 7),),
    (finding.Evidence("INVOCATIONS", 1), finding.Evidence("CONTROL", 2)),
)


def care(stream: Stream, count: int) -> None:
    """Findings, actions, sweeps, decisions and cards, over few names."""
    makers = (_finding, _finding, _finding, _action, _sweep, _decision, _card)
    for _ in range(count):
        stream.control(*stream.chance.choice(makers)(stream))


def _finding(stream: Stream) -> tuple[str, Any]:
    chance = stream.chance
    told: dict[str, Any] = {
        "severity": chance.choice(list(finding.Severity)),
        "title": f"title {stream.seq}",
        "detail": chance.choice(["", "two\nlines"]),
        "evidence": chance.choice(_EVIDENCE),
        "value": chance.choice([0.0, 2.5, 1e300]),
        "command": chance.choice(["", "systems dlq ls"]),
        "cause": chance.choice(["", "", "ffff"]),
    }
    until = stream.at.astimezone(timezone(timedelta(hours=5, minutes=30)))
    sweep_ = chance.choice(["", "s1"])
    opened = finding.Opened(
        kind=chance.choice(list(finding.Kind)),
        subject=f"subject {stream.seq}",
        since=until,
        by=chance.choice(["monitor", "ann"]),
        sweep=sweep_,
        **told,
    )
    made: list[Any] = [
        opened,
        opened,
        finding.Changed(change=chance.choice(list(finding.Change)), was=chance.choice([0.0, 1.5]), **told),
        finding.Closed(
            reason=chance.choice(list(finding.CloseReason)),
            open_s=chance.choice([0.0, 3.25]),
            why=chance.choice(["", "it was the heating"]),
            by=chance.choice(["monitor", "bob"]),
        ),
        finding.Silenced(owner=chance.choice(["ann", "bob"]), reason="known", until=until),
        finding.Unsilenced(reason=finding.UnsilenceReason.TIME),
        finding.Raised(by="shop/coder", severity=finding.Severity.ULTRA, title="it is slow"),
        finding.Proposed(
            invocation=f"i{stream.seq}",
            summary=chance.choice(["", "restart it"]),
            problem=chance.choice(["", "no JSON"]),
            proposals=chance.choice([(), (finding.Proposal(action="restart", target="warden", allowed=True),)]),
        ),
    ]
    return chance.choice(["f1", "f2", "f3"]), chance.choice(made)


def _action(stream: Stream) -> tuple[str, Any]:
    chance = stream.chance
    made: list[Any] = [
        ops.Requested(
            action=chance.choice(["restart", "config"]),
            target=f"target {stream.seq}",
            who="ann",
            why=chance.choice(["", "tired"]),
            decision=chance.choice([0, 2]),
        ),
        ops.Refused(reason="not from inside", command=chance.choice(["", "systems up"])),
        ops.Started(limit_s=chance.choice([60, 0.5]), lock=chance.choice(["", "daemon warden"])),
        ops.Finished(ok=chance.random() < 0.5, took_s=stream.seq / 8, evidence=msgspec.Raw(chance.choice(_SEEN))),
    ]
    return chance.choice(["o1", "o2", "o3"]), chance.choice(made)


def _sweep(stream: Stream) -> tuple[str, Any]:
    chance = stream.chance
    trigger, why = chance.choice(list(sweep.Trigger)), chance.choice(["", "ann"])
    done = sweep.Finished(
        trigger=trigger,
        why=why,
        verdict=chance.choice(list(sweep.Verdict)),
        counts=_counts(chance),
        took_ms=stream.seq / 4,
        positions=chance.choice([{}, {"CONTROL": stream.seq, "INVOCATIONS": 0}]),
        unseen=chance.choice([(), ("the moon", 'a "quoted" one')]),
        findings=chance.choice([(), ("f1", "f2")]),
        next_at=chance.choice([None, stream.at]),
    )
    return chance.choice(["s1", "s2", "s3"]), chance.choice([sweep.Started(trigger=trigger, why=why), done])


def _counts(chance: random.Random) -> sweep.Counts:
    return sweep.Counts(**{name: chance.randint(0, 3) for name in sweep.Counts.__struct_fields__})


def _decision(stream: Stream) -> tuple[str, Any]:
    chance = stream.chance
    number = chance.randint(1, 6)
    made = decision.Recorded(
        number=number,
        title=f"title {stream.seq}",
        by="ann",
        context=chance.choice(["", "it was slow"]),
        decision=chance.choice(["", "two runners"]),
        consequences=chance.choice(["", "more memory"]),
        supersedes=chance.choice([0, 0, number - 1, 5]),
    )
    return str(number), made


def _card(stream: Stream) -> tuple[str, Any]:
    chance = stream.chance
    opened = card.Opened(
        instance="warden",
        host=f"host {stream.seq}",
        reason=chance.choice(list(card.Reason)),
        why=f"why {stream.seq}",
        command="systems up",
        since=stream.at,
        pid=chance.choice([0, 7]),
        boot_id=chance.choice(["", "b1"]),
        by=chance.choice(["", "launcher"]),
        operation=chance.choice(["", "o1"]),
    )
    closed = card.Closed(
        reason=chance.choice(list(card.End)), boot_id=chance.choice(["", "b2"]), waited_s=chance.choice([0.0, 2.5])
    )
    return chance.choice(["warden_h", "archiver_h"]), chance.choice([opened, closed])
