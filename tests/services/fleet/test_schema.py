"""Inputs against a role's JSON Schema."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from services.fleet import schema
from services.fleet.spec import Role, TraceHandler

ORDER: dict[str, Any] = {
    "type": "object",
    "required": ["to", "amount"],
    "additionalProperties": False,
    "properties": {
        "to": {"type": "string", "pattern": "^[a-z]+$"},
        "amount": {"type": "number", "minimum": 0, "exclusiveMaximum": 100},
        "kind": {"enum": ["gift", "sale"]},
        "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}, "maxItems": 2},
    },
    "$defs": {"tag": {"type": "string", "minLength": 2}},
}
ROLE = Role(handler=TraceHandler(), input_schema=ORDER)


@pytest.mark.parametrize("raw", [b'{"to":"ann","amount":1}', b' {"amount":99.5,"to":"x","tags":["ab"],"kind":"gift"} '])
def test_input_that_fits_passes(raw: bytes) -> None:
    """Nothing is raised, for bytes as for raw JSON."""
    schema.check_input(ROLE, raw)
    schema.check_input(ROLE, msgspec.Raw(raw))


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        ('{"to":"ann","amount":-1}', "expected $.amount of the input to be at least 0, got: -1"),
        ('{"to":"ann","amount":100}', "expected $.amount of the input to be less than 100, got: 100"),
        ('{"to":"ann","amount":"1"}', 'expected $.amount of the input to be of type number, got: "1"'),
        ('{"to":"ann"}', 'expected $ of the input to have the key \'amount\', got: {"to":"ann"}'),
        ("{}", "expected $ of the input to have the keys 'to', 'amount', got: {}"),
        ("[]", "expected $ of the input to be of type object, got: []"),
        ('{"to":"A","amount":1}', 'expected $.to of the input to match ^[a-z]+$, got: "A"'),
        (
            '{"to":"a","amount":1,"kind":"x"}',
            'expected $.kind of the input to be one of "gift", "sale", got: "x"',
        ),
        (
            '{"to":"a","amount":1,"tags":["ab","c"]}',
            'expected $.tags[1] of the input to hold at least 2 characters, got: "c"',
        ),
        (
            '{"to":"a","amount":1,"tag":[]}',
            (
                "expected $ of the input to have no key 'tag', did you mean 'tags', got: "
                '{"to":"a","amount":1,"tag":[]}'
            ),
        ),
    ],
)
def test_input_that_does_not_fit_is_one_sentence(raw: str, sentence: str) -> None:
    """The sentence names the JSON path, what was expected and what came."""
    with pytest.raises(schema.InputMismatch) as caught:
        schema.check_input(ROLE, raw.encode())
    assert str(caught.value) == sentence


def test_input_in_a_sentence_is_cut() -> None:
    """A huge value does not make a huge error."""
    with pytest.raises(schema.InputMismatch) as caught:
        schema.check_input(ROLE, b'"' + b"x" * 100_000 + b'"')
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "nothing"),
        (b"  ", "nothing"),
        (b'{"a": tru}', "expecting value at line 1, column 7, near '{\"a\": tru}'"),
        (b'{"a": 1,\n "b": x}', "expecting value at line 2, column 7"),
        (b'{"a": 1', "expecting ',' delimiter at line 1, column 8"),
        (b"{} {}", "extra data at line 1, column 4"),
        (b"{'a': 1}", "expecting property name enclosed in double quotes at line 1, column 2"),
        (b'{"a": "\xff"}', "byte 0xff at offset 7 is no UTF-8"),
        (b"[" * 100_000, "values nested too deep"),
        (b"NaN", "invalid character"),
    ],
)
def test_input_that_is_no_json_is_refused_with_its_place(raw: bytes, why: str) -> None:
    """The sentence says what is wrong and where."""
    with pytest.raises(schema.NotJson) as caught:
        schema.check_input(ROLE, raw)
    assert str(caught.value).startswith(f"expected the input to be JSON, got something else: {why}")


def test_input_without_a_schema_is_not_looked_at() -> None:
    """A role without a schema takes any bytes."""
    schema.check_input(Role(handler=TraceHandler()), b"\xff")


@pytest.mark.parametrize(
    ("bad", "path", "why"),
    [
        ({"type": "objec"}, "$.type", "unknown type 'objec', did you mean 'object'?"),
        ({"properties": {"a": {"minimum": "1"}}}, "$.properties.a.minimum", "expected it to be of type number"),
        ({"pattern": "("}, "$.pattern", "expected it to be a regex"),
        ({"required": "a"}, "$.required", "expected it to be of type array"),
        ({"$ref": "http://127.0.0.1:9/x"}, "$.$ref", "'http://127.0.0.1:9/x' lies outside the schema"),
        ({"items": [{"$ref": "other.json"}]}, "$.items", "expected it to be of type"),
        ({"allOf": [{"$ref": "other.json"}]}, "$.allOf[0].$ref", "'other.json' lies outside the schema"),
        ({"$ref": "#/$defs/tga", "$defs": {"tag": {}}}, "$.$ref", "did you mean '#/$defs/tag'?"),
        ({"$ref": "#"}, "$", "a reference to itself without an end"),
        ({"anyOf": [{"type": "integer"}, {"$ref": "#"}]}, "$", "a reference to itself without an end"),
    ],
)
def test_schema_that_is_none_is_refused(bad: dict[str, Any], path: str, why: str) -> None:
    """The sentence names the place within the schema; nothing is fetched from elsewhere."""
    with pytest.raises(schema.BadSchema) as caught:
        schema.check_schema(bad)
    assert caught.value.path == path
    assert why in str(caught.value)


@pytest.mark.parametrize("good", [{}, ORDER, {"const": {"$ref": "no reference, but data"}}, {"$comment": "x"}])
def test_schema_that_is_one_passes(good: dict[str, Any]) -> None:
    """Data that looks like a reference is none."""
    schema.check_schema(good)


def test_schema_not_checked_before_is_still_an_error_of_ours() -> None:
    """A registry value that bypassed the fleet file cannot raise the library's own errors."""
    for bad in ({"$ref": "#/$defs/none"}, {"$ref": "http://127.0.0.1:9/x"}, {"$ref": "#"}):
        with pytest.raises(schema.BadSchema):
            schema.check_input(Role(handler=TraceHandler(), input_schema=bad), b"1")


def test_schema_of_a_changed_role_is_compiled_anew() -> None:
    """Validators are kept by the schema object itself, so many short-lived ones never answer for one another."""
    for number in range(1000):
        role = Role(handler=TraceHandler(), input_schema={"const": number})
        schema.check_input(role, str(number).encode())
        with pytest.raises(schema.InputMismatch):
            schema.check_input(role, b"-1")
