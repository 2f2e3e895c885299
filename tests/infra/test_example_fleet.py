"""The example fleet: its file is without fault, and its handlers do what they say."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bus.subjects import Ref
from infra.example import handlers
from services.fleet import file, schema, spec
from services.runner.handler import Context
from services.warden import dues

FOLDER = Path(handlers.__file__).parent


@pytest.fixture(scope="module")
def loaded() -> file.LoadedFleet:
    """The example fleet, read."""
    return file.load(FOLDER / "fleet.toml")


def context(prompt: str) -> Context:
    """What a runner would give to the handlers; they only report progress."""

    async def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("the example asks by follow-ups alone")

    return Context(
        ref=Ref("shop", "reporter", "i1"),
        input=msgspec.Raw(b"null"),
        attempt=1,
        prompt=prompt,
        environment={},
        progress=lambda _: None,
        request=refuse,
        artifact=refuse,
    )


async def review(question: Any) -> tuple[int, list[dict[str, Any]], str]:
    """Run the reviewer as its role does: exit code, lines, stderr."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "reviewer.py",
        cwd=FOLDER,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(child.communicate(json.dumps(question).encode()), 30)
    assert child.returncode is not None
    return child.returncode, [json.loads(line) for line in out.splitlines()], err.decode()


def test_example_has_the_projects_and_roles_that_others_rely_on(loaded: file.LoadedFleet) -> None:
    """Two projects with their channels, a trace role at 200 times the speed, an exec role and one asked by the clock."""
    fleet = loaded.fleet
    assert {name: project.slack_channel for name, project in fleet.projects.items()} == {
        "shop": "#shop-ops",
        "ledger": "#ledger-ops",
    }
    roles = fleet.roles()
    assert roles["shop", "coder"].handler == spec.TraceHandler(speed=200)
    assert roles["shop", "coder"].concurrency == 64
    assert isinstance(roles["shop", "reviewer"].handler, spec.ExecHandler)
    assert dues.server_pattern(roles["shop", "reporter"].schedules["steady"]) == ("*/5 * * * * *", "UTC")
    assert roles["shop", "reviewer"].asks == ("ledger/bookkeeper",)
    assert roles["ledger", "bookkeeper"].asks == ()
    assert roles["ledger", "bookkeeper"].idempotent


async def test_example_chain_leads_from_report_to_review_to_books(loaded: file.LoadedFleet) -> None:
    """What the reporter asks the reviewer takes, and what the reviewer asks fits the bookkeeper's schema and is booked."""
    roles = loaded.fleet.roles()
    scheduled = roles["shop", "reporter"].schedules["steady"].input
    result = handlers.report(scheduled, context(loaded.prompts["review-rules"]))
    (asked,) = result.follow_ups
    assert asked.role == "shop/reviewer"
    code, lines, _ = await review(json.loads(bytes(asked.input)))
    assert code == 0
    (request,) = [line["request"] for line in lines if "request" in line]
    assert request["role"] == "ledger/bookkeeper"
    schema.check_input(roles["ledger", "bookkeeper"], msgspec.json.encode(request["input"]))
    entry = handlers.book(request["input"])
    assert entry["debit"]["usd"] == entry["credit"]["usd"]
    assert [line["result"]["verdict"] for line in lines if "result" in line] == ["approved"]


async def test_example_reviewer_reports_findings_and_use() -> None:
    """A line against a rule is a finding, every rule is a sign of progress, and the use is counted."""
    code, lines, _ = await review({"text": "fine\nTODO: think", "rules": "people read this\nnever TODO: unfinished"})
    assert (code, [next(iter(line)) for line in lines]) == (0, ["progress", "usage", "request", "result"])
    assert lines[-1]["result"] == {"verdict": "changes", "findings": [{"line": 2, "why": "unfinished"}]}
    assert lines[1]["usage"] == {"input_tokens": 3, "output_tokens": 1, "model": "rules"}


@pytest.mark.parametrize("question", [None, {}, {"text": "x", "rules": "never (: bad"}])
async def test_example_reviewer_says_that_bad_input_cannot_be_retried(question: Any) -> None:
    """Input that it cannot read ends in exit code 65 and one sentence."""
    code, lines, err = await review(question)
    assert (code, lines) == (65, [])
    assert err.startswith("expected {")
    assert err.count("\n") == 1


def test_example_books_the_price_of_tokens() -> None:
    """A million tokens each way cost 12.50 dollars, to the micro-dollar."""
    entry = handlers.book({"project": "shop", "for": "x", "input_tokens": 1_000_000, "output_tokens": 1_000_000})
    assert entry["debit"] == {"account": "shop:models", "usd": "12.500000"}


def test_example_can_be_copied_elsewhere(tmp_path: Path) -> None:
    """A copy of the folder loads as the same fleet: nothing in it points outside."""
    shutil.copytree(FOLDER, tmp_path / "copy", ignore=shutil.ignore_patterns("__pycache__"))
    copied = file.load(tmp_path / "copy" / "fleet.toml")
    assert copied.digest == file.load(FOLDER / "fleet.toml").digest
    assert copied.folder == (tmp_path / "copy").resolve()
