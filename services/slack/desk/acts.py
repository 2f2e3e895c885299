"""What changes something: each command's deed in a person's session, by the same functions as the command line's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from bus import errors
from bus.errors import BadAsk
from bus.flags import Mode
from bus.store import INVOCATIONS
from services import freezing
from services.dead_letters import DeadLetters, Did, Letter, Outcome, letter_of
from services.fleet import durations
from services.freezes import Freeze
from services.freezing import HARD_WORD, THAW_WORD
from services.guards import pausing
from services.ops import asked as ops
from services.ops import deciding
from services.ops.deciding import Proposal
from services.ops.operation import Operation
from services.ops.performing import perform
from services.quota import setting
from services.slack.desk import answer, words
from services.slack.desk import blocks as kit
from services.slack.desk.answer import Answer
from services.slack.desk.desk import Session
from services.slack.desk.looks import chosen
from services.slack.desk.words import Said
from services.wording import age

Act = Callable[[Session, Said], Awaitable[Answer]]

#: The daemon that this runs in, which does not restart itself.
MIRROR = "slack_mirror"
#: Dead letters that one command acts on: more are for the command line, which counts, asks and can be stopped.
MOST = 200
#: Outcomes that are told one by one.
_TOLD = 10


async def freeze(session: Session, said: Said) -> Answer:
    """A soft freeze."""
    for_s = freezing.period(said.option("for"), hard=False)
    stands = await freezing.throw(session.bus, reason=said.reason, by=session.actor, for_s=for_s)
    return _frozen(stands, session)


async def freeze_hard(session: Session, said: Said) -> Answer:
    """A hard freeze, with its typed word."""
    confirmed(said, HARD_WORD, "freeze")
    return _frozen(await freezing.throw(session.bus, reason=said.reason, by=session.actor, hard=True), session)


def _frozen(stands: Freeze, session: Session) -> Answer:
    if not stands.on_server:
        return answer.refused(
            f"{stands.told}\nno warden has confirmed it: every client of ours refuses, a raw publish would still be taken; "
            "see systems status"
        )
    if stands.missing or stands.writes:
        return answer.refused(stands.told)
    return answer.done(stands.told, session.actor)


async def thaw(session: Session, said: Said) -> Answer:
    """The end of a soft freeze."""
    stood = await freezing.switch(session.bus)
    if stood.mode is Mode.HARD:
        reason = stood.reason or stood.text
        raise errors.Conflict(
            f"expected a soft freeze, got: a hard one ({reason}, by {stood.by or 'somebody'}), which this login cannot clear; a "
            f"person can: systems thaw --hard --reason TEXT, or, with the permission 'hard', /systems thaw hard REASON --confirm {THAW_WORD}"
        )
    return await _thawed(session, said, hard=False)


async def thaw_hard(session: Session, said: Said) -> Answer:
    """The end of a hard freeze, with its typed word."""
    confirmed(said, THAW_WORD, "thaw")
    return await _thawed(session, said, hard=True)


async def _thawed(session: Session, said: Said, *, hard: bool) -> Answer:
    done = await freezing.thaw(session.bus, reason=said.reason, by=session.actor, hard=hard, ramp=_ramp(said))
    if done.was_clear:
        return answer.said("it was clear already")
    if done.stands.mode is not Mode.CLEAR:
        return answer.refused(f"frozen again before the thaw was over ({done.stands.reason or done.stands.text})")
    return answer.done(done.stands.told, session.actor)


def confirmed(said: Said, word: str, what: str) -> None:
    """Have the word typed.

    Raises:
        BadAsk: another one was, or none.
    """
    if said.option("confirm") != word:
        got = said.option("confirm") or "none"
        soft = f"; a soft {what} whose reason begins with hard is written --reason hard …"
        raise BadAsk(f"expected the typed word of a hard {what}, --confirm {word}, got: {got}{soft}; nothing was done")


def _ramp(said: Said) -> float | None:
    text = said.option("ramp")
    try:
        return freezing.ramp_of(float(text)) if text else None
    except ValueError as exc:
        raise BadAsk(f"expected --ramp to be a number of invocations a second, got: {text!r}") from exc


async def pause(session: Session, said: Said) -> Answer:
    """No more work of a role is handed out."""
    for_s = durations.seconds(said.option("for")) if said.option("for") else 0.0
    refusal = await pausing.pause(
        session.bus, session.registry, said.word(0), reason=said.reason, by=session.actor, for_s=for_s
    )
    return answer.done(refusal.sentence, session.actor)


async def resume(session: Session, said: Said) -> Answer:
    """A paused role goes on."""
    if not await pausing.resume(session.bus, said.word(0), reason=said.reason, by=session.actor):
        return answer.said(f"{said.word(0)} is not paused")
    return answer.done(f"{said.word(0)} goes on", session.actor)


async def restart(session: Session, said: Said) -> Answer:
    """A daemon begins anew."""
    daemon = said.word(0)
    done = await ops.restart(
        session.bus, session.home, session.registry, daemon, who=session.actor, why=said.reason, within=MIRROR
    )
    evidence = _evidence(done)
    after, took = evidence.get("after", {}), age(evidence.get("alive_after_s"))
    return answer.done(f"{daemon} is alive after {took}: pid {after.get('pid')}", session.actor)


async def reload(session: Session, said: Said) -> Answer:
    """The fleet file comes into effect."""
    file = ops.file_of(session.registry)
    done = await ops.reload(session.bus, file, who=session.actor, why=said.reason, exact="exactly" in said.flags)
    evidence = _evidence(done)
    count = evidence["changes"]
    lines = [f"{file}: revision {evidence['revision']}, {count} setting{'' if count == 1 else 's'} changed"]
    lines += [
        f"{name} runs with it after {age(seconds)}" if seconds is not None else f"{name} has not said yet that it does"
        for name, seconds in evidence["taken_up_after_s"].items()
    ]
    if evidence["at_next_start"]:
        lines.append(f"{', '.join(evidence['at_next_start'])}: in effect after the next start of the launcher")
    return answer.done("\n".join(lines), session.actor)


def _evidence(done: Operation) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(done.evidence) if done.evidence is not None else {}
    return found


async def quota_set(session: Session, said: Said) -> Answer:
    """A cap."""
    wanted = setting.Wanted(
        scope=said.word(0),
        cap=said.word(1),
        window=said.word(2),
        unit=said.option("unit"),
        reason=said.reason,
        until=said.option("until"),
    )
    event = await setting.set_cap(session.bus, session.registry, wanted, session.actor)
    return answer.done(setting.told(setting.scope_token(session.registry, wanted.scope), event), session.actor)


async def quota_raise(session: Session, said: Said) -> Answer:
    """A higher cap."""
    wanted = setting.Wanted(
        scope=said.word(0),
        cap=said.word(1),
        window=said.option("window"),
        unit=said.option("unit"),
        reason=said.reason,
        until=said.option("until"),
    )
    event = await setting.raise_cap(session.bus, session.registry, wanted, session.actor)
    return answer.done(setting.told(setting.scope_token(session.registry, wanted.scope), event), session.actor)


async def redrive(session: Session, said: Said) -> Answer:
    """Dead letters go back to work."""
    dead = DeadLetters(session.bus, session.registry)
    letters = await _letters(session, dead, said)
    outcomes = [await dead.redrive(letter, said.reason, session.actor) for letter in letters]
    return told(outcomes, session.actor)


async def discard(session: Session, said: Said) -> Answer:
    """Dead letters are given up for good."""
    dead = DeadLetters(session.bus, session.registry)
    letters = await _letters(session, dead, said)
    outcomes = [await dead.discard(letter, said.reason, session.actor) for letter in letters]
    return told(outcomes, session.actor)


async def _letters(session: Session, dead: DeadLetters, said: Said) -> list[Letter]:
    """Those that are named by id, or by a filter.

    Raises:
        BadAsk: neither or both are given, or too many would be touched.
    """
    wanted = chosen(said)
    if said.words and not wanted.empty:
        raise BadAsk("expected ids or a filter, got both; give one of them")
    if not said.words and wanted.empty:
        raise BadAsk(f"expected ids, or a filter such as --role shop/coder, got: neither; {words.usage(said.spec)}")
    if said.words:
        found = [await _letter(session, dead, id_) for id_ in dict.fromkeys(said.words)]
        return [letter for letter in found if letter is not None]
    letters = []
    async for letter in dead.select(wanted, datetime.now(UTC)):
        letters.append(letter)
        if len(letters) > MOST:
            raise BadAsk(
                f"expected at most {MOST} dead letters at once, got more; add --limit {MOST}, or run systems dlq {said.spec.name}, "
                "which counts first and can be stopped; nothing was done"
            )
    return letters


async def _letter(session: Session, dead: DeadLetters, id_: str) -> Letter | None:
    """A dead letter.

    Raises:
        UnknownName: there never was an invocation of this id.
        Conflict: it is none any more; says what has happened since.
    """
    try:
        return letter_of(await dead.get(id_))
    except errors.UnknownName:
        ref = await session.bus.store.find(id_) if words.is_id(id_) else None
        last = await session.bus.store.last(INVOCATIONS, ref.all) if ref is not None else None
        if ref is None or last is None:
            raise
        what, by = last.subject.split(".")[4].replace("_", " "), last.event.actor if last.event is not None else ""
        raise errors.Conflict(
            f"expected {id_} to wait as a dead letter, got: {what} at {last.stored_at:%Y-%m-%d %H:%M:%S} UTC"
            + (f" by {by}" if by else "")
        ) from None


def told(outcomes: list[Outcome], by: str) -> Answer:
    """What became of them. Pure."""
    counts = {did: sum(outcome.did is did for outcome in outcomes) for did in Did}
    done = ", ".join(f"{count:,} {did.value.replace('_', ' ')}" for did, count in counts.items() if count)
    skipped = [f"{one.id} skipped: {one.why}" for one in outcomes if one.did is Did.SKIPPED]
    more = [f"and {len(skipped) - _TOLD:,} more"] if len(skipped) > _TOLD else []
    lines = "\n".join([done or "no dead letter fits", *skipped[:_TOLD], *more])
    if not outcomes or counts[Did.SKIPPED] == len(outcomes):
        return answer.refused(lines)
    return answer.done(lines, by)


async def approve(session: Session, meant: Proposal) -> Answer:
    """What a triage proposes is done."""
    done = await deciding.approve(session.bus, session.home, session.registry, meant, who=session.actor, within=MIRROR)
    assert done.operation is not None
    took = age(done.operation.took_s)
    return answer.done(f"{done.proposal.action} of {done.proposal.target} is done after {took}", session.actor)


async def reject(session: Session, meant: Proposal, why: str) -> Answer:
    """What a triage proposes is left."""
    done = await deciding.reject(session.bus, meant, who=session.actor, why=why)
    return answer.done(f"{done.proposal.action} of {done.proposal.target} is rejected: {why}", session.actor)


async def deploy(session: Session, said: Said) -> Answer:
    """A release that is there is rolled out; a wheel is brought by somebody who can see where it comes from."""
    from services.ops import rollout  # noqa: PLC0415 (wheels and environments cost memory that few need)
    from services.release import plan, wheel  # noqa: PLC0415

    name = said.word(0)
    if wheel.is_path(name):
        raise errors.Conflict(
            f"expected a release that `systems releases` lists, or installed, got: the file {name}; a person at the machine can bring "
            "it: systems deploy WHEEL --reason TEXT"
        )
    action = rollout.action(
        session.bus,
        session.home,
        session.registry,
        rollout.known(session.home, name),
        who=session.actor,
        why=said.reason,
        within=MIRROR,
        watch=said.option("watch"),
        again="again" in said.flags,
    )
    if "plan" in said.flags:
        lines = list(plan.lines(await action.plan()))
        return Answer(text=lines[0], blocks=kit.mono(lines))
    evidence = _evidence(await perform(session.bus, action, who=session.actor, why=said.reason))
    left = [
        f"for a person: {one['who']} still runs what it ran before; run: {one['command']}" for one in evidence["left"]
    ]
    return answer.done("\n".join([f"{evidence['release']} is rolled out", *left]), session.actor)


ACTS: dict[str, Act] = {
    "freeze": freeze,
    "freeze hard": freeze_hard,
    "thaw": thaw,
    "thaw hard": thaw_hard,
    "pause": pause,
    "resume": resume,
    "restart": restart,
    "reload": reload,
    "deploy": deploy,
    "quota set": quota_set,
    "quota raise": quota_raise,
    "redrive": redrive,
    "discard": discard,
}
