"""A real fleet whose history leaves the stream: it is shown, proven, mended and folded anew from the files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.chaos.fleet import Fleet

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

FLEET = """
[projects.shop.roles.coder]
handler = { kind = "function", target = "handlers:work" }

[projects.shop.roles.tester]
handler = { kind = "function", target = "handlers:echo" }
"""
HANDLERS = """
from bus.events.invocation import Usage


async def work(input, ctx):
    ctx.meter(Usage(input_tokens=1_000_000, model="big"))
    await ctx.request("shop/tester", {"of": input})
    return input


def echo(input):
    return input
"""


async def counted(fleet: Fleet) -> list[dict[str, Any]]:
    """Invocations by role and state, as the tables have them."""
    asked = await fleet.systems(
        "sql", "SELECT role, state, count(*) AS n FROM invocations GROUP BY ALL ORDER BY ALL", "--output", "json"
    )
    assert asked.status == 0, asked.err
    found: list[dict[str, Any]] = asked.json()["rows"]
    return found


async def repriced(fleet: Fleet) -> int:
    """Millionths of a dollar that all work would have come to at prices of the test's own."""
    prices = fleet.file.with_name("prices.toml")
    prices.write_text("big = { input = 2.5, output = 0.0 }\n")
    asked = await fleet.systems("quota", "reprice", "--prices", str(prices), "--output", "json")
    assert asked.status == 0, asked.err
    after: int = asked.json()["after"]
    return after


async def test_history_that_left_the_stream_is_shown_proven_and_folded_anew(fleet: Fleet) -> None:
    """Trimmed away, an invocation still has its timeline and its tree; damage is named, and mended while the stream can."""
    fleet.write(FLEET, HANDLERS)
    await fleet.up()
    async with fleet.bus() as desk:
        parent = (await desk.ask("shop/coder", 1)).id
        await desk.completed(2)
        closed = await fleet.systems("archive", "now", "--output", "json")
        assert closed.status == 0, closed.err
        up_to = closed.json()["archived"]["INVOCATIONS"]
        assert closed.json()["trim"]["held_by"]["kind"] == "hot"
        later = await desk.ask("shop/tester", 2)
        await desk.story.ended(later.id)
        priced = await repriced(fleet)
        await desk.bus.connection.api("STREAM.PURGE.INVOCATIONS", {"seq": up_to + 1})
        shown = await fleet.systems("show", parent, "--output", "json")
        assert shown.status == 0, shown.err
        assert [e["type"].rpartition(".")[2] for e in shown.json()["events"]] == ["requested", "claimed", "completed"]
        why = await fleet.systems("why", parent, "--output", "json")
        assert why.status == 0, why.err
        assert [child["role"] for child in why.json()["tree"]["children"]] == ["tester"]
        replayed = await fleet.systems("guards", "backtest", "--output", "json")
        assert replayed.status == 0, replayed.err or replayed.out
        assert replayed.json()["events"] == up_to + 3
        assert (priced, await repriced(fleet)) == (2_500_000, 2_500_000)
        proven = await fleet.systems("archive", "verify", "--output", "json")
        assert (proven.status, proven.json()["whole"]) == (0, True), proven.out
        files = (await fleet.systems("archive", "ls", "--output", "json")).json()["files"]
        damage(fleet, "CONTROL")
        broken = await fleet.systems("archive", "verify")
        assert broken.status == 2
        assert "stream=CONTROL" in broken.out
        mended = await fleet.systems("archive", "verify", "--repair", "--output", "json")
        assert (mended.status, mended.json()["whole"]) == (0, True), mended.out
        assert {f["stream"] for f in files} >= {"INVOCATIONS", "CONTROL"}
        before = await counted(fleet)
        assert sum(row["n"] for row in before) == 3
        locked = await fleet.systems("rebuild", "--reason", "to see", "--offline")
        assert locked.status != 0, locked.out + locked.err
        assert "to be the projector's alone" in locked.err
        rebuilt = await fleet.systems("rebuild", "--reason", "to see", "--wait")
        assert rebuilt.status == 0, rebuilt.err
        assert await counted(fleet) == before


def damage(fleet: Fleet, stream: str) -> None:
    """Change a byte in the middle of a file of the archive."""
    file: Path = next((fleet.home.archive / f"stream={stream}").rglob("*.parquet"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)
