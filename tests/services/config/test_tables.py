"""Settings as tables: there and back, by path, and what differs."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from bus import errors
from bus.events.topology import Change
from services.config import changing, tables
from services.fleet.entries import entries
from services.fleet.file import FleetFileError, load
from services.fleet.toml import dumps

EXAMPLE = Path(__file__).parents[3] / "infra" / "example" / "fleet.toml"


@pytest.fixture
def values() -> dict[str, bytes]:
    """The example fleet as registry values."""
    loaded = load(EXAMPLE)
    return entries(loaded.fleet, loaded.prompts)


def test_values_survive_the_way_through_tables(values: dict[str, bytes], tmp_path: Path) -> None:
    """Registry values become tables and the same values again, also through a file that a person has edited."""
    there = tables.of_values(values)
    assert changing.checked(there) == values
    file = tmp_path / "settings.toml"
    file.write_text(dumps(there))
    loaded = load(file)
    assert entries(loaded.fleet, loaded.prompts) == values


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("loop.depth", ("loop", "depth")),
        ("shop/coder", ("projects", "shop", "roles", "coder")),
        ("shop/coder.backoff.base", ("projects", "shop", "roles", "coder", "backoff", "base")),
        ('quota.prices."gpt-4.1".input', ("quota", "prices", "gpt-4.1", "input")),
    ],
)
def test_path_is_read_as_people_write_it(text: str, keys: tables.Path) -> None:
    """A role has a short way, and a key with a dot stands in quotes; both are written back."""
    assert tables.path(text) == keys
    assert tables.path(tables.dotted(keys)) == keys


@pytest.mark.parametrize("text", ["", "a..b", "a b", "loop.=", "a = 1\nb"])
def test_path_that_is_none_is_refused(text: str) -> None:
    """What leads nowhere is refused with an example."""
    with pytest.raises(tables.BadPath, match="expected a setting such as"):
        tables.path(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8", 8),
        ("90s", "90s"),
        ("true", True),
        ("[1, 2]", [1, 2]),
        ('"8"', "8"),
        ("{ a = 1 }", {"a": 1}),
        ("be brief", "be brief"),
    ],
)
def test_value_is_toml_or_a_text(text: str, value: object) -> None:
    """A value is what TOML says, and any other text itself."""
    assert tables.value(text) == value


def test_change_is_checked_as_a_whole(values: dict[str, bytes]) -> None:
    """A change that makes another part of the settings wrong is refused with the path and the remedy."""
    seen = changing.Present(revision=1, values=values)
    wanted = copy.deepcopy(seen.tables)
    tables.put(wanted, tables.path("prompts"), {})
    with pytest.raises(FleetFileError, match=r"projects\.shop\.roles\.reporter\.prompt: unknown prompt 'review-rules'"):
        changing.prepare(seen, wanted)
    wanted = copy.deepcopy(seen.tables)
    tables.put(wanted, tables.path("loop.dept"), 8)
    with pytest.raises(FleetFileError, match=r"loop\.dept: unknown key 'dept', did you mean 'depth'\?"):
        changing.prepare(seen, wanted)


def test_change_names_each_field_and_what_is_policy(values: dict[str, bytes]) -> None:
    """What differs is told setting by setting; limits of guards, caps and tries are policy, a concurrency is not."""
    seen = changing.Present(revision=1, values=values)
    wanted = copy.deepcopy(seen.tables)
    tables.put(wanted, tables.path("loop.depth"), 8)
    tables.put(wanted, tables.path("shop/coder.concurrency"), 8)
    tables.put(wanted, tables.path("shop/reviewer.max_attempts"), 9)
    tables.remove(wanted, tables.path("shop/coder.max_in_flight"))
    tables.put(wanted, tables.path("daemons.agent_runner.instances"), 3)
    tables.put(wanted, tables.path("slack.permissions.operate"), ["U0ANN"])
    edit = changing.prepare(seen, wanted)
    assert edit.fields == (
        Change(field="daemons.agent_runner.instances", before="null", after="3"),
        Change(field="loop.depth", before="null", after="8"),
        Change(field="projects.shop.roles.coder.concurrency", before="64", after="8"),
        Change(field="projects.shop.roles.coder.max_in_flight", before="256", after="null"),
        Change(field="projects.shop.roles.reviewer.max_attempts", before="null", after="9"),
        Change(field="slack.permissions.operate", before="null", after='["U0ANN"]'),
    )
    assert tables.policies(edit.fields) == (
        "loop.depth",
        "projects.shop.roles.reviewer.max_attempts",
        "slack.permissions.operate",
    )
    assert tables.late(edit.fields) == ("daemons.agent_runner.instances",)


def test_setting_that_is_not_there_suggests_one_that_is(values: dict[str, bytes]) -> None:
    """An unknown path names what is near."""
    with pytest.raises(errors.UnknownName, match=r"did you mean 'quota\.prices'"):
        tables.get(tables.of_values(values), ("quota", "price"))
