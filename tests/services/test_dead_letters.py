"""The backlog of dead letters, on a real server: nothing is lost or done twice, whatever stops in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus import errors, ids, plan
from bus.author import Author
from bus.context import Context
from bus.events import invocation as ev
from bus.invocation import Claim, Fail, Limits, Redrive, Status
from bus.server import EmbeddedServer
from bus.store import DEAD_LETTERS
from bus.subjects import Ref
from bus.topology import Topology, streams
from services.daemon import Bus, open_bus
from services.dead_letters import DeadLetters, Did, Filter, Letter, matches, subject_of
from services.fleet import spec
from services.fleet.registry import RegisteredRole, Registry
from services.warden.graves import copy_of

_NOW = datetime(2030, 1, 1, tzinfo=UTC)
_ROLE = spec.Role(handler=spec.TraceHandler())


@pytest.fixture
async def bus(server: EmbeddedServer) -> AsyncIterator[Bus]:
    """An operator's bus with all its streams."""
    opened = await open_bus(Context(url=server.url), "test", Author("/operator/ann", actor="ann"))
    declared = Topology(streams=streams())
    await plan.apply(opened.connection, declared, await plan.plan(opened.connection, declared))
    yield opened
    await opened.close()


@pytest.fixture
def dead(bus: Bus) -> DeadLetters:
    """Its dead letters, with one registered role."""
    registry = Registry(bus.bucket("registry"))
    registry.roles["shop", "coder"] = RegisteredRole(
        project="shop", name="coder", role=_ROLE, revision=1, limits=_ROLE.limits
    )
    return DeadLetters(bus, registry)


async def _die(bus: Bus, ref: Ref, *, request: bool = True, kind: str = "RuntimeError") -> None:
    """Bring an invocation to its death, and keep its copy as the warden does."""
    if request:
        await bus.store.append(bus.author.invocation(ref, ev.Requested()))
    await bus.invocations.carry_out(ref, Claim(holder="h", runner="r", delivery=1, reply="x"), Limits())
    error = ev.Error(kind=kind, message="no", fingerprint=f"f-{kind}", permanent=True)
    await bus.invocations.carry_out(ref, Fail(holder="h", delivery=1, error=error, retry_at=_NOW), Limits())
    kept = copy_of(ref, await bus.store.history(ref))
    assert kept is not None
    await bus.store.append(bus.author.stamp(ref.dead_letter, kept))


async def _letters(dead: DeadLetters, wanted: Filter = Filter()) -> list[Letter]:  # noqa: B008 (frozen)
    return [letter async for letter in dead.select(wanted, datetime.now(UTC))]


async def _names(bus: Bus, ref: Ref) -> list[str]:
    return [record.subject.rpartition(".")[2] for record in await bus.store.history(ref)]


def _ref(role: str = "coder") -> Ref:
    return Ref("shop", role, ids.new_id())


async def test_redrive_appends_first_and_removes_the_copy(bus: Bus, dead: DeadLetters) -> None:
    """A redrive writes who and why with a fresh request in one batch, and then the backlog is empty."""
    ref = _ref()
    await _die(bus, ref)
    (letter,) = await _letters(dead)
    outcome = await dead.redrive(letter, "repaired", "ann")
    assert outcome.did is Did.REDRIVEN
    assert (await _names(bus, ref))[-2:] == ["redriven", "requested"]
    redriven = (await bus.store.history(ref))[-2]
    assert redriven.event is not None
    assert (redriven.event.actor, redriven.data.reason) == ("ann", "repaired")
    assert await _letters(dead) == []


async def test_redrive_after_a_crash_in_between_only_removes_the_copy(bus: Bus, dead: DeadLetters) -> None:
    """When the events were written and the copy was left over, doing it again does not redrive a second time."""
    ref = _ref()
    await _die(bus, ref)
    (letter,) = await _letters(dead)
    await bus.invocations.carry_out(ref, Redrive(reason="repaired"), Limits())
    before = await _names(bus, ref)
    outcome = await dead.redrive(letter, "repaired", "ann")
    assert outcome.did is Did.COPY_REMOVED
    assert await _names(bus, ref) == before
    assert await _letters(dead) == []


async def test_two_people_redrive_once(bus: Bus, dead: DeadLetters) -> None:
    """Of many who redrive the same letter at the same time the fence lets one in."""
    ref = _ref()
    await _die(bus, ref)
    (letter,) = await _letters(dead)
    outcomes = await asyncio.gather(*(dead.redrive(letter, "repaired", f"p{n}") for n in range(5)))
    assert sorted(outcome.did for outcome in outcomes) == sorted([Did.REDRIVEN] + [Did.COPY_REMOVED] * 4)
    assert (await _names(bus, ref)).count("redriven") == 1


async def test_letter_of_an_older_death_is_skipped(bus: Bus, dead: DeadLetters) -> None:
    """A letter listed before the invocation died again is skipped, and the copy of its newer death stays."""
    ref = _ref()
    await _die(bus, ref)
    (old,) = await _letters(dead)
    await dead.redrive(old, "repaired", "ann")
    await _die(bus, ref, request=False)
    outcome = await dead.redrive(old, "repaired", "ann")
    assert outcome.did is Did.SKIPPED
    assert "died again" in outcome.why
    (new,) = await _letters(dead)
    assert (new.redrives, new.attempts) == (1, 2)


async def test_role_that_is_gone_is_not_redriven(bus: Bus, dead: DeadLetters) -> None:
    """Nothing is sent back to a role that nobody works for; it can still be discarded."""
    ref = _ref("gone")
    await _die(bus, ref)
    (letter,) = await _letters(dead)
    outcome = await dead.redrive(letter, "repaired", "ann")
    assert (outcome.did, "not registered" in outcome.why) == (Did.SKIPPED, True)
    assert (await dead.discard(letter, "gone", "ann")).did is Did.DISCARDED
    state = await bus.store.state(ref)
    assert state is not None
    assert state.status is Status.DISCARDED
    assert await _letters(dead) == []


async def test_removal_is_fenced_on_the_sequence(bus: Bus, dead: DeadLetters) -> None:
    """Removing a copy that was replaced meanwhile removes nothing."""
    ref = _ref()
    await _die(bus, ref)
    (letter,) = await _letters(dead)
    kept = copy_of(ref, await bus.store.history(ref))
    assert kept is not None
    await bus.store.append(bus.author.stamp(ref.dead_letter, kept))
    assert not await dead.remove(letter.seq)
    (present,) = await _letters(dead)
    assert present.seq > letter.seq
    assert await dead.remove_of(ref)
    assert not await dead.remove_of(ref)


async def test_filter_chooses_and_rubbish_is_stepped_over(bus: Bus, dead: DeadLetters) -> None:
    """Role, fingerprint and limit choose among the copies; what is no dead letter is not listed."""
    refs = [_ref(), _ref("other"), _ref()]
    for ref, kind in zip(refs, ("A", "A", "B"), strict=True):
        await _die(bus, ref, kind=kind)
    await bus.publisher.publish(f"dlq.shop.coder.{ids.new_id()}", b"rubbish")
    assert [letter.id for letter in await _letters(dead)] == [ref.id for ref in refs]
    assert len(await _letters(dead, Filter(role="shop/coder"))) == 2
    assert len(await _letters(dead, Filter(role="shop/*", fingerprint="f-A"))) == 2
    assert [letter.id for letter in await _letters(dead, Filter(limit=1))] == [refs[0].id]
    assert await _letters(dead, Filter(older_than_s=3600)) == []
    whole = await dead.get(refs[0].id)
    assert whole.data.invocation == refs[0].id
    with pytest.raises(errors.UnknownName):
        await dead.get(ids.new_id())
    assert await bus.store.last(DEAD_LETTERS, "dlq.>") is not None


_NAMES = st.sampled_from(["shop", "ledger", "coder", "report"])
_LETTERS = st.builds(
    Letter,
    seq=st.just(1),
    id=st.just("x"),
    project=_NAMES,
    role=_NAMES,
    died_at=st.integers(0, 10_000).map(lambda age: _NOW - timedelta(seconds=age)),
    died_seq=st.just(1),
    reason=st.just("attempts_spent"),
    attempts=st.just(1),
    redrives=st.just(0),
    fingerprint=st.sampled_from(["", "abc", "abd"]),
)
_FILTERS = st.builds(
    Filter,
    role=st.one_of(st.just(""), st.tuples(_NAMES, st.one_of(_NAMES, st.just("*"))).map("/".join)),
    fingerprint=st.sampled_from(["", "ab", "abc"]),
    older_than_s=st.one_of(st.none(), st.floats(0, 10_000)),
)


@given(_FILTERS, _LETTERS)
def test_filter_is_the_conjunction_of_its_parts(wanted: Filter, letter: Letter) -> None:
    """A letter is meant exactly if each part of the filter alone means it; an empty filter means all."""
    parts = [Filter(role=wanted.role), Filter(fingerprint=wanted.fingerprint), Filter(older_than_s=wanted.older_than_s)]
    assert matches(wanted, letter, _NOW) == all(matches(part, letter, _NOW) for part in parts)
    assert matches(Filter(), letter, _NOW)


@given(_FILTERS, _LETTERS)
def test_subject_of_a_filter_misses_nothing(wanted: Filter, letter: Letter) -> None:
    """What a filter means lies on the subjects that are read for it."""
    tokens = subject_of(wanted).split(".")
    on = letter.ref.dead_letter.split(".")
    covered = tokens[1] == ">" or all(t in ("*", o) for t, o in zip(tokens, on, strict=True))
    assert covered or not matches(wanted, letter, _NOW)


@pytest.mark.parametrize("role", ["shop", "shop/", "*/coder", "Shop/coder", "shop/b*"])
def test_filter_refuses_a_role_that_is_none(role: str) -> None:
    """A filter's role is PROJECT/ROLE or PROJECT/*."""
    with pytest.raises(errors.BadSubject):
        subject_of(Filter(role=role))
