"""What lies on the bus, for tools that were not written by us: JSON Schemas and an AsyncAPI 3.0 document.

Both are made from the Structs, so they cannot say anything else than the code; what is committed under ``docs/`` is made by
``.venv/bin/python -m bus.schema docs`` and a test holds it to the Structs. A schema describes the whole message, the
CloudEvents envelope with its data. Fields that are not named are allowed, because a newer writer may add some.
"""

from __future__ import annotations

import inspect
import re
import sys
import types
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec

from bus import events, subjects, upcasters
from bus.envelope import Envelope

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
#: A ``#:`` comment and the field that it is about.
_COMMENTED = re.compile(r"((?:^ +#: .*\n)+)^ +(\w+):", re.MULTILINE)

#: Tokens of our subjects that stand for something.
_PARAMETERS = {
    "project": f"Name of the project, {subjects.NAME_RULE}.",
    "role": f"Name of the role in its project, {subjects.NAME_RULE}.",
    "invocation": "Id of the invocation, a UUID.",
    "id": "What the event is about: a boot id, a schedule, a registry key, a stream.",
}

_shadows: dict[type[msgspec.Struct], type[msgspec.Struct]] = {}


def address(type_: str) -> str:
    """The subject of an event type, with its changing tokens in braces: ``inv.{project}.{role}.{invocation}.requested``."""
    _, noun, name = type_.split(".")
    match noun:
        case "invocation":
            return f"inv.{{project}}.{{role}}.{{invocation}}.{name}"
        case "deadletter":
            return "dlq.{project}.{role}.{invocation}"
        case _:
            return f"ctl.{noun}.{{id}}.{name}"


def json_schemas() -> dict[str, dict[str, Any]]:
    """CloudEvents type -> JSON Schema (2020-12) of the whole message, complete in itself."""
    made: dict[str, dict[str, Any]] = {}
    for type_, struct in events.CATALOGUE.items():
        (data, envelope), definitions = _components([struct, Envelope], "#/$defs/{name}")
        shape = definitions.pop(_name(envelope))
        made[type_] = {
            "$schema": _DIALECT,
            "$id": f"{type_}.json",
            **_message(type_, struct, shape, data),
            "$defs": definitions,
        }
    return made


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI 3.0 document: a channel, a message and an operation for each event type."""
    structs = list(events.CATALOGUE.values())
    (*data, envelope), schemas = _components([*structs, Envelope], "#/components/schemas/{name}")
    shape = schemas.pop(_name(envelope))
    channels, operations, messages = {}, {}, {}
    for (type_, struct), reference in zip(events.CATALOGUE.items(), data, strict=True):
        _, noun, name = type_.split(".")
        key = f"{noun}.{name}"
        place = address(type_)
        channels[key] = {
            "address": place,
            "parameters": {token: {"description": _PARAMETERS[token]} for token in re.findall(r"\{(\w+)\}", place)},
            "messages": {type_: {"$ref": f"#/components/messages/{type_}"}},
        }
        operations[f"write.{key}"] = {
            "action": "send",
            "channel": {"$ref": f"#/channels/{key}"},
            "summary": _summary(struct),
            "messages": [{"$ref": f"#/channels/{key}/messages/{type_}"}],
        }
        messages[type_] = {
            "name": type_,
            "title": struct.__name__,
            "summary": _summary(struct),
            "contentType": "application/cloudevents+json",
            "payload": _message(type_, struct, shape, reference),
        }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Systems",
            "version": "1",
            "description": "The events of the bus: CloudEvents 1.0 in structured mode on NATS JetStream.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/cloudevents+json",
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages, "schemas": schemas},
    }


def write(folder: Path) -> list[Path]:
    """Write ``asyncapi.json`` and ``schemas/<type>.json`` into the folder, and remove schemas of types that are gone."""
    texts = files(folder)
    schemas = folder / "schemas"
    schemas.mkdir(parents=True, exist_ok=True)
    for old in set(schemas.glob("*.json")) - set(texts):
        old.unlink()
    for path, text in texts.items():
        path.write_bytes(text)
    return list(texts)


def files(folder: Path) -> dict[Path, bytes]:
    """What :func:`write` puts where."""
    documents = {folder / "asyncapi.json": asyncapi()}
    documents |= {folder / "schemas" / f"{type_}.json": schema for type_, schema in json_schemas().items()}
    return {path: msgspec.json.format(msgspec.json.encode(text)) + b"\n" for path, text in documents.items()}


def _message(type_: str, struct: type[msgspec.Struct], shape: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    """The envelope's schema, narrowed to one event type."""
    properties = shape["properties"] | {
        "specversion": {"const": "1.0"},
        "type": {"const": type_},
        "subject": {"type": "string", "pattern": _pattern(type_)},
        "dataversion": {"const": upcasters.CURRENT.get(type_, 1)},
    }
    # The version may be left out only where its absence means the right thing.
    required = [*shape["required"], *(["dataversion"] if upcasters.CURRENT.get(type_, 1) != 1 else [])]
    return shape | {
        "title": type_,
        "description": _summary(struct),
        "properties": {**{name: shape["properties"][name] | field for name, field in properties.items()}, "data": data},
        "required": required,
    }


def _pattern(type_: str) -> str:
    return "^" + re.sub(r"\\\{\w+\\\}", "[^.]+", re.escape(address(type_))) + "$"


def _summary(struct: type[msgspec.Struct]) -> str:
    return inspect.cleandoc(struct.__doc__ or "").partition("\n\n")[0].replace("\n", " ")


def _name(reference: dict[str, Any]) -> str:
    return str(reference["$ref"]).rpartition("/")[2]


def _components(
    structs: list[type[msgspec.Struct]], template: str
) -> tuple[tuple[dict[str, Any], ...], dict[str, dict[str, Any]]]:
    """References to the Structs, and the schemas that these lead to, by name."""
    return msgspec.json.schema_components([_shadow(struct) for struct in structs], ref_template=template)


def _shadow(struct: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """The Struct as msgspec can describe it: with any JSON where ours says ``Raw``, and with the comments of its fields."""
    if struct not in _shadows:
        hints = get_type_hints(struct, include_extras=True)
        comments = _comments(struct)
        fields: list[tuple[str, Any, Any]] = []
        for field in msgspec.structs.fields(struct):
            type_ = _plain(hints[field.name])
            if field.name in comments:
                type_ = Annotated[type_, msgspec.Meta(description=comments[field.name])]
            default = None if isinstance(field.default, msgspec.Raw) else field.default
            fields.append((field.name, type_, msgspec.field(default=default)))
        _shadows[struct] = msgspec.defstruct(
            struct.__name__, fields, module=struct.__module__, namespace={"__doc__": struct.__doc__}, kw_only=True
        )
    return _shadows[struct]


def _plain(type_: Any) -> Any:
    """A type with every Struct in it replaced by its shadow."""
    if isinstance(type_, type) and issubclass(type_, msgspec.Struct):
        return _shadow(type_)
    if type_ is msgspec.Raw:
        return Any
    origin, arguments = get_origin(type_), get_args(type_)
    if origin is Annotated:
        return Annotated[_plain(arguments[0]), *arguments[1:]]
    if origin in (Union, types.UnionType):
        return Union[tuple(_plain(argument) for argument in arguments)]  # noqa: UP007 (made at run time)
    if origin is not None:
        return origin[tuple(argument if argument is ... else _plain(argument) for argument in arguments)]
    return type_


def _comments(struct: type[msgspec.Struct]) -> dict[str, str]:
    found = _COMMENTED.findall(inspect.getsource(struct))
    return {name: " ".join(line.strip()[2:].strip() for line in block.splitlines()) for block, name in found}


if __name__ == "__main__":
    for written in write(Path(sys.argv[1] if len(sys.argv) > 1 else "docs")):
        sys.stdout.write(f"{written}\n")
