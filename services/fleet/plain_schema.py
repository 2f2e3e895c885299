"""Schemas that are seen to be right without the library: the keywords that nearly all schemas are made of.

The library takes a tenth of a second to import and to check a schema with, which every command and every daemon would pay
at its start. What is not plain is no fault: it is for the library to judge.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")
#: Levels of schemas within schemas that are looked into.
_DEEP = 32


def is_plain(schema: Any, levels: int = _DEEP) -> bool:
    """Whether a schema holds only keywords that are known here, with values that they may have, and no reference. Pure."""
    if isinstance(schema, bool):
        return True
    if not isinstance(schema, dict) or levels <= 0:
        return False
    return all(_fits(key, value, levels - 1) for key, value in schema.items())


def _fits(key: str, value: Any, levels: int) -> bool:
    if key in _INNER:
        return is_plain(value, levels)
    if key == "properties":
        return isinstance(value, dict) and all(is_plain(inner, levels) for inner in value.values())
    if key in ("allOf", "anyOf", "oneOf"):
        return isinstance(value, list) and bool(value) and all(is_plain(inner, levels) for inner in value)
    check = _VALUES.get(key)
    return check is not None and check(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value) and len(set(value)) == len(value)


def _is_type(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and _are_names(value) and all(name in TYPES for name in value)
    return isinstance(value, str) and value in TYPES


def _is_pattern(value: Any) -> bool:
    try:
        re.compile(value)
    except (re.error, TypeError, OverflowError, RecursionError):
        return False  # the library says what is wrong with it
    return isinstance(value, str)


#: Keywords whose value is a schema.
_INNER = frozenset({"additionalProperties", "contains", "items", "not", "propertyNames"})
#: Keywords with another value -> whether they may have it.
_VALUES: dict[str, Callable[[Any], bool]] = {
    "type": _is_type,
    "required": _are_names,
    "enum": _is_list,
    "examples": _is_list,
    "const": lambda _: True,
    "default": lambda _: True,
    "pattern": _is_pattern,
    "uniqueItems": _is_flag,
    "multipleOf": lambda value: _is_number(value) and value > 0,
    **dict.fromkeys(("title", "description", "$comment", "format"), _is_text),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _is_number),
    **dict.fromkeys(
        (
            "minLength",
            "maxLength",
            "minItems",
            "maxItems",
            "minContains",
            "maxContains",
            "minProperties",
            "maxProperties",
        ),
        _is_count,
    ),
}
