"""Subjects: what is built is parsed back, and what cannot be a token is refused in one sentence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus import errors, events, subjects
from bus.subjects import Ref

names = st.from_regex(r"[a-z0-9-]{1,40}", fullmatch=True)
tokens = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
refs = st.builds(Ref, names, names, tokens)


@given(refs, st.sampled_from(sorted(events.NOUNS["invocation"])))
def test_subject_of_an_event_round_trips(ref: Ref, name: str) -> None:
    """An event's subject is parsed back to its reference and name."""
    assert subjects.parse_event(ref.event(name)) == (ref, name)


@given(refs)
def test_subject_filters_lie_around_the_event(ref: Ref) -> None:
    """The fence's scope is the prefix and a wildcard; the dead letter lies under the same three tokens."""
    assert ref.all == f"{ref.prefix}.>"
    assert ref.event("claimed") == f"{ref.prefix}.claimed"
    assert ref.dead_letter == f"dlq.{ref.project}.{ref.role}.{ref.id}"


@given(names, names)
def test_subject_role_path_round_trips(project: str, role: str) -> None:
    """``project/role`` is parsed back, and its consumer's filter takes its requests only."""
    assert subjects.parse_role(f"{project}/{role}") == (project, role)
    assert subjects.role_requests(project, role) == Ref(project, role, "*").event("requested")
    assert subjects.role_consumer(project, role) == f"{project}_{role}"


@pytest.mark.parametrize("value", ["", "Shop", "a_b", "a.b", "a b", "a*", ">", "a" * 41, "a\n", "é"])
def test_subject_name_refuses_what_cannot_be_a_token(value: str) -> None:
    """A name outside the rule is refused with the rule and the value."""
    with pytest.raises(errors.BadSubject, match=r"expected a project to match \[a-z0-9-\]\{1,40\}, got: "):
        subjects.check_name("a project", value)


@pytest.mark.parametrize("value", ["", "a.b", "a b", "*", ">", "a\n", "x" * 129])
def test_subject_token_refuses_separators_and_wildcards(value: str) -> None:
    """An id that would split or widen a subject is refused."""
    with pytest.raises(errors.BadSubject):
        subjects.control("daemon", value, "started")


@pytest.mark.parametrize("value", ["", "shop", "shop/", "/coder", "shop/coder/x", "Shop/coder", "shop coder"])
def test_subject_role_path_refuses_everything_else(value: str) -> None:
    """A role is two names with one slash."""
    with pytest.raises(errors.BadSubject, match="PROJECT/ROLE"):
        subjects.parse_role(value)


@pytest.mark.parametrize("subject", ["", "inv", "inv.a.b.c", "inv.a.b.c.d.e", "ctl.a.b.c.d"])
def test_subject_parse_refuses_other_shapes(subject: str) -> None:
    """Only five tokens that begin with inv are an invocation's event."""
    with pytest.raises(errors.BadSubject, match="<project>"):
        subjects.parse_event(subject)


@given(refs, tokens)
def test_subject_names_the_type_that_belongs_on_it(ref: Ref, id_: str) -> None:
    """Every type of the catalogue has its place: invocations on inv, dead letters on dlq, the rest on ctl."""
    for type_ in events.CATALOGUE:
        _, noun, name = type_.split(".")
        place = {"invocation": ref.event(name), "deadletter": ref.dead_letter}.get(
            noun, subjects.control(noun, id_, name)
        )
        assert subjects.type_of(place) == type_
    assert subjects.type_of(f"{ref.prefix}.deeper.requested") == ""
    assert subjects.type_of("spend.shop.day") == ""
