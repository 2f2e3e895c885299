"""Draws one chart: JSON on stdin, PNG on stdout. ``python -m services.slack.desk.drawing``.

A process of its own, because the library takes 70 MB that a daemon would never give back.
"""

from __future__ import annotations

import io
import math
import sys
from typing import Any

import matplotlib as mpl
import msgspec

mpl.use("Agg")

from matplotlib import dates, ticker
from matplotlib.figure import Figure

from services.slack.desk.charts import Drawing

#: Colours that people who see few colours can tell apart (Okabe and Ito), the last one for all others.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8A8A8A")
_INK, _FAINT, _RED = "#1D1C1D", "#D5D5D5", "#C4314B"
#: Inches, and dots of one: twice what a desktop shows, for sharp screens.
_WIDTH, _HEIGHT, _DPI = 8.0, 4.2, 160


def picture(drawing: Drawing) -> bytes:
    """The chart as PNG."""
    height = max(2.0, 0.9 + 0.52 * len(drawing.bars)) if drawing.kind == "spend" else _HEIGHT
    figure = Figure(figsize=(_WIDTH, height), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(drawing.title, loc="left", fontsize=12, fontweight="bold", color=_INK, pad=12)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_FAINT)
    axes.tick_params(colors=_INK, labelsize=9, length=0)
    if drawing.kind == "spend":
        _bars(axes, drawing)
    else:
        _series(axes, drawing)
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return out.getvalue()


def _series(axes: Any, drawing: Drawing) -> None:
    series = drawing.series
    assert series is not None
    names = list(series.values)
    colours = [_COLOURS[place] if place < len(_COLOURS) - 1 else _COLOURS[-1] for place in range(len(names))]
    if drawing.kind == "errors":
        below = [0.0] * len(series.times)
        width = (series.times[1] - series.times[0]) * 0.85 if len(series.times) > 1 else 1
        for name, colour in zip(names, colours, strict=True):
            values = series.values[name]
            axes.bar(series.times, values, width=width, bottom=below, color=colour, label=_short(name), align="edge")
            below = [low + value for low, value in zip(below, values, strict=True)]
    else:
        axes.stackplot(
            series.times, *series.values.values(), labels=[_short(n) for n in names], colors=colours, alpha=0.85
        )
        axes.margins(x=0)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(ticker.MaxNLocator(5, integer=True))
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.grid(axis="y", color=_FAINT, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(dates.AutoDateLocator(minticks=4, maxticks=8))  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_formatter(dates.DateFormatter("%H:%M"))  # type: ignore[no-untyped-call]
    axes.set_xlabel("UTC", fontsize=9, color=_INK, loc="right")
    axes.legend(
        loc="upper left",
        bbox_to_anchor=(0, -0.13),
        ncols=min(3, len(names)),
        frameon=False,
        fontsize=9,
        borderaxespad=0,
    )


def _bars(axes: Any, drawing: Drawing) -> None:
    bars = drawing.bars[::-1]
    places = range(len(bars))
    most = max(100.0, *(bar.used + bar.held for bar in bars))
    axes.barh(places, [100.0] * len(bars), color="#F1F1F1", height=0.55)
    axes.barh(
        places, [bar.used for bar in bars], color=[_RED if bar.tripped else _COLOURS[0] for bar in bars], height=0.55
    )
    held = [bar.held for bar in bars]
    if any(held):
        axes.barh(
            places,
            held,
            left=[bar.used for bar in bars],
            color=_COLOURS[4],
            height=0.55,
            hatch="///",
            edgecolor="white",
            linewidth=0,
            label="held by work that runs",
        )
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), frameon=False, fontsize=9, borderaxespad=0.2)
    axes.axvline(100, color=_INK, linewidth=1)
    for place, bar in zip(places, bars, strict=True):
        words = bar.words + (" · tripped" if bar.tripped else "")
        axes.text(most * 1.02, place, words, va="center", fontsize=9, color=_RED if bar.tripped else _INK)
    axes.set_yticks(list(places), [_short(bar.name) for bar in bars])
    axes.set_xlim(0, most * 1.01)
    axes.set_xticks([tick for tick in (0, 25, 50, 75, 100, 150, 200) if tick <= math.ceil(most)])
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:.0f}%"))


def _short(name: str) -> str:
    """A label that fits, and that the library does not read as a formula or hide."""
    safe = name.replace("$", "\\$").lstrip("_") or "-"
    return safe if len(safe) <= 32 else f"{safe[:31]}…"


if __name__ == "__main__":
    sys.stdout.buffer.write(picture(msgspec.json.decode(sys.stdin.buffer.read(), type=Drawing)))
