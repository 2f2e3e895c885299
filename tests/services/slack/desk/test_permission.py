"""Who may do what from Slack."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.fleet.file import FleetFileError, from_tables
from services.fleet.slack import Permissions
from services.slack.desk.permission import Permission, Who, groups, may, no

ANN = Who(id="U1", name="ann")


@given(st.sampled_from(Permission))
def test_nobody_may_anything_by_default(needs: Permission) -> None:
    """Without a table of permissions Slack is a screen for nobody and a switch for nobody."""
    assert not may(Permissions(), ANN, needs)


@pytest.mark.parametrize(
    ("permissions", "needs", "allowed"),
    [
        (Permissions(view=("U1",)), Permission.VIEW, True),
        (Permissions(view=("U2",)), Permission.VIEW, False),
        (Permissions(view=("*",)), Permission.VIEW, True),
        (Permissions(view=("*",)), Permission.OPERATE, False),
        (Permissions(operate=("S1",)), Permission.OPERATE, True),
        (Permissions(operate=("S1",)), Permission.VIEW, True),
        (Permissions(operate=("S1",)), Permission.FREEZE, False),
        (Permissions(hard=("U1",)), Permission.FREEZE, True),
        (Permissions(freeze=("U1",)), Permission.HARD, False),
        (Permissions(freeze=("U1",)), Permission.SQL, False),
    ],
)
def test_permissions_are_by_user_and_group(permissions: Permissions, needs: Permission, allowed: bool) -> None:
    """A name or a group grants; hard includes freeze, and all include view."""
    who = Who(id="U1", name="ann", groups=frozenset({"S1"}))
    assert may(permissions, who, needs) is allowed


def test_guests_are_not_everybody_and_who_has_left_is_nobody() -> None:
    """The star means full members, and a deactivated account loses what was granted by name."""
    everybody, named = Permissions(view=("*",)), Permissions(hard=("U1",))
    assert not may(everybody, Who(id="U1", member=False), Permission.VIEW)
    assert not may(named, Who(id="U1", left=True), Permission.VIEW)


@given(st.text(max_size=30))
def test_a_name_in_events_is_one_line(name: str) -> None:
    """What somebody calls themselves in Slack cannot break the record."""
    actor = Who(id="U1", name=name).actor
    assert actor.startswith("slack:U1")
    assert actor.isprintable()


def test_a_no_says_what_would_change_it() -> None:
    """The refusal names the permission, the line of the fleet file, and what is still allowed."""
    sentence = no(ANN, "redrive", Permission.OPERATE)
    assert "slack:U1 (ann) is refused (not permitted): redrive needs the permission 'operate'" in sentence
    assert 'add "U1" to operate in [slack.permissions]' in sentence
    assert sentence.endswith("still allowed: help")


def test_the_groups_to_look_up_are_those_that_are_named() -> None:
    """Only groups are asked for, each once."""
    assert groups(Permissions(view=("S1", "U1"), hard=("S1", "S2"))) == {"S1", "S2"}


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"view": ["@ann"]}, "expected the id of a user or group, as 'U0123ABCD' or 'S0123ABCD', got: '@ann'"),
        ({"operate": ["*"]}, "expected ids of users or groups, got: '*', which is for view alone"),
        ({"admin": ["U1"]}, "unknown key 'admin'"),
    ],
)
def test_a_table_that_grants_nothing_sensible_is_refused(table: dict[str, list[str]], expected: str) -> None:
    """The fleet file's checks name the entry that is no id."""
    with pytest.raises(FleetFileError) as caught:
        from_tables({"slack": {"permissions": table}}, "the settings")
    assert expected in str(caught.value)
