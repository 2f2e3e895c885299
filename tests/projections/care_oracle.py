"""Findings, actions, sweeps, decisions and cards, folded by plain dicts, one event after the other."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from bus.events import card, decision, finding, ops, sweep
from bus.store import Recorded

Row = dict[str, Any]


def plain(moment: datetime | None) -> datetime | None:
    """A time as tables have it: UTC, without saying so."""
    return None if moment is None else moment.astimezone(UTC).replace(tzinfo=None)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


class Care:
    """What is done about a fleet, in dicts by key."""

    def __init__(self) -> None:
        #: By fingerprint and opening; one that nobody has opened yet only says how often it was raised.
        self.findings: dict[tuple[str, int], Row] = {}
        self.actions: dict[str, Row] = {}
        self.sweeps: dict[str, Row] = {}
        self.decisions: dict[int, Row] = {}
        #: By seat and opening.
        self.cards: dict[tuple[str, int], Row] = {}
        self._handed: dict[str, int] = {}
        self._waiting: set[str] = set()
        self._openings: dict[str, int] = {}
        self._open: set[str] = set()
        self._superseded: dict[int, Row] = {}

    def take(self, record: Recorded) -> None:
        """Fold one event of CONTROL, if it is one of these."""
        _, noun, id_, event = record.subject.split(".")
        match noun:
            case "finding":
                self._finding(id_, record)
            case "ops":
                self._action(id_, event, record)
            case "sweep":
                self._sweep(id_, record)
            case "decision":
                self._decision(record)
            case "card":
                self._card(id_, record)
            case _:
                pass

    def _finding(self, id_: str, record: Recorded) -> None:
        data = record.data
        if isinstance(data, finding.Opened) and id_ not in self._open:
            self._openings[id_] = self._openings.get(id_, 0) + 1
            self._open.add(id_)
        now = self._openings.get(id_, 0)
        if id_ in self._open:
            row = self._opening(id_, now, record.seq)
        elif isinstance(data, finding.Raised):
            row = self._opening(id_, now + 1, record.seq)
        else:
            return
        at = plain(record.stored_at)
        row["last_seq"] = record.seq
        match data:
            case finding.Opened():
                if row["opened_seq"] is None:
                    row |= {"state": "open", "opened_at": at, "opened_seq": record.seq}
                row |= {"kind": data.kind.value, "subject": data.subject, "since": plain(data.since)}
                row |= {"found_by": data.by, "sweep": data.sweep} | _told(data)
            case finding.Changed():
                row |= {"changed_at": at, "changed_seq": record.seq, "was": data.was} | _told(data)
                row["changes"] += 1
            case finding.Closed():
                self._open.remove(id_)
                row |= {"state": "closed", "closed_at": at, "closed_seq": record.seq, "closed_by": data.by}
                row |= {"closed_because": data.reason.value, "closed_why": data.why, "open_s": data.open_s}
                row |= _SPEAKS
            case finding.Silenced():
                row |= {"silenced_by": data.owner, "silenced_why": data.reason, "silenced_until": plain(data.until)}
            case finding.Unsilenced():
                row |= _SPEAKS
            case finding.Proposed():
                row |= {"triage": data.invocation, "triage_summary": data.summary, "triage_problem": data.problem}
                row |= {"proposals": _json(data.proposals), "proposed_at": at, "proposed_seq": record.seq}
            case finding.Raised():
                row["raised"] += 1

    def _opening(self, id_: str, opening: int, seq: int) -> Row:
        fresh = dict.fromkeys(_UNTOLD) | _SPEAKS | {"fingerprint": id_, "opening": opening, "state": "raised"}
        return self.findings.setdefault((id_, opening), fresh | {"raised": 0, "changes": 0, "first_seq": seq})

    def _action(self, id_: str, event: str, record: Recorded) -> None:
        fresh = dict.fromkeys(_NOT_DONE) | {"id": id_, "first_seq": record.seq}
        row = self.actions.setdefault(id_, fresh)
        row |= {"state": event, "last_seq": record.seq}
        row |= {f"{event}_at": plain(record.stored_at), f"{event}_seq": record.seq}
        match record.data:
            case ops.Requested(action=action, target=target, who=who, why=why, decision=number):
                row |= {"action": action, "target": target, "who": who, "why": why, "decision": number or None}
            case ops.Refused(reason=reason, command=command):
                row |= {"refused_because": reason, "command": command}
            case ops.Started(limit_s=limit_s, lock=lock):
                row |= {"limit_s": limit_s, "lock": lock}
            case ops.Finished(ok=ok, took_s=took_s, evidence=evidence):
                row |= {"ok": ok, "took_s": took_s, "evidence": bytes(evidence).decode()}

    def _sweep(self, id_: str, record: Recorded) -> None:
        data, at = record.data, plain(record.stored_at)
        row = self.sweeps.setdefault(id_, dict.fromkeys(_NOT_SWEPT) | {"id": id_, "first_seq": record.seq})
        row |= {"trigger": data.trigger.value, "why": data.why, "last_seq": record.seq}
        if isinstance(data, sweep.Started):
            row |= {"started_at": at, "started_seq": record.seq}
            return
        assert isinstance(data, sweep.Finished)
        row |= msgspec.structs.asdict(data.counts)
        row |= {"verdict": data.verdict.value, "took_ms": data.took_ms, "next_at": plain(data.next_at)}
        row |= {"unseen": list(data.unseen), "findings": list(data.findings), "positions": _json(data.positions)}
        row |= {"finished_at": at, "finished_seq": record.seq}

    def _decision(self, record: Recorded) -> None:
        data = record.data
        assert isinstance(data, decision.Recorded)
        self.decisions[record.seq] = {
            "number": data.number,
            "title": data.title,
            "decided_by": data.by,
            "context": data.context,
            "decision": data.decision,
            "consequences": data.consequences,
            "supersedes": data.supersedes or None,
            "superseded_by": None,
            "decided_at": plain(record.stored_at),
            "seq": record.seq,
            "superseded_seq": None,
        }
        if data.supersedes:
            self._superseded[data.supersedes] = {"superseded_by": data.number, "superseded_seq": record.seq}
        for row in self.decisions.values():
            row.update(self._superseded.get(row["number"], {}))

    def _card(self, seat: str, record: Recorded) -> None:
        data, at = record.data, plain(record.stored_at)
        if isinstance(data, card.Opened):
            if seat not in self._waiting:
                self._waiting.add(seat)
                self._handed[seat] = self._handed.get(seat, 0) + 1
                self.cards[seat, self._handed[seat]] = dict.fromkeys(_NOT_OVER) | {
                    "seat": seat,
                    "opening": self._handed[seat],
                    "state": "open",
                    "opened_at": at,
                    "first_seq": record.seq,
                }
            row = self.cards[seat, self._handed[seat]]
            row |= {"instance": data.instance, "host": data.host, "reason": data.reason.value, "why": data.why}
            row |= {"command": data.command, "since": plain(data.since), "pid": data.pid or None}
            row |= {"boot_id": data.boot_id, "handed_by": data.by, "operation": data.operation}
            row["last_seq"] = record.seq
        elif seat in self._waiting:
            assert isinstance(data, card.Closed)
            self._waiting.remove(seat)
            row = self.cards[seat, self._handed[seat]]
            row |= {"state": "closed", "closed_because": data.reason.value, "closed_by": data.boot_id}
            row |= {"waited_s": data.waited_s, "closed_at": at, "closed_seq": record.seq, "last_seq": record.seq}


def _told(data: finding.Opened | finding.Changed) -> Row:
    """What each telling says anew."""
    return {
        "severity": data.severity.value,
        "title": data.title,
        "detail": data.detail,
        "value": data.value,
        "command": data.command,
        "cause": data.cause,
        "evidence": _json(data.evidence),
    }


_SPEAKS: Row = {"silenced_by": "", "silenced_why": "", "silenced_until": None}
_UNTOLD = (
    *("kind", "severity", "subject", "title", "detail", "since", "value", "was", "command", "cause", "evidence"),
    *("found_by", "sweep", "triage", "triage_summary", "triage_problem", "proposals", "proposed_at", "proposed_seq"),
    *("opened_at", "opened_seq", "changed_at", "changed_seq"),
    *("closed_because", "closed_by", "closed_why", "open_s", "closed_at", "closed_seq"),
)
_NOT_DONE = (
    *("action", "target", "who", "why", "decision", "refused_because", "command", "lock", "limit_s", "ok", "took_s"),
    *("evidence", "requested_at", "requested_seq", "refused_at", "refused_seq"),
    *("started_at", "started_seq", "finished_at", "finished_seq"),
)
_NOT_OVER = ("closed_because", "closed_by", "waited_s", "closed_at", "closed_seq")
_NOT_SWEPT = (
    *("verdict", *sweep.Counts.__struct_fields__, "unseen", "findings", "positions", "took_ms", "next_at"),
    *("started_at", "started_seq", "finished_at", "finished_seq"),
)
