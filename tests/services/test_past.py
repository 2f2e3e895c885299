"""The panel of a past moment is the panel that was live then."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bus import flags, trips
from bus.events import guard
from bus.events.invocation import Usage
from bus.flags import REAL
from projections.past import NoSuchPast, past
from services import freezes
from services.fleet.entries import QUOTA_KEY
from services.fleet.spec import Cap, Price, Quota, Unit, Window
from services.guards import pauses
from services.health.daemons import State
from services.health.gather import gather
from services.health.panel import Panel
from services.past import UNRECORDED, panel
from services.runner.handler import Permanent, Result
from tests.services.published import publish
from tests.services.rig import Rig


async def spends(_input: Any, _ctx: Any) -> Result:
    """Uses 30 tokens of a model that costs a dollar each million."""
    return Result(output=msgspec.Raw(b"true"), usage=Usage(input_tokens=20, output_tokens=10, model="gpt-9"))


async def hopeless(_input: Any, _ctx: Any) -> None:
    """Never works."""
    raise Permanent("nobody can do this")


def comparable(view: Panel) -> dict[str, Any]:
    """What a past panel has in common with the live one of the same moment."""
    return {
        "roles": [
            (r.role, r.backlog + r.in_flight, r.completed, r.failed) for r in sorted(view.roles, key=lambda r: r.role)
        ],
        "dead_letters": view.dead_letters,
        "oldest": view.oldest_in_flight,
        "errors": [(e.role, e.invocation, e.kind, e.message) for e in view.last_errors],
        # Whether it had evidence already is in heartbeats alone.
        "daemons": [(d.name, d.state in (State.ALIVE, State.STARTING), d.pid, d.boot_id) for d in view.daemons],
        "mode": (
            view.kill_switch.mode,
            view.kill_switch.seq,
            view.kill_switch.writes,
            view.kill_switch.owed,
            view.kill_switch.missing,
            view.kill_switch.reason,
            view.kill_switch.told,
        ),
        "quota": [(q.key, q.used, q.held, q.cap, q.tripped, q.burn) for q in view.quota or ()],
        "trips": [(t.key, t.scope) for t in view.trips],
        "guards": [(g.name, g.armed, g.last_trip, g.proof) for g in view.guards],
        "verdict": (view.verdict, [re.sub(r", since [^,]+ UTC", "", r) for r in view.reasons]),
    }


@pytest.mark.slow
async def test_the_past_panel_is_the_live_one(rig: Rig, tmp_path: Path) -> None:
    """Work, errors, a dead letter, caps, a pause and a freeze: the panel from tables is the one that was live at each moment."""
    quota = Quota(prices={"gpt-9": Price(input=1, output=1)}, caps=(Cap(cap=50, unit=Unit.TOKENS, window=Window.DAY),))
    await rig.bucket("registry").put(QUOTA_KEY, msgspec.json.encode(quota))
    await rig.warden()
    await rig.role("shop/coder", spends, max_tokens=30)
    await rig.role("shop/broken", hopeless, max_tokens=1)
    await rig.runner()
    first = await rig.ask("shop/coder")
    await rig.story.ended(first.id)
    dead = await rig.ask("shop/broken")
    await rig.story.ended(dead.id)
    moments: list[tuple[datetime, Panel]] = []

    async def look() -> None:
        """The live panel, once it has settled: facts and counters come a moment after the events."""
        before: dict[str, Any] = {}
        async with asyncio.timeout(30):
            while True:
                view = await gather(rig.bus, rig.registry)
                now = comparable(view)
                if now == before and not view.unseen and not any(line.problem for line in view.quota or ()):
                    moments.append((view.at, view))
                    return
                before = now
                await asyncio.sleep(0.2)

    await look()
    refusal = pauses.by_person("shop/coder", "we look", "tester", rig.bus.author.now())
    await rig.bus.trips.put(trips.pause_key("shop", "coder"), refusal)
    await rig.bus.store.append(rig.bus.author.control("shop_coder", guard.Paused(role="shop/coder", reason="we look")))
    waiting = await rig.ask("shop/coder")
    await look()
    await rig.bucket(flags.BUCKET).put(REAL.soft, flags.frozen(reason="enough", by="ann"))
    while not (stands := await freezes.read(rig.bus)).on_server or stands.missing:
        await asyncio.sleep(0.05)
    await look()
    await rig.bucket(flags.BUCKET).put(REAL.soft, flags.clear(reason="on", by="ann"))
    while (await freezes.read(rig.bus)).thawing or (await freezes.read(rig.bus)).mode is not flags.Mode.CLEAR:
        await asyncio.sleep(0.05)
    await look()
    file = await publish(rig.connection, tmp_path / "fleet.duckdb")
    assert waiting.id
    for at, live in moments:
        with past(file, at) as then:
            found = panel(then)
        assert found.at == at
        assert comparable(found) == comparable(live)
        assert found.unrecorded == UNRECORDED
        assert all(role.waiting_pulls is None for role in found.roles)
    assert moments[2][1].kill_switch.on_server
    assert [bool(live.trips) for _, live in moments] == [False, True, True, True]


async def test_before_history_is_a_sentence(rig: Rig, tmp_path: Path) -> None:
    """A moment before the first event, a missing file and a file of something else are told from each other."""
    now = datetime.now(UTC)
    await rig.warden()
    await rig.control.subject(lambda record: record.subject.startswith("ctl."))
    file = await publish(rig.connection, tmp_path / "fleet.duckdb")
    with (
        pytest.raises(NoSuchPast, match="expected a moment within the history, which begins 20"),
        past(file, now - timedelta(days=1)),
    ):
        pass
    with pytest.raises(NoSuchPast, match="is not there"), past(tmp_path / "none.duckdb", now):
        pass
    (tmp_path / "text.duckdb").write_text("no database")
    with pytest.raises(NoSuchPast, match="to hold published tables"), past(tmp_path / "text.duckdb", now):
        pass
