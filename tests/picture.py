"""``python -m tests.picture``: docs/img/panel.svg made anew, from the panel of a real fleet that has just worked, failed and been drilled.

The example fleet is brought up in a home of its own, replays some of its recorded trace, is given work that can never succeed,
and has its guards proven; then its panel is drawn as `systems status` draws it, and written as a picture. Nothing is made up.
"""

from __future__ import annotations

import asyncio
import io
import shutil
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI

from services.cli import panel as drawing
from services.cli.common import Common
from services.cli.fleet import EXAMPLE
from services.cli.session import operator
from services.health.gather import gather
from services.health.panel import Panel
from tests.chaos.fleet import Fleet

FILE = Path(__file__).parents[1] / "docs" / "img" / "panel.svg"
#: Columns of the picture.
WIDTH = 140
#: Rows of the trace that are replayed.
ROWS = 2000
#: Seconds for one of the commands.
_LIMIT_S = 180.0


async def _seen(folder: Path) -> Panel:
    """The panel of a fleet that has something to show."""
    fleet = Fleet(folder)
    shutil.copytree(EXAMPLE.parent, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    try:
        await fleet.up()
        trace = str(folder / "azure-llm-2023-code.csv")
        await _do(fleet, "replay", trace, "--role", "shop/coder", "--speed", "400", "--limit", str(ROWS))
        await _do(fleet, "drill", "all")
        # Work that can never succeed: it ends as a dead letter at its first attempt.
        await _do(fleet, "invoke", "shop/reviewer", "--input", '{"nope": 1}', "--wait", passes=(2,))
        await _do(fleet, "invoke", "shop/coder", "--input", '{"input_tokens": 8000, "output_tokens": 400000}')
        await _do(fleet, "sweep", passes=(0, 1, 2))
        async with operator(Common(home=fleet.home.path)) as session:
            return await gather(session.bus, await session.registry())
    finally:
        await fleet.down()


async def _do(fleet: Fleet, *arguments: str, passes: tuple[int, ...] = (0,)) -> None:
    done = await fleet.systems(*arguments, limit_s=_LIMIT_S)
    if done.status not in passes:
        raise RuntimeError(f"expected `systems {' '.join(arguments)}` to end well, got: {done.status}: {done.err}")


def draw(view: Panel) -> str:
    """The panel as SVG, on a terminal of WIDTH columns."""
    console = Console(
        width=WIDTH,
        record=True,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
        legacy_windows=False,
    )
    console.print(drawing.panel(view))
    return console.export_svg(title="systems status", theme=MONOKAI, unique_id="panel")


def main() -> int:
    """Make the picture."""
    with tempfile.TemporaryDirectory(prefix="picture-") as folder:
        view = asyncio.run(_seen(Path(folder)))
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(draw(view))
    sys.stdout.write(f"{FILE}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
