"""Charts: the right numbers, and a picture."""

from __future__ import annotations

import asyncio
import struct
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projections.query import Ask
from services.cli import asking
from services.quota.lines import QuotaLine
from services.slack.desk import charts
from services.slack.desk.charts import Drawing, Series
from tests.services import published
from tests.services.rig import Rig

NOW = datetime(2026, 11, 25, 12, 3, tzinfo=UTC)


@given(
    st.dictionaries(st.text(min_size=1), st.lists(st.floats(1, 1e6), min_size=3, max_size=3), min_size=1, max_size=20)
)
def test_no_number_is_lost_from_a_chart(found: dict[str, list[float]]) -> None:
    """At each time the drawn numbers have the same sum as those that were found, however many names there are."""
    times = [datetime(2026, 1, 1, hour, tzinfo=UTC) for hour in range(3)]
    rows = [(at, name, number) for name, numbers in found.items() for at, number in zip(times, numbers, strict=True)]
    made = charts.series(rows, times)
    assert len(made.values) <= 7
    for place in range(3):
        drawn = sum(numbers[place] for numbers in made.values.values())
        assert drawn == pytest.approx(sum(numbers[place] for numbers in found.values()))


def test_steps_are_those_of_the_tables() -> None:
    """Steps begin at whole multiples of five minutes and end with the one that is under way."""
    found = charts.steps(NOW)
    assert found[-1] == datetime(2026, 11, 25, 12, 0)  # noqa: DTZ001 (as DuckDB gives them)
    assert found[-1] - found[0] == timedelta(hours=charts.HOURS)


def test_the_fullest_cap_is_drawn_first() -> None:
    """Caps are ordered by what is used of them, with their amounts in words."""
    line = QuotaLine(
        key="k", scope="shop", unit="usd", window="day", used=1, held=1, assumed=0, cap=4, percent=25, burn=0
    )
    full = QuotaLine(
        key="k", scope="system", unit="tokens", window="day", used=9, held=0, assumed=0, cap=9, percent=100, burn=0
    )
    first, second = charts.bars([line, full])
    assert (first.name, first.words) == ("system · day", "9 of 9 tokens, 100%")
    assert (second.used, second.held, second.words) == (25, 25, "1.00 of 4.00 USD, 25%")


@pytest.mark.slow
async def test_what_waits_and_what_fails_is_counted_from_the_tables(rig: Rig, tmp_path: Path) -> None:
    """The backlog begins with nothing and ends at what is open now, and errors are counted by kind."""

    async def code(input: int) -> int:
        if input:
            raise KeyError("no")
        return input

    async def wait(_: object) -> None:
        await asyncio.Event().wait()

    await rig.role("shop/coder", code, max_attempts=1)
    await rig.role("shop/waits", wait, grace=0)
    await rig.runner()
    ids = [(await rig.ask("shop/coder", number)).id for number in (0, 1, 1)]
    for id_ in ids:
        await rig.story.ended(id_)
    await rig.story.event((await rig.ask("shop/waits")).id, "claimed")
    file = await published.publish(rig.connection, tmp_path / "fleet.duckdb")
    with asking.opened(file) as queries:
        rows = queries.run(Ask(sql=charts._BACKLOG)).table.to_pylist()
        failed = queries.run(Ask(sql=charts._ERRORS)).table.to_pylist()
    first, last = ({r["role"]: r["open"] for r in rows if r["begun"] == rows[place]["begun"]} for place in (0, -1))
    assert first == {"shop/coder": 0, "shop/waits": 0}
    assert last == {"shop/coder": 0, "shop/waits": 1}
    assert [(row["kind"], row["failed"]) for row in failed] == [("KeyError", 2)]


@pytest.mark.slow
async def test_a_chart_is_drawn_by_a_process_of_its_own() -> None:
    """What comes back is a PNG of the size that a desktop shows sharply, with any names in it."""
    times = [datetime(2026, 1, 1, hour, tzinfo=UTC) for hour in range(4)]
    values = {name: [1.0, 2.0, 0.0, 4.0] for name in ("shop/coder", "$x_y$", "_hidden")}
    picture = await charts.draw(Drawing(kind="backlog", title="$a$", series=Series(times=times, values=values)))
    assert picture.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", picture[16:24])
    assert (width, height) == (1280, 672)
