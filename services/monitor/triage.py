"""A new finding may be handed to a role's agent: it gets the evidence, and its answer is a validated list of proposed actions.

The role is asked like any other, under a key that names the finding's opening, so that a restart asks nobody twice. What comes
back is data from a language model: anything but the expected structure is a problem on the record and proposes nothing. What is
on the list of ``[monitor] allow`` is handed to whoever carries actions out; all else waits for a person.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from fnmatch import fnmatchcase

import msgspec
import structlog

from bus import errors
from bus.events import finding as ev
from bus.events import invocation
from bus.ids import key_id
from bus.invocation import Status
from bus.store import INVOCATIONS, Recorded
from bus.subjects import Ref, parse_role
from services.daemon import Bus
from services.fleet.registry import Registry
from services.monitor.finding import Finding
from services.monitor.ledger import Ledger
from services.monitor.memory import Known
from services.requests.requests import Ask, RequestRefused, Requests

log = structlog.get_logger()

#: Proposals of one answer, and characters of each text.
_MOST, _LENGTH = 10, 500
#: Seconds between two looks whether an answer is there.
_LOOK_S = 1.0
#: What carries an allowed proposal out; what it did is its own event.
Carry = Callable[[ev.Proposal, str], Awaitable[None]]


class _Proposal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    action: str
    target: str
    why: str = ""


class _Text(msgspec.Struct, frozen=True):
    text: str


class Answer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a triage must answer."""

    summary: str
    actions: list[_Proposal] = []


def read(raw: bytes, invocation_id: str, allow: tuple[str, ...]) -> ev.Proposed:
    """A triage's output as what it proposes; of one that is none, the problem. Pure."""
    try:
        answer = msgspec.json.decode(_said(raw), type=Answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        problem = (
            'expected {"summary": "…", "actions": [{"action": "restart", "target": "warden", "why": "…"}]}, '
            f"got: {raw[:80].decode(errors='replace')} ({exc})"
        )
        return ev.Proposed(invocation=invocation_id, problem=problem)
    proposals = tuple(
        ev.Proposal(
            action=one.action[:_LENGTH],
            target=one.target[:_LENGTH],
            why=one.why[:_LENGTH],
            allowed=is_allowed(one.action, one.target, allow),
        )
        for one in answer.actions[:_MOST]
    )
    return ev.Proposed(invocation=invocation_id, summary=answer.summary[: 4 * _LENGTH], proposals=proposals)


def _said(raw: bytes) -> bytes:
    """A language model answers with text, which holds the JSON, perhaps between fences; others answer with the JSON itself."""
    try:
        text = msgspec.json.decode(raw, type=_Text).text.strip()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return raw
    return text.removeprefix("```json").removeprefix("```").removesuffix("```").encode()


def is_allowed(action: str, target: str, allow: tuple[str, ...]) -> bool:
    """Whether an action on a target is on the list, whose entries are ``ACTION TARGET`` with ``*`` for any. Pure."""
    pairs = (entry.split() for entry in allow)
    return any(len(pair) == 2 and action == pair[0] and fnmatchcase(target, pair[1]) for pair in pairs)


class Triage:
    """Asks, and reads the answers."""

    def __init__(
        self, bus: Bus, registry: Registry, requests: Requests, ledger: Ledger, carry: Carry | None = None
    ) -> None:
        self._bus = bus
        self._registry = registry
        self._requests = requests
        self._ledger = ledger
        #: None: nothing is carried out, and every proposal waits for a person.
        self._carry = carry
        #: Invocations whose answer is waited for: id -> the finding's fingerprint.
        self._waiting: dict[str, tuple[Ref, str]] = {}

    async def heed(self, known: tuple[Known, ...], news: tuple[str, ...]) -> None:
        """Hand over what is new or worse; a role that is not there, or is refused, is logged and asked nothing."""
        role = self._registry.monitor.triage
        if not role:
            return
        for one in known:
            finding = one.finding
            if finding.fingerprint not in news or not one.speaks or finding.subject == role:
                continue  # a triage that fails is not asked about itself
            try:
                accepted = await self._requests.submit(self._ask(role, finding))
            except (errors.UnknownName, RequestRefused, errors.Conflict) as exc:
                log.error("triage_refused", role=role, fingerprint=finding.fingerprint, error=str(exc))
                return
            self._waiting[accepted.id] = (Ref(*parse_role(role), accepted.id), finding.fingerprint)

    def _ask(self, role: str, finding: Finding) -> Ask:
        body = {"finding": finding, "fingerprint": finding.fingerprint, "allow": self._registry.monitor.allow}
        key = f"triage {finding.fingerprint} {finding.since.isoformat()} {finding.severity.value}"
        return Ask(role=role, input=msgspec.Raw(msgspec.json.encode(body)), idempotency_key=key, actor="monitor")

    async def recall(self) -> None:
        """Wait for the answers again that were under way when the warden ended.

        Raises:
            BusError: the server does not say.
        """
        role = self._registry.monitor.triage
        for print_, known in self._ledger.known.items() if role else ():
            if print_ not in self._ledger.proposed:
                ref = self._requests.ref(self._ask(role, known.finding))
                if await self._bus.store.last(INVOCATIONS, ref.all) is not None:
                    self._waiting[ref.id] = (ref, print_)

    async def run(self) -> None:
        """Read answers as they come, for ever."""
        while True:
            await asyncio.sleep(_LOOK_S)
            for id_, (ref, print_) in list(self._waiting.items()):
                try:
                    if await self._read(ref, print_):
                        del self._waiting[id_]
                except errors.BusError as exc:
                    log.warning("triage_unread", invocation=id_, error=str(exc))

    async def _read(self, ref: Ref, print_: str) -> bool:
        """Whether the triage has ended."""
        last = await self._bus.store.last(INVOCATIONS, ref.all)
        if last is None or not _ended(last):
            return False
        if isinstance(last.data, invocation.Completed):
            output = bytes(last.data.output)
            if last.data.output_ref is not None:
                output = await self._bus.artifacts.get(last.data.output_ref)
            proposed = read(output, ref.id, self._registry.monitor.allow)
        else:
            proposed = ev.Proposed(invocation=ref.id, problem=f"the triage ended as {last.subject.split('.')[4]}")
        event_id = key_id("finding.proposed", ref.id)
        await self._bus.store.append(self._bus.author.control(print_, proposed, event_id=event_id))
        await self._ledger.catch_up()
        for proposal in proposed.proposals:
            if proposal.allowed and self._carry is not None:
                await self._carry(proposal, print_)
        return True


def _ended(last: Recorded) -> bool:
    name = last.subject.split(".")[4]
    return name in {Status.COMPLETED.value, Status.CANCELLED.value, Status.DEAD_LETTERED.value, Status.DISCARDED.value}
