"""Whether an escalation policy reaches anybody: what its steps name must be there, and each of them must end at a person. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

from bus import errors
from bus.spend import BadWindow, Calendar
from services.fleet.duty import CHANNEL, SLACK, Escalation, Person, Rotation, Step
from services.fleet.place import Path

Values = Mapping[str, Any]
Wrong = Callable[[Path, str], None]


def rotation(values: Values, _known: object, wrong: Wrong) -> None:
    """A time zone that nobody knows, a beginning that is no time."""
    _zone(values, wrong)
    begins = values.get("begins")
    if begins is None:
        return
    try:
        good = datetime.fromisoformat(begins).tzinfo is None
    except ValueError:
        good = False
    if not good:
        wrong(("begins",), f"expected a time by the clock of time_zone, as '2026-11-23T09:00', got: {begins!r}")


def hours(values: Values, _known: object, wrong: Wrong) -> None:
    """A time zone that nobody knows, hours that never are."""
    _zone(values, wrong)
    if values.get("start", "09:00") == values.get("end", "17:00"):
        wrong(("end",), f"expected an end that is not the start, got: {values.get('end', '17:00')!r}")


def escalation(values: Values, _known: object, wrong: Wrong) -> None:
    """A policy without a step."""
    if "steps" in values and not values["steps"]:
        wrong(("steps",), "expected at least one step, as [{ whom = ['ann'] }], got none: it would call nobody")


def step(values: Values, _known: object, wrong: Wrong) -> None:
    """Hours that exclude each other."""
    if values.get("within") and values.get("outside"):
        wrong(("outside",), "expected either within or outside, got: both; make two steps of it")


def _zone(values: Values, wrong: Wrong) -> None:
    try:
        Calendar(values.get("time_zone", "UTC"))
    except BadWindow as exc:
        wrong(("time_zone",), str(exc))


def fleet(values: Values, wrong: Wrong) -> None:
    """What a whole file's rotations, steps and projects name that is not there, and policies that call nobody."""
    people: dict[str, Person] = values.get("people", {})
    rotations: dict[str, Rotation] = values.get("rotations", {})
    policies: dict[str, Escalation] = values.get("escalation", {})
    for name, one in rotations.items():
        if name in people or name == CHANNEL:
            wrong(("rotations", name), f"expected a name that no person has and that is not {CHANNEL!r}, got: {name!r}")
        for place, person in enumerate(one.people):
            if person not in people:
                wrong(("rotations", name, "people", place), _unknown("person", person, people, "[people.NAME]"))
    if CHANNEL in people:
        wrong(("people", CHANNEL), f"expected another name: {CHANNEL!r} is the channel of the affected projects")
    for name, policy in policies.items():
        for place, one_step in enumerate(policy.steps):
            for below, sentence in _step(one_step, people, rotations, values.get("hours", {})):
                wrong(("escalation", name, "steps", place, *below), sentence)
        if all(set(one_step.whom) <= {CHANNEL} for one_step in policy.steps):
            wrong(
                ("escalation", name),
                "expected a policy that names somebody, got: one that only writes into channels; "
                "add a step whose whom names a person or a rotation",
            )
    named: dict[Path, str] = {
        ("projects", name, "escalation"): one.escalation for name, one in values.get("projects", {}).items()
    }
    if "incidents" in values:
        named["incidents", "escalation"] = values["incidents"].escalation
    for path, name in named.items():
        if name and name not in policies:
            wrong(path, _unknown("policy", name, policies, "[escalation.NAME]"))


def _step(
    one: Step, people: Mapping[str, Person], rotations: Mapping[str, Rotation], hours_: Mapping[str, object]
) -> Iterator[tuple[Path, str]]:
    for key in ("within", "outside"):
        name = getattr(one, key)
        if name and name not in hours_:
            yield (key,), _unknown("hours", name, hours_, "[hours.NAME]")
    for place, name in enumerate(one.whom):
        if name == CHANNEL:
            continue
        if name not in people and name not in rotations:
            known = {**people, **rotations, CHANNEL: None}
            yield ("whom", place), _unknown("person or rotation", name, known, "[people.NAME]")
            continue
        for person in rotations[name].people if name in rotations else (name,):
            if person not in people:
                continue  # reported where the rotation names it
            has = ways_of(people[person])
            if not has:
                yield (
                    ("whom", place),
                    (
                        f"expected somebody who can be called, got: {person}, who has no way; "
                        f"give [people.{person}] a slack id or ways = {{ phone = 'NAME_OF_A_VARIABLE' }}"
                    ),
                )
            elif one.how and not set(one.how) & set(has):
                hint = errors.did_you_mean(one.how[0], has)
                yield ("how",), f"expected a way of {person}, got: {', '.join(map(repr, one.how))}{hint}"


def ways_of(person: Person) -> tuple[str, ...]:
    """Names of the ways by which a person can be called."""
    return (*((SLACK,) if person.slack else ()), *sorted(person.ways))


def _unknown(kind: str, name: str, known: Mapping[str, object], define: str) -> str:
    hint = errors.did_you_mean(name, known) or f"; define it as a table {define}"
    return f"unknown {kind} {name!r}{hint}"
