"""What a person finds who opens the tables: words on everything, and numbers that lead back to events."""

from __future__ import annotations

import random
import re
import zipfile
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pytest
from hatchling.builders.wheel import WheelBuilder

from bus import envelope as ce
from bus.events import daemon, drill, finding, freeze, guard, loop, quota, registry
from bus.events import invocation as ev
from bus.store import CONTROL, INVOCATIONS
from bus.subjects import Ref
from projections import fold
from projections.log import LOG
from services.fleet.spec import SANDBOX
from tests.projections.histories import Stream
from tests.projections.test_fold import take

REF = Ref("shop", "coder", "a")


class Told:
    """Two streams that are in the tables as soon as they are written."""

    def __init__(self, tables: duckdb.DuckDBPyConnection) -> None:
        self.tables = tables
        self.log = Stream(INVOCATIONS, random.Random(1), (1000,))
        self.control = Stream(CONTROL, random.Random(1), (1000,))

    def __call__(self, *found: tuple[Ref | str, Any]) -> None:
        """Store events and fold them."""
        before = {stream: len(stream.deliveries) for stream in (self.log, self.control)}
        for where, data in found:
            if isinstance(where, Ref):
                self.log.event(where, data)
            else:
                self.control.control(where, data)
        for stream, start in before.items():
            take(self.tables, stream.name, stream.deliveries[start:])

    def look_at(self, moment: datetime) -> None:
        """Let views look from a moment."""
        self.tables.execute(f"CREATE OR REPLACE MACRO moment() AS TIMESTAMP '{moment:%Y-%m-%d %H:%M:%S.%f}'")

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of a query."""
        return self.tables.execute(sql).fetchall()

    def health(self, looked_at: str) -> tuple[Any, ...]:
        """Verdict and number of one thing in v_health."""
        return {row[0]: row[1:3] for row in self.ask("SELECT looked_at, verdict, number FROM v_health")}[looked_at]


@pytest.fixture
def told(tables: duckdb.DuckDBPyConnection) -> Told:
    """A fleet of which nothing was heard yet."""
    return Told(tables)


def test_everything_has_a_comment(tables: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    """Every table, view and column is described, also after the views were made anew over files."""
    file = tmp_path / "log.parquet"
    tables.execute(f"COPY hot.log TO '{file}' (FORMAT parquet)")
    fold.publish_views(tables, fold.Files(log=(file,)))
    missing = "SELECT {} FROM {} WHERE comment IS NULL AND NOT internal AND database_name = current_database()"
    assert tables.execute(missing.format("table_name, column_name", "duckdb_columns()")).fetchall() == []
    assert tables.execute(missing.format("table_name", "duckdb_tables()")).fetchall() == []
    assert tables.execute(missing.format("view_name", "duckdb_views()")).fetchall() == []


def test_the_log_has_its_columns(tables: duckdb.DuckDBPyConnection) -> None:
    """The table hot.log and the Arrow schema of batches and archive are the same, name for name and type for type."""
    assert tables.sql("SELECT * FROM hot.log").to_arrow_table().schema.remove_metadata() == LOG


def test_made_twice(told: Told) -> None:
    """Making the tables where they are already changes nothing in them."""
    told((REF, ev.Requested()))
    fold.create(told.tables)
    assert told.ask("SELECT id, state FROM invocations") == [("a", "queued")]


def test_the_wheel_holds_the_sql(tmp_path: Path) -> None:
    """An installed package has every statement: the .sql files are in the wheel."""
    root = Path(__file__).parents[2]
    built = next(WheelBuilder(str(root)).build(directory=str(tmp_path), versions=["standard"]))
    names = set(zipfile.ZipFile(built).namelist())
    wanted = {str(path.relative_to(root)) for path in (root / "projections").rglob("*.sql")}
    assert len(wanted) > 10
    assert wanted <= names


def test_bodies_that_are_no_text(told: Told) -> None:
    """A body with bytes that are no UTF-8 in a part that nobody decodes stops no query over events."""
    body = msgspec.Raw(b'"\xff"')
    told((REF, ev.Requested(input=body)), (Ref("shop", "coder", "b"), ev.Requested(input=msgspec.Raw(b"1"))))
    told(("shop_coder", guard.Paused(role="shop/coder", reason="r")), ("guards_quota", _prices(1, body)))
    found = told.ask("SELECT key, data->>'input', length(raw) > 50 FROM events WHERE noun = 'invocation' ORDER BY seq")
    assert found == [("a", None, True), ("b", "1", True)]
    assert told.ask("SELECT revision, value FROM registry_versions") == [(None, None)]


def _prices(revision: int, value: msgspec.Raw) -> registry.Changed:
    return registry.Changed(key="guards.quota", revision=revision, value=value)


def _priced(**models: tuple[float, float]) -> msgspec.Raw:
    named = {name.replace("_", "-"): {"input": a, "output": b} for name, (a, b) in models.items()}
    return msgspec.Raw(msgspec.json.encode({"prices": named, "caps": []}))


def test_money(told: Told) -> None:
    """Cost is what was settled, else use at the price in force then, rounded up; a model nobody priced costs NULL, not 0."""
    usage = ev.Usage(input_tokens=1000, output_tokens=10, model="gpt-9")

    def work(id_: str, used: ev.Usage, settled: ev.Settlement | None = None) -> None:
        ref = Ref("shop", "coder", id_)
        told((ref, ev.Claimed(holder="r", runner="r", delivery=1, attempt=1, reply="x")))
        told((ref, ev.Completed(holder="r", delivery=1, usage=used, settled=settled)))

    def at(hours: int) -> None:
        for stream in (told.log, told.control):
            stream.at = datetime.fromisoformat("2026-01-01T00:00:00Z") + timedelta(hours=hours)

    at(1)
    work("early", usage)
    at(2)
    told(("guards_quota", _prices(5, _priced(gpt_9=(2.5, 10.0), small=(0.15, 0.0)))))
    at(3)
    work("dear", usage)
    work("dated", msgspec.structs.replace(usage, model="gpt-9-2026-01-01"))
    work("odd", ev.Usage(input_tokens=1, model="small"))
    work("settled", usage, ev.Settlement(hold=ev.Hold(id="h"), tokens=1, usd_micros=77))
    work("nothing", ev.Usage(model="unheard"))
    at(4)
    told(
        ("guards_quota", _prices(6, _priced(gpt_9=(5.0, 10.0)))),
        ("other", registry.Removed(key="roles.a.b", revision=7)),
    )
    at(5)
    work("dearer", usage)
    at(6)
    told(("guards_quota", registry.Removed(key="guards.quota", revision=8, replaced=6)))
    at(7)
    work("late", usage)
    costs = {
        "early": None,
        "dear": Decimal("0.002600"),
        "dated": Decimal("0.002600"),
        "odd": Decimal("0.000001"),
        "settled": Decimal("0.000077"),
        "nothing": Decimal(0),
        "dearer": Decimal("0.005100"),
        "late": None,
    }
    assert dict(told.ask("SELECT id, cost_usd FROM attempts")) == costs
    assert dict(told.ask("SELECT id, cost_usd FROM invocations")) == costs
    hourly = told.ask("SELECT hour(hour), sum(cost_usd) FROM v_spend GROUP BY ALL ORDER BY ALL")
    assert [cost for _, cost in hourly] == [None, Decimal("0.005278"), Decimal("0.005100"), None]


def test_the_bill_of_a_failure(told: Told) -> None:
    """A failure's bill adds up the attempts that came to nothing in a run tree, across projects, and for a loop the whole tree."""
    error = ev.Error(kind="Boom", message="it broke", fingerprint="f" * 12)
    hold = ev.Hold(id="h", usd_micros=100)

    def run(ref: Ref, root: str, depth: int, end: Callable[[], Any]) -> None:
        told((ref, ev.Requested(root=root, depth=depth)))
        told.log.author.new_id = lambda: f"{ref.id}-{told.log.seq}"
        claim = ev.Claimed(holder="r", runner="r", delivery=1, attempt=1, reply="x", hold=hold)
        _rooted(told, ref, claim, root)
        _rooted(told, ref, end(), root)

    def settled(micros: int) -> ev.Settlement:
        return ev.Settlement(hold=hold, usd_micros=micros)

    def done() -> ev.Completed:
        return ev.Completed(holder="r", delivery=1, settled=settled(10))

    def failed() -> ev.Failed:
        return ev.Failed(holder="r", delivery=1, attempt=1, error=error, settled=settled(40))

    run(Ref("shop", "coder", "p"), "p", 0, done)
    run(Ref("ledger", "clerk", "q"), "p", 1, failed)
    _rooted(told, Ref("ledger", "clerk", "q"), ev.DeadLettered(reason=ev.DeathReason.ATTEMPTS_SPENT, error=error), "p")
    run(Ref("shop", "coder", "x"), "x", 0, done)
    told(("x", loop.Tripped(reason=loop.LoopReason.DEPTH, count=9, limit=8, role="shop/coder", invocation="x")))
    run(Ref("shop", "coder", "fine"), "fine", 0, done)
    found = told.ask(
        "SELECT root, cause, projects, invocations, deaths, lost_usd, tree_usd, error_kind FROM v_failure_bill ORDER BY root"
    )
    assert found == [
        ("p", "poison", ["ledger", "shop"], 2, 1, Decimal("0.000040"), Decimal("0.000050"), "Boom"),
        ("x", "loop", ["shop"], 1, 0, Decimal("0.000010"), Decimal("0.000010"), None),
    ]
    trees = told.ask("SELECT root, asked, invocations, dead, depth, cost_usd FROM v_cost_by_tree ORDER BY root")
    assert trees[1] == ("p", "shop/coder", 2, 1, 1, Decimal("0.000050"))


def _rooted(told: Told, ref: Ref, data: Any, root: str) -> None:
    """Store an event under a given root, and fold it."""
    before = len(told.log.deliveries)
    envelope = told.log.author.invocation(ref, data, root=root)
    told.log.put(envelope.subject, ce.encode(envelope))
    take(told.tables, INVOCATIONS, told.log.deliveries[before:])


def test_overdue_claims(told: Told) -> None:
    """A claim is overdue when it stands longer than its role's timeout and grace, or when its holder's seat is not up."""
    value = msgspec.Raw(b'{"handler":{"kind":"function","target":"a:b"},"timeout":60,"grace":5}')
    told(("roles_shop_coder", registry.Changed(key="roles.shop.coder", revision=3, value=value)))
    for name in ("b1", "b2"):
        told((f"run-{name}_h", daemon.Started(daemon="agent_runner", boot_id=name, host="h", pid=1)))
    for id_, holder in (("a", "b1"), ("b", "b2")):
        told((Ref("shop", "coder", id_), ev.Claimed(holder=holder, runner="run", delivery=1, attempt=1, reply="x")))
    claimed = told.ask("SELECT max(claimed_at) FROM claims")[0][0]
    told.look_at(claimed + timedelta(seconds=1))
    told(("run-b2_h", daemon.Exited(daemon="agent_runner", host="h", pid=1, boot_id="b2", status=-9)))
    overdue = "SELECT id, holder_state, allowed_s FROM v_claims_overdue ORDER BY id"
    assert told.ask(overdue) == [("b", "exited", 65.0)]
    told.look_at(claimed + timedelta(hours=3))
    assert told.ask(overdue) == [("a", "started", 65.0), ("b", "exited", 65.0)]
    assert told.health("claims overdue") == ("concern", 2)


def test_deaf_consumers(told: Told) -> None:
    """Work that waits for a minute without a claim is deaf, unless a guard stands over its role or the fleet."""
    told(("run_h", daemon.Started(daemon="agent_runner", boot_id="b", host="h", pid=1)), (REF, ev.Requested()))
    queued = told.ask("SELECT since FROM invocations")[0][0]
    deaf = "SELECT project, role, waiting, deaf, why FROM v_deaf_consumers"
    told.look_at(queued + timedelta(seconds=59))
    assert told.ask(deaf) == []
    told.look_at(queued + timedelta(seconds=61))
    assert told.ask(deaf) == [("shop", "coder", 1, True, "runners are there, and nobody claims")]
    assert told.health("deaf consumers") == ("concern", 1)
    told(("shop_coder", guard.Paused(role="shop/coder", reason="slow down")))
    assert told.ask(deaf) == [("shop", "coder", 1, False, "pause of shop/coder stands")]
    told(("shop_coder", guard.Resumed(role="shop/coder")))
    told(("shop", quota.Tripped(key="shop.tokens.day_1", used=5, held=0, cap=5)))
    assert told.ask(deaf) == [("shop", "coder", 1, False, "quota of shop stands")]
    assert told.health("deaf consumers") == ("nominal", 0)
    assert told.health("spend caps") == ("concern", 1)


def test_health(told: Told) -> None:
    """The view of health is nominal about nothing that happened, and names what did, the worst first."""
    quiet = {row[0]: row[1] for row in told.ask("SELECT looked_at, verdict FROM v_health")}
    assert quiet.pop("runners") == "concern"
    assert set(quiet.values()) == {"nominal"}
    told(
        ("run_h", daemon.Started(daemon="agent_runner", boot_id="b", host="h", pid=1)),
        (REF, ev.Requested()),
        ("sweep", drill.Failed(guard="sweep", expected="a sweep", got="nothing")),
        ("run_h", daemon.GaveUp(daemon="agent_runner", host="h", exits=3, period_s=300, command="systems up")),
        ("r5", freeze.Frozen(mode="soft", seq=1, reason="fire", by="bob")),
    )
    told.log.put("inv.shop.coder.a.claimed", b"{")
    take(told.tables, INVOCATIONS, told.log.deliveries[-1:])
    told.look_at(told.log.at.replace(tzinfo=None) + timedelta(seconds=1))
    found = told.ask("SELECT looked_at, verdict FROM v_health WHERE verdict <> 'nominal'")
    assert found == [
        ("daemons", "ultra"),
        ("runners", "ultra"),
        ("drills", "concern"),
        ("kill switch", "concern"),
        ("rubbish of the last day", "concern"),
    ]
    told(("r5", freeze.Missing(instances=("run",), waited_s=1)))
    assert told.health("kill switch") == ("ultra", 1)
    told(("r5", freeze.Thawed(frozen_s=1)))
    assert told.health("kill switch") == ("nominal", 0)
    assert told.ask("SELECT guard, cleared_by FROM guard_trips") == [("kill_switch", "thawed")]


def test_health_hears_findings_that_speak(told: Told) -> None:
    """Open findings count in health, the worst of them first; what another one explains, or a person has silenced, does not."""
    told.look_at(datetime.fromisoformat("2026-01-01T00:00:00"))
    found = finding.Opened(
        kind=finding.Kind.BACKLOG,
        severity=finding.Severity.CONCERN,
        title="9 wait",
        subject="shop/coder",
        since=told.control.at,
    )
    told(("f1", found), ("f2", msgspec.structs.replace(found, severity=finding.Severity.ULTRA, title="nobody runs")))
    told(("f3", msgspec.structs.replace(found, cause="f2")))
    health = "SELECT verdict, number, what, seq = (SELECT opened_seq FROM findings WHERE fingerprint = '{}') FROM v_health WHERE looked_at = 'findings'"
    assert told.ask(health.format("f2")) == [("ultra", 2, "the worst is shop/coder: nobody runs", True)]
    told(("f2", finding.Silenced(owner="ann", reason="known", until=told.control.at + timedelta(hours=1))))
    assert told.ask(health.format("f1")) == [("concern", 1, "the worst is shop/coder: 9 wait", True)]
    told(("f1", finding.Closed(reason=finding.CloseReason.GONE)))
    assert told.health("findings") == ("nominal", 0)
    told(("f4", msgspec.structs.replace(found, subject="ann: it is slow", title="it is slow")))
    assert told.ask(health.format("f4")) == [("concern", 1, "the worst is ann: it is slow", True)]


def test_what_a_drill_leaves_behind_concerns_nobody(told: Told) -> None:
    """A run tree that was stopped in the drills' project is a trip and no concern; one of a fleet's own project is both."""
    trip = loop.Tripped(reason=loop.LoopReason.DEPTH, count=9, limit=8, role=f"{SANDBOX}/loop_a", invocation="d")
    told(("d", trip))
    assert told.health("run trees") == ("nominal", 0)
    assert told.ask("SELECT guard, key, project FROM guard_trips") == [("loop", "d", SANDBOX)]
    told(("e", msgspec.structs.replace(trip, role="shop/coder", invocation="e")))
    assert told.health("run trees") == ("concern", 1)


def test_every_view_answers(told: Told) -> None:
    """Every view can be read, on tables that hold something of everything."""
    error = ev.Error(kind="Boom", message="it broke", fingerprint="f" * 12)
    told(
        (REF, ev.Requested()),
        (REF, ev.Claimed(holder="r", runner="r", delivery=1, attempt=1, reply="x")),
        (REF, ev.Failed(holder="r", delivery=1, attempt=1, error=error)),
        (REF, ev.DeadLettered(reason=ev.DeathReason.PERMANENT_ERROR, error=error)),
        (Ref("shop", "coder", "b"), ev.Claimed(holder="r", runner="r", delivery=1, attempt=1, reply="x")),
        (Ref("shop", "coder", "b"), ev.Swept(holder="r", delivery=1, age_s=1, reason=ev.SweepReason.ACK_WAIT)),
    )
    told.look_at(told.log.at.replace(tzinfo=None) + timedelta(seconds=1))
    views = [
        name for (name,) in told.ask("SELECT view_name FROM duckdb_views() WHERE schema_name = 'main' AND NOT internal")
    ]
    assert len(views) > 12
    for view in views:
        told.ask(f"FROM {view}")
    assert [row[0] for row in told.ask("SELECT error_kind FROM v_last_errors ORDER BY seq")] == ["Boom", "ack_wait"]
    assert told.ask("SELECT guard, scope FROM guard_trips ORDER BY guard") == [
        ("poison", "shop/coder"),
        ("sweep", "shop/coder"),
    ]


def test_the_page_of_tables(tables: duckdb.DuckDBPyConnection) -> None:
    """The page docs/tables.md names every public table and view, and nothing that is not there."""
    page = (Path(__file__).parents[2] / "docs" / "tables.md").read_text(encoding="utf-8")
    listed = {
        name
        for line in page.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`(\w+)`", line.split("|")[1])
    }
    there = tables.execute(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'main' AND table_catalog = current_database()"
    ).fetchall()
    assert listed == {name for (name,) in there}
