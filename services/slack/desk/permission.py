"""Who may do what from Slack: permissions as the fleet file has them, for users and groups of the workspace. Pure.

Nobody may do anything who is not named: a workspace has guests and people of other companies, and a status shows what agents
write. ``*`` in `view` lets every full member of the workspace look.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from services.fleet.slack import EVERYBODY, Permissions


class Permission(StrEnum):
    """What somebody may do; the fleet file's table ``[slack.permissions]`` has a list for each."""

    #: Look.
    VIEW = "view"
    #: Redrive, discard, pause, resume, restart, reload, deploy, raise caps, decide about what agents propose.
    OPERATE = "operate"
    #: Declare, acknowledge, command, update and close incidents.
    INCIDENT = "incident"
    #: Freeze and thaw.
    FREEZE = "freeze"
    #: Throw and clear a hard freeze.
    HARD = "hard"
    #: Ask the tables anything.
    SQL = "sql"


class Who(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody in Slack."""

    id: str
    name: str = ""
    #: Groups of the workspace that they are in.
    groups: frozenset[str] = frozenset()
    #: They are a full member of this workspace: no guest, no bot, nobody of another company.
    member: bool = True
    #: They have left the workspace.
    left: bool = False

    @property
    def actor(self) -> str:
        """How events name them: ``slack:U123 (ann)``."""
        name = " ".join("".join(c for c in self.name if c.isprintable() and c != "/").split())
        return f"slack:{self.id} ({name})" if name else f"slack:{self.id}"


#: Having the one is having the other.
_INCLUDES = {
    Permission.VIEW: tuple(Permission),
    Permission.FREEZE: (Permission.FREEZE, Permission.HARD),
}


def may(permissions: Permissions, who: Who, needs: Permission) -> bool:
    """Whether somebody has a permission: by name, by group, or because another one includes it."""
    if who.left:
        return False
    return any(_named(permissions, who, one) for one in _INCLUDES.get(needs, (needs,)))


def _named(permissions: Permissions, who: Who, one: Permission) -> bool:
    names = getattr(permissions, one.value)
    return who.id in names or not who.groups.isdisjoint(names) or (EVERYBODY in names and who.member)


def groups(permissions: Permissions) -> frozenset[str]:
    """The groups that are named anywhere."""
    return frozenset(name for one in Permission for name in getattr(permissions, one.value) if name.startswith("S"))


def no(who: Who, what: str, needs: Permission) -> str:
    """The sentence for somebody who may not."""
    if who.left:
        return f"{who.actor} is refused (not permitted): their account is deactivated, until it is active again"
    return (
        f"{who.actor} is refused (not permitted): {what} needs the permission {needs.value!r}, until it is granted; a person can "
        f'grant it: add "{who.id}" to {needs.value} in [slack.permissions] of the fleet file, then systems reload; '
        "still allowed: help"
    )
