"""The incident commands against a bus on which nobody runs: no warden is needed to handle an incident."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow, pytest.mark.soak]


async def test_incident_is_handled_from_its_declaration_to_its_post_mortem(bare: Any, tmp_path: Path) -> None:
    """Each command says what is so afterwards, exit codes tell scripts who is needed, and what does not fit is refused in words."""
    assert (await bare("apply", "--fleet", str(bare.home.parent / "fleet.toml"))).status == 0
    empty = await bare("incident", "ls")
    assert (empty.status, empty.out) == (0, "no incident is open\n")
    opened = await bare("incident", "declare", "the shop smells of gas", "--project", "shop")
    assert (opened.status, opened.out) == (0, "incident 1 is open (ultra)\n")
    unknown = await bare("incident", "declare", "x", "--project", "shpo")
    assert unknown.status == 64
    assert "unknown project 'shpo', did you mean 'shop'?" in unknown.err
    assert (await bare("incident", "ls")).status == 2, "an ultra that nobody has"
    taken = await bare("incident", "ack", "1", "--for", "2h", "--output", "json")
    assert (taken.json["owner"], taken.json["status"]) == ("ann", "acknowledged")
    second = await bare("incident", "ack", "1", env={"SYSTEMS_ACTOR": "bob"})
    assert second.status == 1
    assert "ann has it since" in second.err
    assert "systems incident ack 1 --take" in second.err
    assert (await bare("incident", "ls")).status == 1, "somebody has it"
    assert "told shop" in (await bare("incident", "update", "1", "we air it", "--for-project", "shop=do not smoke")).out
    for arguments, said in (
        (["assign", "1", "bob"], "bob is in command of incident 1"),
        (["note", "1", "it began in the kitchen"], "noted in incident 1"),
        (["severity", "1", "concern", "--why", "it is aired"], "incident 1 is concern"),
        (["mitigate", "1", "--text", "the tap is closed"], "incident 1 is mitigated"),
    ):
        done = await bare("incident", *arguments)
        assert (done.status, done.out) == (0, f"{said}\n"), done.err
    agent = await bare("incident", "close", "1", "--cause", "x", env={"SYSTEMS_PARENT": "some-work"})
    assert agent.status == 1
    assert "expected a person to close an incident, got: agent/some-work" in agent.err
    closed = await bare("incident", "close", "1", "--cause", "a tap was open", "--action", "bob=close taps at night")
    assert closed.status == 0, closed.err
    told = (await bare("incident", "show", "1", "--output", "json")).json
    assert told["incident"]["actions"] == [{"text": "close taps at night", "owner": "bob"}]
    assert [line["subject"].removeprefix("incident ") for line in told["timeline"]] == [
        "declared", "acknowledged", "updated", "assigned", "noted", "severity_changed", "mitigated", "closed",
    ]  # fmt: skip
    file = tmp_path / "post-mortem.md"
    assert (await bare("incident", "export", "1", "--file", str(file))).status == 0
    assert "- [ ] close taps at night (bob)" in file.read_text()
    assert "Not known: no projector answers." in file.read_text()
    assert (await bare("incident", "reopen", "1", "--why", "it smells again")).status == 0
