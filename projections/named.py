"""Named queries: files of SQL with a line on what they answer, and parameters with a type and a default.

::

    -- name: the last failures, the newest first
    -- param since: timestamp = now() - interval 1 day: how far back to look
    -- param limit: bigint = 20: how many
    SELECT … WHERE at >= $since LIMIT $limit

The file's name is the query's. A default is an SQL expression; without one the parameter must be given. A given value is text
and becomes the parameter's type; of a timestamp it may also be an age, such as ``90m`` or ``7d``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from bus import errors
from projections.statement import QueryMistake

#: Where the queries that come with the product lie.
FOLDER = Path(__file__).parent / "queries"

_NAME = re.compile(r"^[a-z][a-z0-9_]*$")
_TITLE = re.compile(r"^--\s*name:\s*(?P<line>\S.*)$")
_PARAM = re.compile(
    r"^--\s*param\s+(?P<name>[a-z][a-z0-9_]*):\s*(?P<type>[A-Za-z]\w*(?:\s*\([\d, ]+\))?)\s*"
    r"(?:=\s*(?P<default>.+?)\s*)?:\s+(?P<line>\S.*)$"
)
_AGE = re.compile(r"^(\d+(?:\.\d+)?)\s*(s|m|h|d|w)$")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


class NamedQueryError(errors.BusError):
    """A file of a named query that cannot be used; says where and what was expected."""


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """One parameter of a query."""

    name: str
    #: SQL type.
    type: str
    #: SQL expression; None: it must be given.
    default: str | None
    #: What it is.
    line: str


class Named(msgspec.Struct, frozen=True, kw_only=True):
    """One query."""

    name: str
    #: What it answers.
    line: str
    parameters: tuple[Parameter, ...]
    sql: str
    #: Where it was read.
    file: str


def load(folders: Iterable[Path]) -> dict[str, Named]:
    """All queries of some folders, by name; of two with one name the later folder's.

    Raises:
        NamedQueryError: a folder cannot be read, or a file is no query.
    """
    found: dict[str, Named] = {}
    for folder in folders:
        for file in sorted(folder.glob("*.sql")):
            try:
                text = file.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as exc:
                raise NamedQueryError(f"{file}: expected a query that can be read, got: {exc}") from exc
            found[file.stem] = parse(text, file)
    return dict(sorted(found.items()))


def parse(text: str, file: Path) -> Named:
    """One file. Pure.

    Raises:
        NamedQueryError: it is no query.
    """
    if not _NAME.match(file.stem):
        raise NamedQueryError(f"{file}: expected a name of lower-case letters, digits and _, got: {file.stem!r}")
    line = ""
    parameters: list[Parameter] = []
    for number, written in enumerate(text.splitlines(), 1):
        if (title := _TITLE.match(written)) is not None:
            line = title["line"].strip()
        elif (param := _PARAM.match(written)) is not None:
            parameters.append(
                Parameter(name=param["name"], type=param["type"], default=param["default"], line=param["line"].strip())
            )
        elif re.match(r"^--\s*param\b", written):
            raise NamedQueryError(
                f"{file}:{number}: expected -- param NAME: TYPE = DEFAULT: WHAT IT IS, got: {written.strip()!r}"
            )
    if not line:
        raise NamedQueryError(f"{file}:1: expected a first line such as -- name: what it answers, got none")
    used = set(re.findall(r"\$([a-z][a-z0-9_]*)", re.sub(r"--[^\n]*|'[^']*'", "", text)))
    declared = {parameter.name for parameter in parameters}
    if used != declared:
        missing, idle = sorted(used - declared), sorted(declared - used)
        what = f"${missing[0]} is used and not declared" if missing else f"${idle[0]} is declared and not used"
        raise NamedQueryError(f"{file}: expected a -- param line for each parameter, got: {what}")
    return Named(name=file.stem, line=line, parameters=tuple(parameters), sql=text, file=str(file))


def usage(parameter: Parameter) -> str:
    """How a parameter is given: ``since=1d``, and its default."""
    return (
        f"{parameter.name}={parameter.type.upper()}"
        if parameter.default is None
        else f"[{parameter.name}={parameter.default}]"
    )


def find(queries: Mapping[str, Named], name: str) -> Named:
    """One query.

    Raises:
        UnknownName: there is none of this name.
    """
    found = queries.get(name)
    if found is None:
        raise errors.UnknownName("query", name, queries)
    return found


def bind(query: Named, given: Mapping[str, Any], cursor: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """Every parameter's value.

    Args:
        query: whose parameters.
        given: by name, as text or as JSON has it.
        cursor: evaluates defaults, and turns text into the types.

    Raises:
        UnknownName: it has no such parameter.
        QueryMistake: one is missing, or not of its type.
    """
    for name in given:
        if name not in {parameter.name for parameter in query.parameters}:
            raise errors.UnknownName(f"parameter of {query.name}", name, (p.name for p in query.parameters))
    return {parameter.name: _value(query, parameter, given, cursor) for parameter in query.parameters}


def _value(query: Named, parameter: Parameter, given: Mapping[str, Any], cursor: duckdb.DuckDBPyConnection) -> Any:
    if parameter.name not in given:
        if parameter.default is None:
            raise QueryMistake(
                f"expected a value for {parameter.name} ({parameter.line}), got none; --param {parameter.name}=…"
            )
        try:
            row = cursor.execute(f"SELECT CAST(({parameter.default}) AS {parameter.type})").fetchone()
        except duckdb.Error as exc:
            raise NamedQueryError(
                f"{query.file}: expected the default of {parameter.name} to be a {parameter.type}, got: {parameter.default} ({_first(exc)})"
            ) from exc
        return row[0] if row is not None else None
    value = given[parameter.name]
    age = (
        _AGE.match(value.strip()) if isinstance(value, str) and parameter.type.lower().startswith("timestamp") else None
    )
    try:
        if age is not None:
            seconds = float(age[1]) * _UNITS[age[2]]
            row = cursor.execute(f"SELECT CAST(now() - to_seconds(?) AS {parameter.type})", [seconds]).fetchone()
        else:
            row = cursor.execute(f"SELECT CAST(? AS {parameter.type})", [value]).fetchone()
    except duckdb.Error as exc:
        raise QueryMistake(
            f"expected {parameter.name} ({parameter.line}) to be a {parameter.type.lower()}, got: {value!r}"
        ) from exc
    return row[0] if row is not None else None


def _first(exc: BaseException) -> str:
    return str(exc).split("\n", 1)[0]
