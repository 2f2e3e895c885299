"""Lines of keys in TOML texts."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.fleet import place

NASTY = r'''# a = 1
top = "x # no comment [not.a.table]" # comment
"quoted key" = 1
'lit.eral'.b = 2
multi = """
not = "a key"
[nor.a.table]
a quote \""" and two at the end"""""
raw = \'\'\'
k = 1 \'\'\'
list = [ # comment ]
  1, "a,]", [2,
  3], { x = 1, y = { z = [4] } },
]
date = 1979-05-27 07:32:00
a.b.c = -1.5e3

[ table . "sub" ]   # spaces
inline = { p = "}", q.r = [1, 2] }
[[many]]
n = 1
[many.below]
n = 2
[[many]]
n = 3
[[many.items]]
m = 4
[table]
late = true
'''.replace(r"\'\'\'", "'''")


def paths(value: Any, path: place.Path = ()) -> set[place.Path]:
    """All paths of what tomllib read."""
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    below = {found for key, item in items for found in paths(item, (*path, key))}
    return below | ({path} if path else set())


def test_place_finds_every_path_that_tomllib_reads() -> None:
    """On a text with every trap of the grammar the paths are exactly tomllib's."""
    assert set(place.places(NASTY)) == paths(tomllib.loads(NASTY))


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("top",), 'top = "x'),
        (("quoted key",), '"quoted key"'),
        (("lit.eral", "b"), "'lit.eral'"),
        (("list",), "list = ["),
        (("list", 1), '  1, "a,]"'),
        (("list", 2, 1), "  3], {"),
        (("list", 3, "y", "z", 0), "  3], {"),
        (("a", "b", "c"), "a.b.c"),
        (("table",), "[table]"),
        (("table", "sub"), "[ table"),
        (("table", "sub", "inline", "q", "r", 1), "inline ="),
        (("many", 0, "below", "n"), "n = 2"),
        (("many", 1, "n"), "n = 3"),
        (("many", 1, "items", 0, "m"), "m = 4"),
        (("table", "late"), "late = true"),
    ],
)
def test_place_is_the_line_of_the_key(path: place.Path, line: str) -> None:
    """Each path is found on the line where its key or item stands."""
    found = place.places(NASTY)
    assert NASTY.splitlines()[place.line_of(found, path) - 1].startswith(line)


def test_place_of_a_missing_key_is_the_table_around_it() -> None:
    """What is not there is reported where it should be; without any table, on the first line."""
    found = place.places("x = 1\n[a.b]\nc = 1\n")
    assert place.line_of(found, ("a", "b", "missing", "deep")) == 2
    assert place.line_of(found, ("missing",)) == 1


keys = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=5)
scalars = st.integers() | st.booleans() | st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]))
values = st.recursive(scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(keys, v, max_size=3), max_leaves=8)


def toml(value: Any) -> str:
    """A value as TOML in one line."""
    match value:
        case bool():
            return str(value).lower()
        case dict():
            return "{" + ", ".join(f"{toml(key)} = {toml(item)}" for key, item in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(toml, value)) + "]"
        case str():
            return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)


@given(st.dictionaries(keys, st.dictionaries(keys, values, max_size=3), max_size=4))
def test_place_agrees_with_tomllib_on_any_tables(tables: dict[str, dict[str, Any]]) -> None:
    """Every path is found, and each key of a table is on its own line."""
    text, lines = "", {}
    for name, table in tables.items():
        text += f"[{toml(name)}]\n"
        for key, value in table.items():
            text += f"{toml(key)} = {toml(value)}  # {key}\n"
            lines[name, key] = text.count("\n")
    assert tomllib.loads(text) == tables
    found = place.places(text)
    assert set(found) == paths(tables)
    assert {path: found[path] for path in lines} == lines
