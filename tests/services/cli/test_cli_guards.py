"""The guards' commands against a running fleet: freeze, thaw, gate, pause, quota, loop."""

from __future__ import annotations

import sys
from typing import Any

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_freeze_says_what_the_record_says_and_everything_is_refused(fleet: Any) -> None:
    """Freeze prints receipts and writes; asking, and a command behind the gate, end with 75 and one line; thaw ends it."""
    done = await fleet("freeze", "--reason", "leak")
    assert done.status == 0, done.err
    assert "receipts, 0 writes after the freeze" in done.out
    status = await fleet("status", "--output", "json")
    assert status.json["kill_switch"]["mode"] == "soft"
    assert status.json["kill_switch"]["reason"] == "leak"
    asked = await fleet("invoke", "shop/echo", "--input", "1")
    assert asked.status == 75
    assert "systems thaw --reason TEXT" in asked.err
    for command in (["invoke", "shop/echo", "--input", "1"], ["gate"]):
        refusal = (await fleet(*command, "--output", "json")).json["error"]["refusal"]
        assert (refusal["reason"], refusal["scope"], refusal["clears"]) == ("frozen", "system", "a person")
    gated = await fleet("gate", "--", sys.executable, "-c", "print('ran')")
    assert (gated.status, gated.out) == (75, "")
    assert len(gated.err.splitlines()) == 1
    thawed = await fleet("thaw", "--reason", "over")
    assert (thawed.status, thawed.out) == (0, "clear\n")
    free = await fleet("gate", "--", sys.executable, "-c", "print('ran')")
    assert (free.status, free.out) == (0, "ran\n")


async def test_hard_freeze_is_cleared_with_a_typed_word_only(fleet: Any) -> None:
    """Without --hard, and without the word, a hard freeze stays."""
    await fleet("freeze", "--hard", "--reason", "leak")
    assert (await fleet("thaw", "--reason", "x")).status == 75
    without = await fleet("thaw", "--hard", "--reason", "x")
    assert without.status == 64
    assert "--confirm thaw" in without.err
    assert (await fleet("status", "--output", "json")).json["kill_switch"]["mode"] == "hard"
    assert (await fleet("thaw", "--hard", "--reason", "x", "--confirm", "thaw")).status == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["freeze", "--reason", "x", "--for", "soon"], "expected a duration"),
        (["freeze", "--reason", "x", "--hard", "--for", "1h"], "expected --for without --hard"),
        (["thaw", "--reason", "x", "--ramp", "0"], "expected --ramp to be above 0"),
        (["pause", "shop/ecoh", "--reason", "x"], "did you mean 'shop/echo'"),
        (["quota", "set", "shop/echo", "--cap=-1", "--window", "day", "--reason", "x"], "0 or more"),
        (["quota", "set", "shop/echo", "--cap", "5", "--window", "dya", "--reason", "x"], "did you mean 'day'"),
        (
            ["quota", "set", "shop/echo", "--cap", "5", "--window", "day", "--unit", "token", "--reason", "x"],
            "did you mean 'tokens'",
        ),
        (["quota", "set", "shpo", "--cap", "5", "--window", "day", "--reason", "x"], "did you mean 'shop'"),
        (["quota", "raise", "shop/strict", "--to", "5", "--reason", "x"], "expected a scope with a cap"),
        (["loop", "clear", "nobody", "--reason", "x"], "unknown stopped run tree"),
    ],
)
async def test_wrong_commands_say_what_was_expected(fleet: Any, arguments: list[str], said: str) -> None:
    """A mistake is a usage error with what was expected, and changes nothing."""
    done = await fleet(*arguments)
    assert done.status == 64, done.err
    assert said in done.err


async def test_paused_role_waits_and_goes_on(fleet: Any) -> None:
    """A paused role accepts requests and works on none until it is resumed."""
    paused = await fleet("pause", "shop/echo", "--reason", "tired")
    assert "tired" in paused.out
    assert (await fleet("gate", "--role", "shop/echo")).status == 75
    asked = await fleet("invoke", "shop/echo", "--input", "1", "--output", "json")
    assert asked.status == 0, asked.err
    assert (await fleet("resume", "shop/echo", "--reason", "awake")).status == 0
    await fleet.ended(asked.json["id"], "completed")


async def test_cap_is_set_shown_and_raised(fleet: Any) -> None:
    """A cap that a person sets is shown with what is used; raising it needs no window where there is one cap only."""
    done = await fleet("quota", "set", "shop/slow", "--cap", "2M", "--window", "day", "--reason", "trial")
    assert done.out == "shop/slow: 2,000,000 tokens each day (was none)\n"
    assert (await fleet("quota", "raise", "shop/slow", "--to", "1M", "--reason", "x")).status == 64
    raised = await fleet("quota", "raise", "shop/slow", "--to", "3M", "--until", "1h", "--reason", "night")
    assert "3,000,000 tokens each day (was 2,000,000), until" in raised.out
    lines = (await fleet("quota", "--output", "json")).json["quota"]
    assert [(line["scope"], line["window"], line["cap"]) for line in lines] == [("shop/slow", "day", 3_000_000)]


async def test_loop_lists_nothing_where_nothing_is_stopped(fleet: Any) -> None:
    """Without a stopped tree the list says so, and what is watched for."""
    done = await fleet("loop")
    assert done.status == 0
    assert "no run tree is stopped" in done.out
