"""A finding goes to a role's agent, and what comes back is held to its structure and to the list of what is allowed."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bus import plan
from bus.events import finding as ev
from bus.events.invocation import Requested
from bus.events.sweep import Finished
from services.fleet.entries import MONITOR_KEY
from services.fleet.spec import LlmHandler, Monitor, Role
from services.monitor import triage
from services.warden import journal
from tests.services.rig import Rig

ALLOW = ("restart agent_runner-*", "reload *")


@pytest.mark.parametrize(
    ("action", "target", "allowed"),
    [
        ("restart", "agent_runner-2", True),
        ("restart", "warden", False),
        ("reload", "anything", True),
        ("deploy", "agent_runner-1", False),
        ("restart ", "agent_runner-1", False),
    ],
)
def test_only_what_is_listed_is_allowed(action: str, target: str, allowed: bool) -> None:
    """An action is allowed when it and its target are on the list, and by nothing else."""
    assert triage.is_allowed(action, target, ALLOW) is allowed
    assert not triage.is_allowed(action, target, ())


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"restart everything",
        b'{"summary": 1}',
        b'{"actions": []}',
        b'{"summary": "x", "actions": [{"action": "restart"}]}',
        b'{"summary": "x", "actions": [], "sudo": true}',
        b'{"text": "I would restart it."}',
        b"\xff",
    ],
)
def test_answer_that_is_none_proposes_nothing(raw: bytes) -> None:
    """Whatever is not the expected structure, whole and exact, is a problem in words and no proposal."""
    proposed = triage.read(raw, "i", ("* *",))
    assert proposed.proposals == ()
    assert proposed.problem.startswith("expected {")


def test_answer_of_a_model_may_be_text_around_json() -> None:
    """The text of a language model, with or without fences, is read like the JSON in it."""
    inner = '{"summary": "s", "actions": [{"action": "restart", "target": "agent_runner-1", "why": "w"}]}'
    for text in (inner, f"```json\n{inner}\n```"):
        proposed = triage.read(msgspec.json.encode({"text": text, "model": "m"}), "i", ALLOW)
        assert proposed.problem == ""
        assert proposed.proposals == (ev.Proposal(action="restart", target="agent_runner-1", why="w", allowed=True),)


def proposed(rig: Rig) -> list[ev.Proposed]:
    """What triages have proposed."""
    return [r.data for r in rig.control.records if isinstance(r.data, ev.Proposed)]


async def test_new_finding_is_triaged_by_a_model(rig: Rig, llmock: Any) -> None:
    """A raised concern goes to the triage role once, with its evidence; what the model proposes waits for a person in the list."""
    llmock.reply(
        '{"summary": "the shop is slow", "actions": [{"action": "restart", "target": "warden", "why": "try"}]}',
        times=None,
    )
    settings = Monitor(triage="ops/triage", allow=ALLOW, look=0.3)
    await rig.bucket("registry").put(MONITOR_KEY, msgspec.json.encode(settings))
    handler = LlmHandler(model="m", base_url=llmock.base_url("openai"))
    await rig.put("ops/triage", Role(handler=handler))
    shape = journal.declared(rig.registry)
    await plan.apply(rig.connection, shape, await plan.plan(rig.connection, shape))
    await rig.warden()
    await rig.runner()
    await rig.control.until(lambda: any(isinstance(r.data, Finished) for r in rig.control.records))
    body = b'{"severity": "concern", "title": "slow", "detail": "since noon"}'
    answer = await rig.connection.nc.request("monitor.raise", body, timeout=10)
    print_ = msgspec.json.decode(answer.data)["fingerprint"]
    await rig.control.until(lambda: any(print_ in r.subject for r in rig.control.records if r.data in proposed(rig)))
    asked = [
        r.data for r in rig.story.records if isinstance(r.data, Requested) and print_.encode() in bytes(r.data.input)
    ]
    assert len(asked) == 1
    assert b"since noon" in bytes(asked[0].input)
    status = msgspec.json.decode((await rig.connection.nc.request("monitor.status", b"", timeout=10)).data)
    (mine,) = [f for f in status["findings"] if f["fingerprint"] == print_]
    assert mine["proposals"] == ["restart warden (waits for a person): try"]
