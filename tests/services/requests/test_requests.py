"""The one door for requests: what is accepted is in the log, and what is refused is told in a sentence."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from bus import errors
from bus.events import invocation as ev
from bus.subjects import Ref
from services.requests import requests
from services.requests.requests import Ask, Asker, RequestRefused, Requests
from tests.services.rig import Rig


async def echo(input: Any) -> Any:
    """A handler that gives back what it gets."""
    return input


async def test_requests_accept_what_is_in_the_log(rig: Rig) -> None:
    """The answer names the sequence of the event that accepted the request, with its own root."""
    await rig.role("shop/coder", echo)
    accepted = await rig.ask("shop/coder", {"a": 1}, actor="ann")
    record = await rig.story.event(accepted.id, "requested")
    assert (record.seq, record.data.root, record.data.depth) == (accepted.seq, accepted.id, 0)
    assert bytes(record.data.input) == b'{"a":1}'
    assert record.event is not None
    assert record.event.actor == "ann"
    assert not accepted.deduplicated


async def test_requests_with_one_key_are_one_invocation(rig: Rig) -> None:
    """Of many requests with the same key at once one is accepted; all get its id. The key belongs to its role."""
    await rig.role("shop/coder", echo)
    await rig.role("shop/other", echo)
    answers = await asyncio.gather(*(rig.ask("shop/coder", n, idempotency_key="k") for n in range(20)))
    assert len({a.id for a in answers}) == 1
    assert [a.deduplicated for a in answers].count(False) == 1
    assert len({a.seq for a in answers}) == 1
    other = await rig.ask("shop/other", 1, idempotency_key="k")
    assert other.id != answers[0].id
    await rig.runner()
    await rig.story.event(other.id, "completed")
    await rig.story.event(answers[0].id, "completed")
    late = await rig.ask("shop/coder", 99, idempotency_key="k")
    assert (late.id, late.deduplicated, late.seq) == (answers[0].id, True, answers[0].seq)
    assert rig.story.events[late.id].count("requested") == 1


async def test_requests_for_later_are_scheduled(rig: Rig) -> None:
    """A request that is due later is in the log as scheduled, and the server has its time."""
    await rig.role("shop/coder", echo)
    due = rig.bus.author.now() + timedelta(hours=1)
    accepted = await rig.ask("shop/coder", 1, due=due)
    record = await rig.story.event(accepted.id, "scheduled")
    assert record.data.due == due
    assert await rig.bus.schedules.pattern(requests.delayed(Ref("shop", "coder", accepted.id))) is not None
    past = await rig.ask("shop/coder", 1, due=rig.bus.author.now() - timedelta(hours=1))
    await rig.story.event(past.id, "requested")


@pytest.mark.parametrize(
    ("role", "input", "error", "sentence"),
    [
        ("shop/codr", {}, errors.UnknownName, "unknown role 'shop/codr', did you mean 'shop/coder'?"),
        ("shop", {}, errors.BadSubject, "PROJECT/ROLE"),
        ("shop/coder/x", {}, errors.BadSubject, "PROJECT/ROLE"),
        ("Shop/coder", {}, errors.BadSubject, "PROJECT/ROLE"),
        ("shop/coder", [1], errors.BusError, "expected $ of the input to be of type object"),
        ("shop/coder", {"n": "x"}, errors.BusError, "expected $.n of the input"),
    ],
)
async def test_requests_refuse_in_a_sentence(
    rig: Rig, role: str, input: Any, error: type[Exception], sentence: str
) -> None:
    """A refused request leaves nothing in the log, and says what was expected."""
    await rig.role("shop/coder", echo, input_schema={"type": "object", "properties": {"n": {"type": "integer"}}})
    with pytest.raises(error) as caught:
        await rig.ask(role, input)
    assert sentence in str(caught.value)
    assert (await rig.connection.api("STREAM.INFO.INVOCATIONS"))["state"]["messages"] == 0


async def test_requests_refuse_what_is_too_large(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """An input over the limit is refused with the limit and what to do."""
    await rig.role("shop/coder", echo)
    monkeypatch.setattr(requests, "INPUT_LIMIT", 1000)
    with pytest.raises(RequestRefused, match=r"at most 1,000 bytes, got: 2,002; store the bulk elsewhere"):
        await rig.ask("shop/coder", "x" * 2000)


@pytest.mark.parametrize(
    ("asks", "asked", "allowed"),
    [
        (None, "shop/tester", True),
        (None, "ledger/books", False),
        (("ledger/books",), "ledger/books", True),
        (("ledger/books",), "shop/tester", False),
        (("ledger/*",), "ledger/books", True),
        ((), "shop/tester", False),
    ],
)
async def test_requests_check_who_asks_whom(rig: Rig, asks: tuple[str, ...] | None, asked: str, allowed: bool) -> None:
    """A role asks its own project, or what its `asks` names, and nobody else."""
    await rig.role("shop/coder", echo, asks=asks)
    await rig.role("shop/tester", echo)
    await rig.role("ledger/books", echo)
    asker = Asker(ref=Ref("shop", "coder", "parent"), root="root", depth=3)
    if allowed:
        accepted = await rig.ask(asked, asker=asker)
        requested = (await rig.story.event(accepted.id, "requested")).data
        assert (requested.parent, requested.root, requested.depth) == ("parent", "root", 4)
    else:
        with pytest.raises(RequestRefused, match=f"shop/coder may not ask {asked}.*add it to `asks`"):
            await rig.ask(asked, asker=asker)


async def test_requests_draft_for_somebody_elses_batch(rig: Rig) -> None:
    """A draft is checked and fenced, and nothing is written by it."""
    await rig.role("shop/coder", echo)
    doors: Requests = rig.requests
    draft = await doors.draft(Ask(role="shop/coder", input=msgspec.Raw(b"1")))
    assert (draft.expect, draft.event.subject.rsplit(".", 1)[1]) == (0, "requested")
    assert isinstance(draft.event.data, ev.Requested)
    assert (await rig.connection.api("STREAM.INFO.INVOCATIONS"))["state"]["messages"] == 0
