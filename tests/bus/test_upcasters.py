"""Upcasters: chains are whole, and old events are read as today's."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bus import errors, upcasters

TYPE = "systems.invocation.requested"
STEPS = {(TYPE, 1): lambda data: {"payload": data["body"]}, (TYPE, 2): lambda data: {"input": data["payload"]}}


@pytest.fixture
def chain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are at version 3, and two upcasters lead there."""
    monkeypatch.setattr(upcasters, "CURRENT", {TYPE: 3})
    monkeypatch.setattr(upcasters, "UPCASTERS", dict(STEPS))


def test_upcasters_of_today_are_whole() -> None:
    """The chains that ship pass the check that every process makes at its start."""
    upcasters.check()


@pytest.mark.parametrize(
    ("current", "steps", "sentence"),
    [
        ({TYPE: 2}, [], r"expected upcasters of systems.invocation.requested from versions \[1\], got: \[\]"),
        ({TYPE: 3}, [(TYPE, 1)], r"from versions \[1, 2\], got: \[1\]"),
        ({TYPE: 3}, [(TYPE, 2)], r"from versions \[1, 2\], got: \[2\]"),
        ({TYPE: 2}, [(TYPE, 1), (TYPE, 2)], r"from versions \[1\], got: \[1, 2\]"),
        ({}, [(TYPE, 1)], r"from versions \[\], got: \[1\]"),
        ({TYPE: 2}, [(TYPE, 0), (TYPE, 1)], r"from versions \[1\], got: \[0, 1\]"),
        ({"systems.no.such": 2}, [], "unknown event type: 'systems.no.such'"),
        ({}, [("systems.no.such", 1)], "unknown event type: 'systems.no.such'"),
    ],
)
def test_upcasters_check_finds_missing_and_surplus_steps(
    current: dict[str, int], steps: list[tuple[str, int]], sentence: str
) -> None:
    """A gap, a step past the present version and an unknown type are told by name."""
    with pytest.raises(ValueError, match=sentence):
        upcasters.check(current, {step: lambda data: data for step in steps})


@pytest.mark.usefixtures("chain")
@pytest.mark.parametrize(
    ("version", "data"), [(1, {"body": {"n": 1}}), (2, {"payload": {"n": 1}}), (3, {"input": {"n": 1}})]
)
def test_upcasters_read_every_version(version: int, data: dict[str, Any]) -> None:
    """A whole chain reads each version as the same Struct, raw JSON fields included."""
    upcasters.check()
    event = upcasters.read(TYPE, version, msgspec.json.encode(data), "a test")
    assert msgspec.json.decode(event.input) == {"n": 1}


@pytest.mark.usefixtures("chain")
@pytest.mark.parametrize("data", [b"{}", b"[]", b"null", b"{", b"1", b"[" * 100_000])
@pytest.mark.parametrize("version", [1, 2])
def test_upcasters_call_old_rubbish_rubbish(version: int, data: bytes) -> None:
    """Data that never fitted its own version is a BadEvent, whatever the upcaster stumbles over."""
    with pytest.raises(errors.BadEvent, match=r"data of systems.invocation.requested"):
        upcasters.read(TYPE, version, data, "a test")


@pytest.mark.parametrize("version", [-1, 0, 2, 99])
def test_upcasters_refuse_versions_that_do_not_exist(version: int) -> None:
    """An event from a newer writer is not guessed at."""
    with pytest.raises(errors.BadEvent, match=f"of version 1 or older, got: {version}"):
        upcasters.read(TYPE, version, b"{}", "a test")


def test_upcasters_suggest_the_type_that_was_meant() -> None:
    """An unknown type is told with the closest known one."""
    with pytest.raises(errors.BadEvent, match=r"did you mean 'systems\.invocation\.requested'"):
        upcasters.read("systems.invocation.request", 1, b"{}", "a test")


def test_upcasters_say_which_field_does_not_fit() -> None:
    """Data of the wrong shape is refused with its path."""
    with pytest.raises(errors.BadEvent, match=r"\$\.depth"):
        upcasters.read(TYPE, 1, b'{"depth":"x"}', "a test")
