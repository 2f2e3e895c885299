"""The users of a fleet's own server: passwords that are made once, and the configuration made of the data."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from bus.context import Context
from services import credentials
from services.home import Home, write_json


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """An empty state directory."""
    home = Home(tmp_path / "home")
    home.prepare()
    return home


def test_passwords_are_made_once_for_each_home(home: Home, tmp_path: Path) -> None:
    """The next start finds the same logins; another home has others, and no two users share one."""
    first = credentials.make(home)
    assert credentials.make(home) == first
    other = Home(tmp_path / "other")
    other.prepare()
    second = credentials.make(other)
    passwords = [login.password for login in (*first.values(), *second.values())]
    assert len(set(passwords)) == len(passwords) == 2 * len(credentials.users())


def test_logins_are_readable_by_their_owner_alone(home: Home) -> None:
    """Each file has mode 0600."""
    credentials.make(home)
    assert {path.stat().st_mode & 0o777 for path in home.credentials.glob("*.json")} == {0o600}


@pytest.mark.parametrize(
    "damage", [b"{", b"", b"{}", b'{"url": "", "user": "operator", "password": "stolen"}', b"\xff"]
)
def test_damaged_login_is_made_anew_and_no_other(home: Home, damage: bytes) -> None:
    """A file that holds no login, or another user's, gets another password; everybody else keeps theirs."""
    before = credentials.make(home)
    credentials.file(home, "warden").write_bytes(damage)
    after = credentials.make(home)
    assert {user for user in before if before[user] != after[user]} == {"warden"}
    assert after["warden"].user == "warden"
    assert after["warden"].password not in {"", "stolen"}


def test_home_of_an_earlier_version_gets_logins(home: Home) -> None:
    """A home without the directory's files starts with all users."""
    assert not list(home.credentials.iterdir())
    assert set(credentials.make(home)) == set(credentials.users())


def test_daemon_goes_to_the_fleets_address_with_its_own_login(home: Home) -> None:
    """The address is that of the running fleet, the login is that of the daemon."""
    logins = credentials.make(home)
    write_json(home.server_file, msgspec.structs.replace(logins["operator"], url="nats://127.0.0.1:7"))
    assert credentials.load(home, "warden") == msgspec.structs.replace(logins["warden"], url="nats://127.0.0.1:7")


def test_login_of_another_server_is_left_alone(home: Home) -> None:
    """On a server that is not the fleet's own every daemon uses what the fleet was given."""
    credentials.make(home)
    given = Context(url="nats://far:4222", user="me", password="mine")
    write_json(home.server_file, given)
    assert credentials.load(home, "warden") == given


def test_configuration_holds_every_user_with_its_permissions(home: Home) -> None:
    """What the server is told is what the data says; a user without a list is not bound by one."""
    logins = credentials.make(home)
    listed = {entry["user"]: entry for entry in credentials.authorization(logins)["authorization"]["users"]}
    assert set(listed) == set(credentials.users())
    assert "permissions" not in listed["operator"]
    assert "inv.>" not in listed["agents"]["permissions"]["publish"]["allow"]
    assert "$KV.flags.kill_switch_hard" in listed["warden"]["permissions"]["publish"]["deny"]


def test_every_user_says_why_and_no_wildcard_is_a_part_of_a_token() -> None:
    """A star inside a token is no wildcard for the server: such a line would hold nobody."""
    for name, user in credentials.users().items():
        assert user.why, name
        for subject in (*user.publish.allow, *user.publish.deny, *user.subscribe.allow, *user.subscribe.deny):
            assert all(token in {"*", ">"} or not set("*>") & set(token) for token in subject.split(".")), subject
