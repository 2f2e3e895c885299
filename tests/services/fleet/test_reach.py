"""Escalation policies: one that reaches nobody is refused with its line, and what would have been meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.fleet import file
from services.fleet.duty import Person, Step
from services.fleet.entries import entries, fault
from services.fleet.registry import Registry

_GOOD = """
[people.ann]
slack = "U1"
ways = { phone = "ANN_PHONE" }
[people.bob]
ways = { phone = "BOB_PHONE" }
[rotations.primary]
people = ["ann", "bob"]
begins = "2026-11-23T09:00"
every = "7d"
[hours.office]
time_zone = "Europe/Paris"
[[escalation.night.steps]]
whom = ["primary", "channel"]
repeat = "5m"
[[escalation.night.steps]]
whom = ["bob"]
how = ["phone"]
after = "10m"
outside = "office"
[incidents]
escalation = "night"
"""


def _load(tmp_path: Path, text: str) -> file.LoadedFleet:
    (tmp_path / "fleet.toml").write_text(text)
    return file.load(tmp_path / "fleet.toml")


def test_reach_policy_is_read_and_published(tmp_path: Path) -> None:
    """People, rotations, hours and policies become settings of the registry, without any address in clear."""
    loaded = _load(tmp_path, _GOOD)
    assert loaded.fleet.escalation["night"].steps[1] == Step(
        whom=("bob",), how=("phone",), after=600.0, outside="office"
    )
    values = entries(loaded.fleet, {})
    assert values["settings.people"] == (
        b'{"ann":{"slack":"U1","ways":{"phone":"ANN_PHONE"}},"bob":{"ways":{"phone":"BOB_PHONE"}}}'
    )
    assert all(fault(key, value, ()) == "" for key, value in values.items())
    assert Registry().settings.people == {}
    assert Person(slack="U1") == Person(slack="U1", ways={})


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('whom = ["bob"]', 'whom = ["bbo"]', "unknown person or rotation 'bbo', did you mean 'bob'?"),
        ('people = ["ann", "bob"]', 'people = ["ann", "bo"]', "unknown person 'bo', did you mean 'bob'?"),
        ('how = ["phone"]', 'how = ["pohne"]', "expected a way of bob, got: 'pohne', did you mean 'phone'?"),
        ('outside = "office"', 'outside = "ofice"', "unknown hours 'ofice', did you mean 'office'?"),
        ('escalation = "night"', 'escalation = "nihgt"', "unknown policy 'nihgt', did you mean 'night'?"),
        ('ways = { phone = "BOB_PHONE" }', "", "expected somebody who can be called, got: bob, who has no way"),
        ("2026-11-23T09:00", "monday", "expected a time by the clock of time_zone"),
        ("Europe/Paris", "Europe/Pari", "unknown time zone 'Europe/Pari'"),
        ('outside = "office"', 'outside = "office"\nwithin = "office"', "expected either within or outside, got: both"),
        ("[people.bob]", "[people.channel]\nslack = 'U2'\n[people.bob]", "expected another name: 'channel' is the channel"),
    ],
)  # fmt: skip
def test_reach_what_calls_nobody_is_refused(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    """Whatever keeps a step from reaching a person is said with its line and the likely name."""
    assert _GOOD.count(old) >= 1
    with pytest.raises(file.FleetFileError) as refused:
        _load(tmp_path, _GOOD.replace(old, new))
    assert sentence in str(refused.value)
    assert all(problem.line for problem in refused.value.problems)


@pytest.mark.parametrize("steps", ["[]", '[{ whom = ["channel"] }]', "[{ whom = [] }]"])
def test_reach_policy_that_names_nobody_is_refused(tmp_path: Path, steps: str) -> None:
    """A policy needs a step that names a person or a rotation: a channel wakes nobody."""
    with pytest.raises(file.FleetFileError, match=r"escalation\.quiet"):
        _load(tmp_path, f"[escalation.quiet]\nsteps = {steps}\n")
