"""The users of a fleet's own server: generated passwords, one file for each user, and the server's permissions from data.

What each user may do is in ``infra/nats/users.toml``. Passwords are made once for each home and kept in
``HOME/credentials/<user>.json``, as a login in the form of a nats context. A file that is damaged is made anew: its user gets
another password at the next start of the server, and nobody else is touched.
"""

from __future__ import annotations

import secrets
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import structlog

from bus import context as contexts
from bus.context import Context
from services.home import Home, write_json

log = structlog.get_logger()

#: The data.
USERS_FILE = Path(__file__).parents[1] / "infra" / "nats" / "users.toml"
#: The user of people.
OPERATOR = "operator"
#: The user of drills.
DRILL = "drill"
#: The user of handlers' child processes.
AGENTS = "agents"


class Permission(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Subjects; what is denied is denied, whatever is allowed."""

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()


class User(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One user."""

    #: Why it may do what it may.
    why: str
    publish: Permission = Permission()
    subscribe: Permission = Permission()


def users() -> dict[str, User]:
    """All users, by name."""
    return msgspec.convert(tomllib.loads(USERS_FILE.read_text()), type=dict[str, User])


def file(home: Home, user: str) -> Path:
    """Where a user's login is kept."""
    return home.credentials / f"{user}.json"


def make(home: Home) -> dict[str, Context]:
    """The login of each user, made where there is none yet.

    Raises:
        HomeUnusable: the home cannot be written.
    """
    found: dict[str, Context] = {}
    for user in users():
        login = _read(file(home, user))
        if login is None or login.user != user or not login.password:
            login = Context(url="", user=user, password=secrets.token_urlsafe(24))
            write_json(file(home, user), login)
        found[user] = login
    return found


def authorization(logins: dict[str, Context]) -> dict[str, Any]:
    """The server's configuration for these logins."""
    listed = []
    for name, user in users().items():
        permissions: dict[str, Any] = {}
        for what, permission in (("publish", user.publish), ("subscribe", user.subscribe)):
            lists = {
                kind: list(values)
                for kind, values in (("allow", permission.allow), ("deny", permission.deny))
                if values
            }
            if lists:
                permissions[what] = lists
        entry: dict[str, Any] = {"user": logins[name].user, "password": logins[name].password}
        listed.append(entry | ({"permissions": permissions} if permissions else {}))
    return {"authorization": {"users": listed}}


def load(home: Home, user: str) -> Context:
    """The login of one user at the fleet's server; on a server that is not ours, the login that the fleet was given.

    Raises:
        BusUnreachable: no fleet runs in this home.
        HomeUnusable: its address cannot be read.
    """
    where = contexts.load(home.path, None, None, {})
    return as_user(home, where, user)


def as_user(home: Home, where: Context, user: str) -> Context:
    """The same server as another user; unchanged where the logins are not ours."""
    login = _read(file(home, user)) if where.user == OPERATOR else None
    if login is None:
        return where
    return msgspec.structs.replace(where, user=login.user, password=login.password)


def _read(path: Path) -> Context | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Context)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as exc:
        log.warning("login_unreadable", file=str(path), error=str(exc), action="making another")
        return None
