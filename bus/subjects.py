"""Subjects are built and parsed here and nowhere else.

They are part of the user interface: ``nats sub 'inv.*.*.*.failed'`` is how a person watches a fleet with nothing but the
NATS command line.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from bus import errors

#: Projects, roles, schedules: they become subject tokens, consumer names and keys.
NAME_RULE = "[a-z0-9-]{1,40}"
_name = re.compile(NAME_RULE)
_token = re.compile(r"[A-Za-z0-9_-]{1,128}")


class Ref(NamedTuple):
    """Which invocation: its project, role and id."""

    project: str
    role: str
    id: str

    def __str__(self) -> str:
        return f"{self.project}/{self.role} {self.id}"

    @property
    def prefix(self) -> str:
        """``inv.<project>.<role>.<id>``, without a trailing dot."""
        return f"inv.{self.project}.{self.role}.{self.id}"

    def event(self, name: str) -> str:
        """The subject of one of its events."""
        return f"inv.{self.project}.{self.role}.{self.id}.{name}"

    @property
    def all(self) -> str:
        """The filter over all its events, which is also the scope of its fence."""
        return f"inv.{self.project}.{self.role}.{self.id}.>"

    @property
    def dead_letter(self) -> str:
        """Where its whole copy is kept when it is given up on."""
        return f"dlq.{self.project}.{self.role}.{self.id}"


def check_name(what: str, value: str) -> str:
    """The value, if it can be a name.

    Raises:
        BadSubject: it does not match :data:`NAME_RULE`.
    """
    if not _name.fullmatch(value):
        raise errors.BadSubject(what, value, NAME_RULE)
    return value


def check_token(what: str, value: str) -> str:
    """The value, if it can be one token of a subject (ids, boot ids, instance names)."""
    if not _token.fullmatch(value):
        raise errors.BadSubject(what, value, _token.pattern)
    return value


def is_token(value: str) -> bool:
    """Whether the value can be an id or a name, and so one token of a subject that is written to."""
    return _token.fullmatch(value) is not None


@lru_cache(1024)
def parse_role(value: str) -> tuple[str, str]:
    """``shop/coder`` as project and role.

    Raises:
        BadSubject: it is not two names with a slash between them.
    """
    project, slash, role = value.partition("/")
    if not slash or not _name.fullmatch(project) or not _name.fullmatch(role):
        raise errors.BadSubject("a role", value, f"PROJECT/ROLE, each {NAME_RULE}")
    return project, role


def parse_event(subject: str) -> tuple[Ref, str]:
    """An invocation event's subject as its reference and event name.

    Raises:
        BadSubject: it is not ``inv.<project>.<role>.<id>.<event>``.
    """
    tokens = subject.split(".")
    if len(tokens) != 5 or tokens[0] != "inv":
        raise errors.BadSubject("a subject", subject, "inv.<project>.<role>.<id>.<event>")
    return Ref(tokens[1], tokens[2], tokens[3]), tokens[4]


def type_of(subject: str) -> str:
    """The one CloudEvents type that belongs on a subject; empty where the subject does not name one."""
    tokens = subject.split(".")
    match tokens[0]:
        case "inv":
            return f"systems.invocation.{tokens[4]}" if len(tokens) == 5 else ""
        case "ctl":
            return f"systems.{tokens[1]}.{tokens[3]}" if len(tokens) == 4 else ""
        case "dlq":
            return "systems.deadletter.kept"
        case _:
            return ""


def control(noun: str, id_: str, event: str) -> str:
    """``ctl.<noun>.<id>.<event>``."""
    return f"ctl.{noun}.{check_token('an id', id_)}.{event}"


def role_requests(project: str, role: str) -> str:
    """What a role's consumer is filtered by: its work items."""
    return f"inv.{project}.{role}.*.requested"


def role_consumer(project: str, role: str) -> str:
    """The durable consumer of a role on INVOCATIONS."""
    return f"{project}_{role}"


def ask(project: str, role: str) -> str:
    """Where the ``requests`` service takes requests for a role."""
    return f"requests.{project}.{role}"


def progress(ref: Ref) -> str:
    """Where a running handler's progress is published: plain NATS, not kept."""
    return f"progress.{ref.project}.{ref.role}.{ref.id}"


def schedule(name: str) -> str:
    """Where a schedule is set; its ticks come on :func:`tick`. `name` may hold several tokens."""
    return f"sched.{name}"


def tick(name: str) -> str:
    """Where the server publishes the ticks of a schedule."""
    return f"tick.{name}"
