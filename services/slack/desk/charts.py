"""Pictures of the last hours, for those who would rather look than read: what waits, what is spent, what fails.

The numbers come from the tables and the warden; the drawing is done by a process of its own
(:mod:`services.slack.desk.drawing`), so that neither its memory nor its time is the mirror's.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime

import msgspec

from bus import errors
from services.quota import setting
from services.quota.lines import QuotaLine, short, whole
from services.slack.desk import blocks as kit
from services.slack.desk import tables
from services.slack.desk.answer import Answer, File, said
from services.slack.desk.desk import Desk
from services.slack.markup import escaped

#: Hours that a chart shows, and minutes of one step of it.
HOURS, STEP_MIN = 6, 5
#: Lines or colours of one chart; the rest is drawn as one.
_MOST = 6
#: Numbers of one chart: 250 roles over its steps.
_POINTS = 20_000
#: Seconds that a drawing may take.
_DRAW_S = 60.0

#: Work that is not finished, by role, at the beginning of each step and now: what there is now, without what has come since, with
#: what has ended since.
_BACKLOG = f"""
WITH steps AS (
    SELECT range AS begun FROM range(time_bucket(INTERVAL {STEP_MIN} MINUTE, moment() - INTERVAL {HOURS} HOUR), moment(), INTERVAL {STEP_MIN} MINUTE)
    UNION ALL SELECT moment()
), present AS (
    SELECT project || '/' || role AS role, count(*) AS open FROM invocations
    WHERE state IN ('queued', 'running', 'waiting') GROUP BY ALL
), moves AS (
    SELECT project || '/' || role AS role, stored_at,
        CASE WHEN event = 'requested' THEN 1 ELSE -1 END AS step
    FROM events
    WHERE noun = 'invocation' AND event IN ('requested', 'completed', 'cancelled', 'dead_lettered')
        AND stored_at >= moment() - INTERVAL {HOURS} HOUR
), roles AS (SELECT role FROM present UNION SELECT role FROM moves)
SELECT s.begun, r.role, greatest(0, coalesce(any_value(p.open), 0) - coalesce(sum(m.step), 0)) AS open
FROM steps AS s CROSS JOIN roles AS r
LEFT JOIN present AS p USING (role)
LEFT JOIN moves AS m ON m.role = r.role AND m.stored_at > s.begun
GROUP BY ALL ORDER BY s.begun
"""  # noqa: S608 (numbers of ours)
#: Attempts that failed, by kind of error, in each step.
_ERRORS = f"""
SELECT time_bucket(INTERVAL {STEP_MIN} MINUTE, ended_at) AS begun, coalesce(error_kind, reason, outcome) AS kind, count(*) AS failed
FROM attempts
WHERE outcome IN ('failed', 'swept') AND ended_at >= moment() - INTERVAL {HOURS} HOUR
GROUP BY ALL ORDER BY begun
"""  # noqa: S608 (numbers of ours)


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers over time, by name: each name has as many as there are times."""

    times: list[datetime]
    values: dict[str, list[float]]


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """One cap: parts of it in per cent, and its words."""

    name: str
    used: float
    held: float
    words: str
    tripped: bool = False


class Drawing(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be drawn."""

    #: ``backlog``, ``errors`` or ``spend``.
    kind: str
    title: str
    series: Series | None = None
    bars: list[Bar] = []


def series(rows: list[tuple[datetime, str, float]], times: list[datetime]) -> Series:
    """Rows of (time, name, number) as numbers over all times, the largest names first and the others as one. Pure."""
    found: dict[str, dict[datetime, float]] = {}
    for at, name, number in rows:
        found.setdefault(name, {})[at] = number
    ranked = sorted(found, key=lambda name: (-max(found[name].values()), name))
    values = {name: [found[name].get(at, 0.0) for at in times] for name in ranked[:_MOST]}
    rest = ranked[_MOST:]
    if rest:
        values[f"{len(rest)} others"] = [sum(found[name].get(at, 0.0) for name in rest) for at in times]
    return Series(times=times, values=values)


def steps(now: datetime) -> list[datetime]:
    """The beginnings of all steps, as ``time_bucket`` makes them. Pure."""
    last = now.replace(minute=now.minute - now.minute % STEP_MIN, second=0, microsecond=0, tzinfo=None)
    count = HOURS * 60 // STEP_MIN
    seconds = STEP_MIN * 60
    end = last.replace(tzinfo=UTC).timestamp()
    return [datetime.fromtimestamp(end - seconds * back, UTC).replace(tzinfo=None) for back in range(count, -1, -1)]


def bars(lines: list[QuotaLine]) -> list[Bar]:
    """Caps as bars, the fullest first. Pure."""
    made = []
    for line in sorted(lines, key=lambda line: -line.percent):
        unit = "USD" if line.unit == "usd" else line.unit
        amounts = f"{short(line.used, line.unit)} of {short(line.cap, line.unit)} {unit}, {whole(line.percent)}"
        held = 100 * line.held / line.cap if line.cap else 0.0
        made.append(
            Bar(name=f"{line.scope} · {line.window}", used=line.percent, held=held, words=amounts, tripped=line.tripped)
        )
    return made


async def chart(desk: Desk, kind: str) -> Answer:
    """A chart as a file, with a sentence for those who cannot see it.

    Raises:
        UnknownName: there is no such chart.
        BusError: whoever knows the numbers does not answer.
    """
    if kind not in ("backlog", "spend", "errors"):
        raise errors.UnknownName("chart", kind, ["backlog", "spend", "errors"])
    drawing = await _drawing(desk, kind)
    if drawing is None:
        return said(f"nothing to draw: no {'cap is set' if kind == 'spend' else f'{kind} in the last {HOURS} hours'}")
    file = File(name=f"{kind}.png", title=drawing.title, content=await draw(drawing))
    return Answer(
        text=drawing.title,
        blocks=[kit.section(f"*{escaped(drawing.title)}*"), kit.context("the picture is in your direct messages")],
        file=file,
    )


async def _drawing(desk: Desk, kind: str) -> Drawing | None:
    if kind == "spend":
        found = bars(await setting.lines(desk.bus))
        return Drawing(kind=kind, title="Spend against cap", bars=found[:20]) if found else None
    answered = await tables.rows(desk, sql=_BACKLOG if kind == "backlog" else _ERRORS, limit=_POINTS)
    begun, name, number = (column.name for column in answered.columns)
    rows = [(_time(row[begun]), str(row[name]), float(row[number])) for row in answered.rows]
    if not any(number for _, _, number in rows):
        return None
    times = sorted({at for at, _, _ in rows}) if kind == "backlog" else steps(datetime.now(UTC))
    title = "Work that is not finished" if kind == "backlog" else f"Failed attempts in {STEP_MIN} minutes"
    return Drawing(kind=kind, title=f"{title}, last {HOURS} hours", series=series(rows, times))


def _time(text: str) -> datetime:
    """A time of a row, as the steps have it: UTC without saying so."""
    return datetime.fromisoformat(text).replace(tzinfo=None)


async def draw(drawing: Drawing) -> bytes:
    """The picture as PNG, drawn by a process of its own.

    Raises:
        Conflict: it could not be drawn.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.slack.desk.drawing",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_DRAW_S):
            out, err = await process.communicate(msgspec.json.encode(drawing))
    except TimeoutError as exc:
        process.kill()
        await process.wait()
        raise errors.Conflict(f"expected a picture within {_DRAW_S:g} s, got none; the machine may be busy") from exc
    if process.returncode:
        last = (err.decode(errors="replace").strip().splitlines() or ["no word"])[-1]
        raise errors.Conflict(f"expected a picture, got status {process.returncode}: {last}")
    return out
