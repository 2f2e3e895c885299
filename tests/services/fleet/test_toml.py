"""Tables written as TOML are read back as they were."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.fleet.toml import NotToml, dumps

TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
VALUES = st.recursive(
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS
    | st.sampled_from(['a\n"b"\n', "\r\n", '"""', "\\", "\x7f", "a\tb\n"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(TEXTS, VALUES, max_size=4))
def test_tables_are_read_back_as_they_were(tables: dict[str, Any]) -> None:
    """Whatever JSON can say but null survives the way through TOML."""
    assert tomllib.loads(dumps(tables)) == tables


def test_what_toml_cannot_say_is_named() -> None:
    """A null is refused with its path."""
    with pytest.raises(NotToml, match=r"at a\.b, got: None"):
        dumps({"a": {"b": None}})
