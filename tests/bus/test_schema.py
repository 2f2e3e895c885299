"""The exported schemas say what the Structs say, and what is committed is what is exported."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bus import envelope, events, schema
from bus.author import Author
from bus.envelope import Envelope
from bus.subjects import Ref

DOCS = Path(__file__).parents[2] / "docs"
STALE = "is not what the Structs say; make it again with: .venv/bin/python -m bus.schema docs"
REF = Ref("shop", "coder", "0197c0de-0000-7000-8000-000000000000")
CHECKERS = {
    type_: jsonschema.Draft202012Validator(made, format_checker=jsonschema.FormatChecker())
    for type_, made in schema.json_schemas().items()
}


def written(type_: str, data: msgspec.Struct) -> Envelope:
    """The event as an author writes it."""
    author = Author("/test/boot")
    match type_.split(".")[1]:
        case "invocation":
            return author.invocation(REF, data)
        case "deadletter":
            return author.stamp(REF.dead_letter, data)
        case _:
            return author.control("thing", data)


def as_json(event: Envelope) -> Any:
    """What any tool gets from the wire."""
    return msgspec.json.decode(envelope.encode(event))


def test_schema_documents_are_committed_as_exported() -> None:
    """docs/asyncapi.json and docs/schemas/ are byte for byte what the code exports, with nothing left over."""
    wanted = schema.files(DOCS)
    for path, text in wanted.items():
        assert path.is_file(), f"{path.relative_to(DOCS.parent)} is missing: it {STALE}"
        assert path.read_bytes() == text, f"{path.relative_to(DOCS.parent)} {STALE}"
    left_over = set((DOCS / "schemas").iterdir()) - set(wanted)
    assert not left_over, f"docs/schemas {STALE}"


@pytest.mark.parametrize("type_", sorted(events.CATALOGUE))
def test_schema_accepts_every_event_of_its_type(type_: str) -> None:
    """Any event that can be written validates against the schema of its type, and against no other's."""
    other = next(other for other in sorted(CHECKERS) if other != type_)

    @settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.from_type(events.CATALOGUE[type_]))
    def holds(data: msgspec.Struct) -> None:
        """One event."""
        event = as_json(written(type_, data))
        CHECKERS[type_].validate(event)
        assert not CHECKERS[other].is_valid(event)

    holds()


@pytest.mark.parametrize("type_", sorted(CHECKERS))
def test_schema_is_itself_valid(type_: str) -> None:
    """Each schema is one by the rules of JSON Schema 2020-12."""
    jsonschema.Draft202012Validator.check_schema(schema.json_schemas()[type_])


@pytest.mark.parametrize(
    "break_it",
    [
        lambda e: e.pop("id"),
        lambda e: e.update(specversion="0.3"),
        lambda e: e.update(type="systems.invocation.claimed"),
        lambda e: e.update(subject="inv.shop.coder.x.claimed"),
        lambda e: e.update(dataversion=2),
        lambda e: e.update(time=5),
        lambda e: e["data"].update(depth="deep"),
        lambda e: e.pop("data"),
    ],
)
def test_schema_refuses_what_cannot_be_read(break_it: Any) -> None:
    """A missing field, a wrong type, another subject and another version are no valid event."""
    event = as_json(written("systems.invocation.requested", events.invocation.Requested()))
    CHECKERS["systems.invocation.requested"].validate(event)
    break_it(event)
    assert not CHECKERS["systems.invocation.requested"].is_valid(event)


def test_schema_lets_a_newer_writer_add_fields() -> None:
    """Fields that are not known yet are no error, in the envelope and in the data."""
    event = as_json(written("systems.invocation.requested", events.invocation.Requested()))
    event["tenant"], event["data"]["mood"] = "x", "good"
    CHECKERS["systems.invocation.requested"].validate(event)


def test_schema_keeps_the_comments_of_the_fields() -> None:
    """What a field means goes along, from the comment above it."""
    made = schema.json_schemas()["systems.invocation.claimed"]["$defs"]["Claimed"]["properties"]
    assert made["holder"]["description"] == "Boot id of the runner."


def test_asyncapi_has_a_channel_a_message_and_an_operation_for_each_type() -> None:
    """Nothing of the catalogue is missing, and each subject's parameters are described."""
    made = schema.asyncapi()
    assert set(made["components"]["messages"]) == set(events.CATALOGUE)
    assert len(made["channels"]) == len(made["operations"]) == len(events.CATALOGUE)
    for channel in made["channels"].values():
        assert set(channel["parameters"]) == set(re.findall(r"\{(\w+)\}", channel["address"]))


def test_asyncapi_references_lead_somewhere() -> None:
    """Every ``$ref`` of the document is found in it."""
    made = schema.asyncapi()

    def look(value: Any) -> None:
        """Follow what is in a value."""
        if isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                found: Any = made
                for key in value["$ref"].removeprefix("#/").split("/"):
                    found = found[key]
            for inner in value.values():
                look(inner)
        elif isinstance(value, list):
            for inner in value:
                look(inner)

    look(made)


def test_schema_write_makes_the_files_and_removes_old_ones(tmp_path: Path) -> None:
    """A schema of a type that is gone does not stay behind."""
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "systems.gone.json").write_text("{}")
    made = schema.write(tmp_path)
    assert set(made) == {path for path in tmp_path.rglob("*") if path.is_file()}
