"""Whether an input fits its role's JSON Schema (2020-12).

A role without a schema costs one comparison. Compiled validators are kept for the schema objects that were last used, so a
registry that hands out the same role each time compiles it once. References outside the schema are never fetched.

What blocks: a schema with an expensive ``pattern`` takes as long as the pattern does; schemas come from the operator.
"""

from __future__ import annotations

import functools
import json
from collections import OrderedDict
from typing import Any

import msgspec

from bus import errors
from services.fleet.plain_schema import TYPES, is_plain
from services.fleet.spec import Role

#: Compiled validators that are kept, far more than a fleet has roles with schemas.
_KEPT = 256
#: Characters of a value that an error sentence shows.
_SHOWN = 120
#: Keywords whose value says it all.
_WORDS = {
    "minimum": "be at least {}",
    "maximum": "be at most {}",
    "exclusiveMinimum": "be more than {}",
    "exclusiveMaximum": "be less than {}",
    "multipleOf": "be a multiple of {}",
    "minLength": "hold at least {} characters",
    "maxLength": "hold at most {} characters",
    "minItems": "hold at least {} items",
    "maxItems": "hold at most {} items",
    "minProperties": "hold at least {} keys",
    "maxProperties": "hold at most {} keys",
    "pattern": "match {}",
    "format": "be a {}",
}
#: One value of each type: a schema that refers to itself without an end is found by trying them.
_PROBES: tuple[Any, ...] = (None, {}, [], "", 0)


class NotJson(errors.BusError):
    """The input is not JSON."""

    def __init__(self, why: str, near: str = "") -> None:
        self.why = why
        super().__init__(
            f"expected the input to be JSON, got something else: {why}" + (f", near {near!r}" if near else "")
        )


class InputMismatch(errors.BusError):
    """The input does not fit the role's schema."""

    def __init__(self, path: str, expected: str, got: str) -> None:
        #: JSON path of the value at fault, ``$`` for the whole input.
        self.path, self.expected, self.got = path, expected, got
        super().__init__(f"expected {path} of the input to {expected}, got: {got}")


class BadSchema(errors.BusError):
    """A schema that no input can be checked against."""

    def __init__(self, path: str, why: str) -> None:
        #: JSON path within the schema.
        self.path, self.why = path, why
        super().__init__(f"expected a JSON Schema (2020-12), got something else at {path}: {why}")


def check_input(role: Role, raw: bytes | msgspec.Raw) -> None:
    """Check an input against the role's schema; nothing is looked at without one.

    Raises:
        InputMismatch: it does not fit; names the JSON path, what was expected and what came.
        NotJson: it is not JSON.
        BadSchema: the schema cannot be used.
    """
    if role.input_schema is not None:
        check_value(role.input_schema, read(bytes(raw)))


def read(raw: bytes) -> Any:
    """Bytes as a JSON value.

    Raises:
        NotJson: they are none; says where.
    """
    if not raw.strip():
        raise NotJson("nothing")
    try:
        return msgspec.json.decode(raw)
    except UnicodeDecodeError as exc:
        # Within a string the driver counts from the string's start: find the place in the whole.
        raise NotJson(_no_utf8(raw) or str(exc)) from exc
    except msgspec.DecodeError as exc:
        raise _not_json(raw, exc) from exc
    except RecursionError as exc:
        raise NotJson("values nested too deep") from exc


def _not_json(raw: bytes, exc: msgspec.DecodeError) -> NotJson:
    # The fast decoder counts the bytes that it has taken, which is not always where the fault is; the slow one knows.
    try:
        json.loads(raw)
    except json.JSONDecodeError as fault:
        near = fault.doc[max(0, fault.pos - 10) : fault.pos + 10]
        return NotJson(f"{fault.msg[:1].lower()}{fault.msg[1:]} at line {fault.lineno}, column {fault.colno}", near)
    except (ValueError, RecursionError):
        return NotJson(str(exc))
    return NotJson(str(exc).removeprefix("JSON is malformed: "))


def _no_utf8(raw: bytes) -> str:
    try:
        raw.decode()
    except UnicodeDecodeError as exc:
        return f"byte {exc.object[exc.start]:#04x} at offset {exc.start} is no UTF-8"
    return ""


def check_value(schema: dict[str, Any], value: Any) -> None:
    """Check a value that is already decoded.

    Raises:
        InputMismatch: it does not fit.
        BadSchema: the schema cannot be used.
    """
    validator = _validators(schema)
    errors_of = _jsonschema()
    try:
        worst = errors_of.exceptions.best_match(validator.iter_errors(value))
    except RecursionError as exc:
        raise BadSchema("$", "a reference to itself without an end") from exc
    except errors_of.exceptions._WrappedReferencingError as exc:  # noqa: SLF001 - the only name of it
        raise BadSchema("$", f"a $ref that leads nowhere: {exc}") from exc
    if worst is not None:
        raise InputMismatch(worst.json_path, _expected(worst), _show(worst.instance))


def check_schema(schema: dict[str, Any]) -> None:
    """Check a schema itself, with its references.

    Raises:
        BadSchema: it is no JSON Schema, refers to something outside itself, or never ends.
    """
    if is_plain(schema):
        return
    library = _jsonschema()
    try:
        library.Draft202012Validator.check_schema(schema)
    except library.exceptions.SchemaError as exc:
        if exc.json_path.endswith(".type") and isinstance(exc.instance, str):
            raise BadSchema(
                exc.json_path, f"unknown type {exc.instance!r}{errors.did_you_mean(exc.instance, TYPES)}"
            ) from exc
        raise BadSchema(exc.json_path, f"expected it to {_expected(exc)}, got: {_show(exc.instance)}") from exc
    for path, reference in _references(schema, "$"):
        if not reference.startswith("#"):
            raise BadSchema(
                path, f"{reference!r} lies outside the schema; put it under '$defs' and refer to '#/$defs/NAME'"
            )
        _resolve(schema, path, reference)
    for probe in _PROBES:
        try:
            check_value(schema, probe)
        except InputMismatch:
            continue


def _references(node: Any, path: str) -> list[tuple[str, str]]:
    if isinstance(node, list):
        return [found for place, item in enumerate(node) for found in _references(item, f"{path}[{place}]")]
    if not isinstance(node, dict):
        return []
    here = [(f"{path}.{key}", node[key]) for key in ("$ref", "$dynamicRef") if isinstance(node.get(key), str)]
    # Values that are data, not schemas, may hold anything.
    inner = (item for item in node.items() if item[0] not in ("const", "enum", "default", "examples"))
    return here + [found for key, value in inner for found in _references(value, f"{path}.{key}")]


def _resolve(schema: dict[str, Any], path: str, reference: str) -> None:
    from referencing import Registry  # noqa: PLC0415 - slow to import, and rarely needed
    from referencing.exceptions import Unresolvable  # noqa: PLC0415
    from referencing.jsonschema import DRAFT202012  # noqa: PLC0415

    try:
        Registry().resolver_with_root(DRAFT202012.create_resource(schema)).lookup(reference)
    except Unresolvable as exc:
        raise BadSchema(path, f"{reference!r} leads nowhere{errors.did_you_mean(reference, _places(schema))}") from exc


def _places(schema: dict[str, Any]) -> list[str]:
    return [f"#/$defs/{name}" for name in schema.get("$defs", {})]


@functools.cache
def _jsonschema() -> Any:
    # Takes a tenth of a second to import, and most fleets have no schema.
    import jsonschema  # noqa: PLC0415 (it ships no types)

    return jsonschema


class _Validators:
    """Compiled validators by the identity of their schema, which is kept along so that the identity stays its own."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, tuple[dict[str, Any], Any]] = OrderedDict()

    def __call__(self, schema: dict[str, Any]) -> Any:
        found = self._kept.get(id(schema))
        if found is None:
            from jsonschema_specifications import (  # noqa: PLC0415
                REGISTRY,
            )

            # With a registry of its own, jsonschema fetches nothing from the network.
            found = (schema, _jsonschema().Draft202012Validator(schema, registry=REGISTRY))
            self._kept[id(schema)] = found
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return found[1]


_validators = _Validators()


def _expected(error: Any) -> str:
    """What the failing keyword asks for, as the end of "expected … to"."""
    value = error.validator_value
    match error.validator:
        case "type":
            return f"be of type {' or '.join(value) if isinstance(value, list) else value}"
        case "required":
            missing = [name for name in value if name not in error.instance]
            return f"have the key{'s' if len(missing) > 1 else ''} {', '.join(map(repr, missing))}"
        case "additionalProperties" if value is False:
            known = list(error.schema.get("properties", {}))
            extra = [name for name in error.instance if name not in known]
            hint = errors.did_you_mean(extra[0], known) if extra else ""
            return f"have no key {', '.join(map(repr, extra))}{hint}".rstrip("?")
        case "enum":
            return f"be one of {', '.join(map(_show, value))}"
        case "const":
            return f"be {_show(value)}"
    words = _WORDS.get(error.validator)
    return f"fit {error.validator}: {_show(value)}" if words is None else words.format(value)


def _show(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text):,} characters)"
