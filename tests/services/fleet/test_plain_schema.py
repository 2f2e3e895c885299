"""Schemas that need no library: what is called plain, the library takes as well."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.fleet import schema
from services.fleet.plain_schema import is_plain

_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 9),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["object", "string", "strnig", "a+", "(", ""]),
)
_KEYWORDS = st.sampled_from(
    [
        "type",
        "properties",
        "required",
        "items",
        "additionalProperties",
        "enum",
        "const",
        "pattern",
        "format",
        "minimum",
        "maxLength",
        "multipleOf",
        "uniqueItems",
        "allOf",
        "not",
        "contains",
        "propertyNames",
        "minContains",
        "default",
        "examples",
        "title",
        "$ref",
        "$defs",
        "$id",
        "if",
        "then",
        "dependentRequired",
    ]
)


def _grown(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.lists(inner, max_size=3), st.dictionaries(_KEYWORDS, inner, max_size=4))


@given(st.dictionaries(_KEYWORDS, st.recursive(_SCALARS, _grown, max_leaves=12), max_size=5))
def test_what_is_plain_is_right(value: dict[str, Any]) -> None:
    """Whatever is called plain, the library finds no fault with, nor with itself when it holds an input against it."""
    if is_plain(value):
        jsonschema.Draft202012Validator.check_schema(value)
        with contextlib.suppress(schema.InputMismatch):
            schema.check_value(value, {"a": 1})


@pytest.mark.parametrize(
    "value",
    [
        {"type": "strnig"},
        {"type": []},
        {"type": ["string", "string"]},
        {"required": "name"},
        {"properties": {"a": {"minLength": -1}}},
        {"pattern": "("},
        {"multipleOf": 0},
        {"$ref": "#/$defs/x"},
        {"minimum": True},
        {"allOf": []},
    ],
)
def test_what_may_be_wrong_is_not_plain(value: dict[str, Any]) -> None:
    """A value that its keyword may not have, and every reference, is left to the library."""
    assert not is_plain(value)
    with pytest.raises(schema.BadSchema):
        schema.check_schema(value)


def test_a_plain_schema_needs_no_library() -> None:
    """Checking a plain schema imports no jsonschema."""
    code = (
        "import sys\nfrom services.fleet.schema import check_schema\n"
        "check_schema({'type': 'object', 'properties': {'a': {'type': 'string', 'pattern': '^a'}}, 'required': ['a']})\n"
        "print('jsonschema' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
