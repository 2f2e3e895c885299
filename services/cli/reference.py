"""docs/cli.md, made from the commands themselves: ``python -m services.cli.reference > docs/cli.md``. A test compares the two."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from typing import Any

from cyclopts import App

from services.cli.common import EVERYWHERE
from services.cli.exits import MEANINGS
from services.cli.main import COMMANDS, build

_HEAD = """# The command line

Made from the commands by `python -m services.cli.reference > docs/cli.md`; do not edit.

Every command takes `--output json` and then prints one JSON document on stdout (`tail` prints one per line). What went wrong is
one sentence on stderr; with `--output json` stdout also gets `{"error": {"kind": "…", "message": "…"}}`. Who runs a command goes
into the events that it writes: `$SYSTEMS_ACTOR`, else the login.
"""


#: Where the description of the parameters begins, in either of the two usual styles.
_SECTION = re.compile(r"\n(?:Args:|Parameters\n-+)\n")
_POSITIONAL = frozenset(
    {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.VAR_POSITIONAL}
)


def lines() -> Iterator[str]:
    """The document, line by line."""
    app = build()
    yield from _HEAD.splitlines()
    yield from ("", "## Exit codes", "", "| code | meaning |", "|---|---|")
    for code, meaning in MEANINGS.items():
        yield f"| {code.value} | {meaning} |"
    yield from ("", "## Options of every command", "", *_table(app["invoke"], everywhere=True))
    group = ""
    for command in COMMANDS:
        if command.group.name != group:
            group = command.group.name
            yield from ("", f"## {group}")
        yield from _command(f"systems {command.name}", app[command.name])


def _command(name: str, app: App) -> Iterator[str]:
    children = [child for child in app if not child.startswith("-")]
    if app.default_command is not None:
        yield from _section(name, app)
    for child in children:
        yield from _command(f"{name} {child}", app[child])


def _section(name: str, app: App) -> Iterator[str]:
    yield from ("", f"### {name}{_places(app)}", "")
    yield from _about(app)
    table = list(_table(app, everywhere=False))
    if table:
        yield from ("", *table)


def _about(app: App) -> Iterator[str]:
    """What the docstring says before its sections."""
    text = inspect.getdoc(app.default_command) or ""
    yield from _SECTION.split(text)[0].strip().splitlines()


def _arguments(app: App) -> Iterator[Any]:
    for argument in app.assemble_argument_collection(parse_docstring=True):
        if argument.show:
            yield argument


def _places(app: App) -> str:
    return "".join(f" {_name(argument)}" for argument in _arguments(app) if argument.field_info.kind in _POSITIONAL)


def _name(argument: Any) -> str:
    name = str(argument.names[0])
    if argument.field_info.kind not in _POSITIONAL:
        return name
    upper = name.lstrip("-").upper()
    if argument.field_info.kind is inspect.Parameter.VAR_POSITIONAL:
        return f"[{upper}…]"
    return upper if argument.required else f"[{upper}]"


def _table(app: App, *, everywhere: bool) -> Iterator[str]:
    found = [a for a in _arguments(app) if any(g.name == EVERYWHERE.name for g in a.parameter.group) == everywhere]
    if not found:
        return
    yield from ("| | |", "|---|---|")
    for argument in found:
        required = " Required." if argument.required and argument.field_info.kind not in _POSITIONAL else ""
        yield f"| `{_name(argument)}` | {' '.join((argument.parameter.help or '').split())}{required} |"


if __name__ == "__main__":
    sys.stdout.write("\n".join(lines()) + "\n")
