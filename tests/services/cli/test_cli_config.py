"""Settings, reloads, decisions and drift by the command line, against a running fleet."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path
from typing import Any

import msgspec
import nats
import pytest

from bus import context

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def decision(fleet: Any, title: str = "As needed") -> str:
    """The number of a fresh decision."""
    made = await fleet("decide", title, "--context", "c", "--decision", "d", "--consequences", "e", "--output", "json")
    assert made.status == 0, made.err
    return str(made.json["number"])


async def recorded(fleet: Any, revision: int) -> None:
    """Wait until the warden has written a revision down."""
    async with asyncio.timeout(30):
        while True:
            found = (await fleet("config", "history", "--limit", "500", "--output", "json")).json["revisions"]
            if any(step["revision"] >= revision for step in found):
                return


async def revision_of(fleet: Any) -> int:
    """The revision in effect."""
    return int((await fleet("config", "get", "--output", "json")).json["revision"])


async def test_config_get_knows_what_is_set_and_what_is_default(fleet: Any) -> None:
    """A setting is shown with its default, a table with its values, an unknown one with what was meant."""
    assert (await fleet("config", "get", "shop/broken.max_attempts")).out == "2\n"
    assert (await fleet("config", "get", "shop/echo.max_attempts")).out == "3\n"
    assert "projects.shop.roles.broken.max_attempts = 2\n" in (await fleet("config", "get")).out
    wrong = await fleet("config", "get", "shop/ecko.timeout")
    assert wrong.status == 64
    assert "unknown setting 'projects.shop.roles.ecko.timeout', did you mean" in wrong.err


async def test_config_set_is_checked_recorded_and_taken_up(fleet: Any) -> None:
    """A change is one revision with who and why, runs at once, and is listed among the actions."""
    before = await revision_of(fleet)
    done = await fleet("config", "set", "shop/echo.timeout=90s", "shop/echo.description=an echo", "--reason", "a test")
    assert done.status == 0, done.err
    assert "~ projects.shop.roles.echo.timeout null -> 90.0" in done.out
    assert f"revision {before + 1}, over {before}" in done.out
    await recorded(fleet, before + 1)
    (newest,) = (await fleet("config", "history", "shop/echo", "--limit", "1", "--output", "json")).json["revisions"]
    assert (newest["who"], newest["why"]) == ("ann", "a test")
    (action,) = (await fleet("ops", "--limit", "1", "--output", "json")).json["operations"]
    assert (action["action"], action["who"], action["status"], action["id"]) == (
        "config",
        "ann",
        "done",
        newest["operation"],
    )
    shown = await fleet("ops", "show", action["id"][-8:], "--output", "json")
    assert shown.json["evidence"]["revision"] == before + 1
    accepted = await fleet("invoke", "shop/echo", "--input", "1", "--output", "json")
    told = await fleet.ended(accepted.json["id"], "completed")
    assert told["events"][1]["data"]["registry_revision"] == before + 1
    again = await fleet("config", "set", "shop/echo.timeout=90s", "--reason", "a test")
    assert (again.status, again.out) == (0, "no difference\n")


async def test_config_set_that_cannot_be_is_refused(fleet: Any) -> None:
    """A change that is wrong, that is policy, or that comes too late is refused with the remedy, and changes nothing."""
    before = await revision_of(fleet)
    for setting, status, sentence in (
        ("shop/echo.concurency=1", 64, "unknown key 'concurency', did you mean 'concurrency'?"),
        ("loop.depth", 64, "expected PATH=VALUE, such as loop.depth=8"),
        ("loop.depth=8", 1, "expected a decision for a change of loop.depth, got none"),
        ("server.port=4222", 1, "change it in the fleet file"),
    ):
        refused = await fleet("config", "set", setting, "--reason", "a test")
        assert (refused.status, sentence in refused.err) == (status, True), refused.err
    assert await revision_of(fleet) == before


async def test_config_set_over_an_old_revision_is_refused(fleet: Any) -> None:
    """Who names the revision that they saw is refused when it is no longer the present one."""
    before = await revision_of(fleet)
    assert (await fleet("config", "set", "shop/echo.grace=11", "--reason", "x", "--revision", str(before))).status == 0
    refused = await fleet("config", "set", "shop/echo.grace=12", "--reason", "x", "--revision", str(before))
    assert refused.status == 1
    assert f"expected the settings to be at revision {before}, got: {before + 1}" in refused.err
    assert (await fleet("config", "get", "shop/echo.grace")).out == "11.0\n"


async def test_policy_changes_under_a_decision_and_rolls_back(fleet: Any) -> None:
    """A limit of a guard is changed under a decision, compared with the revision before, and brought back to it."""
    number, before = await decision(fleet), await revision_of(fleet)
    done = await fleet("config", "set", "loop.depth=8", "--reason", "x", "--decision", number)
    assert done.status == 0, done.err
    await recorded(fleet, before + 1)
    compared = await fleet("config", "diff", str(before), str(before + 1))
    assert (compared.status, compared.out) == (1, "~ loop.depth null -> 8\n")
    assert (await fleet("config", "rollback", "--to", str(before), "--reason", "x")).status == 1
    back = await fleet("config", "rollback", "--to", str(before), "--reason", "x", "--decision", number)
    assert (back.status, "~ loop.depth 8 -> null" in back.out) == (0, True), back.err
    assert (await fleet("config", "get", "loop.depth")).out == "16\n"
    (action,) = (await fleet("ops", "--limit", "1", "--output", "json")).json["operations"]
    assert (action["action"], action["decision"]) == ("rollback", int(number))


async def test_config_edit_takes_what_the_editor_leaves(fleet: Any, tmp_path: Path) -> None:
    """The settings are edited as a fleet file; a file with a fault changes nothing, and is kept for its writer."""
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i "s/^max_attempts = 2/max_attempts = 2\\nconcurrency = 6/" "$1"\n')
    editor.chmod(editor.stat().st_mode | stat.S_IXUSR)
    done = await fleet("config", "edit", "--reason", "x", env={"EDITOR": str(editor), "VISUAL": ""})
    assert (done.status, "shop.roles.broken.concurrency null -> 6" in done.out) == (0, True), done.err
    editor.write_text('#!/bin/sh\nsed -i "s/^concurrency = 6/concurency = 6/" "$1"\n')
    wrong = await fleet("config", "edit", "--reason", "x", env={"EDITOR": str(editor), "VISUAL": ""})
    assert wrong.status == 64
    assert "unknown key 'concurency', did you mean 'concurrency'?" in wrong.err
    kept = Path(wrong.err.strip().rpartition(" ")[2])
    assert "concurency = 6" in kept.read_text()
    kept.unlink()
    kept.parent.rmdir()


async def test_role_is_put_by_hand_compared_and_brought_back(fleet: Any, nats_cli: str) -> None:
    """A plain `nats kv put` is a revision like any other: in the role's history, compared, and rolled back."""
    url = context.load(fleet.home, None, None, {}).url
    value = '{"handler":{"kind":"function","target":"work:echo"},"concurrency":7}'

    async def put(key: str, text: str) -> None:
        process = await asyncio.create_subprocess_exec(
            nats_cli, "--server", url, "kv", "put", "registry", key, text, stdout=asyncio.subprocess.DEVNULL
        )
        assert await process.wait() == 0

    await put("roles.shop.strict", value)
    revision = await revision_of(fleet)
    await put("roles.shop.strict", '{"handler":{"kind":"function","target":"work"}}')
    await recorded(fleet, revision + 1)
    found = (await fleet("roles", "history", "shop/strict", "--output", "json")).json["revisions"]
    assert [step["revision"] for step in found[:2]] == [revision + 1, revision]
    assert "expected module:callable" in found[0]["refused"]
    status = await fleet("status", "--output", "json")
    assert any(
        f"roles.shop.strict at revision {revision + 1} is refused" in reason for reason in status.json["reasons"]
    )
    assert (await fleet("invoke", "shop/strict", "--input", "1", "--wait")).out == "1\n"
    first = found[-1]["revision"]
    compared = await fleet("roles", "diff", "shop/strict", str(first), str(revision))
    assert (compared.status, "concurrency null -> 7" in compared.out) == (1, True)
    back = await fleet("roles", "rollback", "shop/strict", "--to", str(first), "--reason", "worse")
    assert back.status == 0, back.err
    assert "input_schema" in (await fleet("config", "get", "shop/strict", "--output", "json")).json
    status = await fleet("status", "--output", "json")
    assert not any("refused" in reason for reason in status.json["reasons"])
    unknown = await fleet("roles", "history", "shop/strickt")
    assert (unknown.status, "did you mean 'shop/strict'?" in unknown.err) == (64, True)


async def test_prompt_is_changed_compared_and_brought_back(fleet: Any) -> None:
    """A prompt has its revisions too, compared line by line."""
    for text in ("be brief\\nbe kind\\n", "be brief\\nbe cruel\\n"):
        done = await fleet("config", "set", f'prompts.tone.text="{text}"', "--reason", "x")
        assert done.status == 0, done.err
    last = await revision_of(fleet)
    await recorded(fleet, last)
    compared = await fleet("prompts", "diff", "tone")
    assert compared.out.splitlines() == ["@@ -1,2 +1,2 @@", " be brief", "-be kind", "+be cruel"]
    assert (await fleet("prompts", "rollback", "tone", "--to", str(last - 1), "--reason", "x")).status == 0
    assert (await fleet("prompts", "tone")).out == "be brief\nbe kind\n\n"
    listed = (await fleet("prompts", "history", "tone", "--output", "json")).json["revisions"]
    assert len(listed) >= 2


async def test_reload_takes_what_the_file_has_changed(fleet: Any, tmp_path: Path) -> None:
    """A reload says who runs with it, keeps what was set by command, and shows the file's fault with its line when there is one."""
    file = fleet.home.parent / "fleet.toml"
    text = file.read_text()
    assert (await fleet("reload", "--fleet", str(file), "--exactly")).status == 0
    set_ = await fleet("config", "set", "shop/echo.timeout=77s", "--reason", "x")
    assert set_.status == 0, set_.err
    try:
        file.write_text(text.replace("backoff = {", "concurrency = 3\nbackoff = {"))
        done = (await fleet("reload", "--output", "json")).json
        assert done["keys"] == ["settings.file", "roles.shop.broken"]
        assert set(done["taken_up_after_s"]) == {"warden-1", "agent_runner-1"}
        assert all(seconds is not None for seconds in done["taken_up_after_s"].values())
        assert (await fleet("config", "get", "shop/echo.timeout")).out == "77.0\n"
        differs = await fleet("config", "diff")
        assert (differs.status, differs.out) == (1, "~ projects.shop.roles.echo.timeout null -> 77.0\n")
        file.write_text(text.replace("concurrency", "x").replace("max_attempts = 2", "max_atempts = 2"))
        refused = await fleet("reload")
        assert refused.status == 1
        assert f"{file}:15: projects.shop.roles.broken.max_atempts: unknown key" in refused.err
        status = await fleet("status", "--output", "json")
        assert any("the fleet file cannot be used" in reason for reason in status.json["reasons"])
        file.write_text(text[: text.index("[projects.shop.roles.asker]")])
        assert (await fleet("reload")).status == 0
        assert (await fleet("plan")).out == "no difference\n"  # its consumer went with the role
    finally:
        file.write_text(text)
    assert (await fleet("reload", "--exactly")).status == 0
    assert (await fleet("config", "diff")).out == "no difference\n"
    status = await fleet("status", "--output", "json")
    assert not any("fleet file" in reason for reason in status.json["reasons"])


async def test_drift_names_a_stream_that_was_edited_by_hand(fleet: Any) -> None:
    """A hand-edited stream is found and named field by field with status 1; apply brings it back under a decision only."""
    clean = await fleet("drift")
    assert (clean.status, clean.out) == (0, "no drift\n")
    client = await nats.connect(context.load(fleet.home, None, None, {}).url)
    info = msgspec.json.decode((await client.request("$JS.API.STREAM.INFO.CONTROL")).data)["config"]
    answer = await client.request(
        "$JS.API.STREAM.UPDATE.CONTROL", msgspec.json.encode(info | {"max_msgs_per_subject": 7, "max_age": 10**18})
    )
    await client.close()
    assert b"error" not in answer.data
    found = await fleet("drift")
    assert found.status == 1
    assert found.out.splitlines() == [
        "~ stream CONTROL",
        "    ~ max_age 1000000000000000000 -> 0",
        "    ~ max_msgs_per_subject 7 -> -1",
    ]
    assert (await fleet("apply")).status == 1
    number = await decision(fleet)
    applied = await fleet("apply", "--decision", number, "--reason", "as declared")
    assert applied.status == 0, applied.err
    assert (await fleet("drift")).status == 0


async def test_destructive_change_asks_for_the_name(fleet: Any) -> None:
    """What loses work is done with --allow-destructive and its typed name only."""
    client = await nats.connect(context.load(fleet.home, None, None, {}).url)
    body = {
        "stream_name": "INVOCATIONS",
        "config": {
            "durable_name": "shop_gone",
            "ack_policy": "explicit",
            "filter_subject": "inv.shop.gone.*.requested",
        },
    }
    await client.request("$JS.API.CONSUMER.DURABLE.CREATE.INVOCATIONS.shop_gone", msgspec.json.encode(body))
    event = b'{"not": "an event"}'
    await client.jetstream().publish("inv.shop.gone.x.requested", event)
    await client.close()
    number = await decision(fleet)
    refused = await fleet("apply", "--decision", number)
    assert (refused.status, "INVOCATIONS/shop_gone: 1 work items wait on it" in refused.err) == (1, True), refused.err
    untyped = await fleet("apply", "--decision", number, "--allow-destructive", "--confirm", "shop_gone")
    assert untyped.status == 64
    assert "--confirm INVOCATIONS/shop_gone" in untyped.err
    done = await fleet("apply", "--decision", number, "--allow-destructive", "--confirm", "INVOCATIONS/shop_gone")
    assert done.status == 0, done.err
    assert (await fleet("plan")).out == "no difference\n"


async def test_decisions_are_listed_superseded_and_exported(fleet: Any, tmp_path: Path) -> None:
    """Decisions are listed with their state, and written as one ADR file each."""
    first = await decision(fleet, "One way")
    newer = await fleet(
        "decide", "Another way", "--context", "c", "--decision", "d", "--consequences", "e", "--supersedes", first
    )
    assert newer.status == 0, newer.err
    listed = (await fleet("decisions", "--output", "json")).json["decisions"]
    by = {one["recorded"]["number"]: one for one in listed}
    assert by[int(first)]["superseded_by"] == int(first) + 1
    exported = await fleet("decisions", "--export", str(tmp_path / "adr"), "--output", "json")
    files = [Path(file) for file in exported.json["files"]]
    assert len(files) == len(listed)
    assert (tmp_path / "adr" / f"{int(first):04d}-one-way.md").read_text().startswith(f"# ADR {first}: One way\n")
    old = await fleet("config", "set", "loop.depth=9", "--reason", "x", "--decision", first)
    assert (old.status, "expected a decision that stands" in old.err) == (1, True)
    empty = await fleet("decide", " ", "--context", "c", "--decision", "d", "--consequences", "e")
    assert (empty.status, "expected TITLE to say something" in empty.err) == (64, True)
