"""The options that every command has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

#: Beside the options of the command itself, and after them in its help.
EVERYWHERE = Group("Options of every command", sort_key=100)

#: A switch without its ``--no-…`` twin.
Flag = Annotated[bool, Parameter(negative="", show_default=False)]


@Parameter(name="*", group=EVERYWHERE)
@dataclass(frozen=True, kw_only=True)
class Where:
    """Which fleet."""

    home: Annotated[
        Path | None, Parameter(help="State directory of the fleet. Else $SYSTEMS_HOME, else .systems here.")
    ] = None
    server: Annotated[str | None, Parameter(help="URL of the NATS server, instead of the fleet's own.")] = None
    context: Annotated[str | None, Parameter(help="nats context, by name or file: a server and a login.")] = None
    debug: Annotated[bool, Parameter(negative="", show_default=False, help="Show tracebacks.")] = False


@Parameter(name="*", group=EVERYWHERE)
@dataclass(frozen=True, kw_only=True)
class Common(Where):
    """Which fleet, and how to print."""

    output: Annotated[Literal["text", "json"], Parameter(help="How to print.")] = "text"

    @property
    def json(self) -> bool:
        """Print JSON."""
        return self.output == "json"


@Parameter(name="*", group=EVERYWHERE)
@dataclass(frozen=True, kw_only=True)
class Tabular(Where):
    """Which fleet, and how to print rows."""

    output: Annotated[
        Literal["table", "json", "csv", "arrow"],
        Parameter(help="How to print: table, json, csv or arrow (an IPC stream)."),
    ] = "table"


#: No option given.
DEFAULTS = Common()
ROWS = Tabular()
#: The names of these options, and whether a value follows.
NAMES: dict[str, bool] = {"--home": True, "--server": True, "--context": True, "--output": True, "--debug": False}
