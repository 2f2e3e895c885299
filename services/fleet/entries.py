"""The registry's keys and values: what a fleet is as entries, what an entry says, and how many are put at once."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from bus import errors, subjects, wire
from bus.bucket import Bucket, Write
from bus.events.moment import Moment
from services.fleet import value
from services.fleet.daemons import Daemons
from services.fleet.duty import Escalation, Hours, Incidents, Person, Rotation
from services.fleet.operations import Deploying, Drills, Reload
from services.fleet.slack import Slack
from services.fleet.spec import (
    Archive,
    Fleet,
    LoopLimits,
    Monitor,
    NamedQueries,
    Project,
    Projector,
    Quota,
    Role,
    Server,
    Unit,
    Window,
)

#: Headers of a value: who put it, why, and the action that it belongs to.
WHO, WHY, OPERATION = "Systems-Actor", "Systems-Reason", "Systems-Operation"


class CapOverride(msgspec.Struct, frozen=True, kw_only=True):
    """A cap that a person set over the fleet file's: by scope, unit and window. Survives every `up`."""

    unit: Unit
    window: Window
    cap: float
    by: str
    reason: str
    at: Moment
    #: When the fleet file's own cap counts again; None for never.
    until: Moment | None = None


class AppliedFile(msgspec.Struct, frozen=True, kw_only=True):
    """The fleet file that was taken last."""

    path: str
    host: str
    #: Digest of what it said, whatever its layout.
    digest: str
    #: Digest of the value that it gave to each key: what it has not changed since stays as people have set it.
    keys: dict[str, str] = {}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What belongs to no project and no guard."""

    server: Server = Server()
    daemons: Daemons = Daemons()
    reload: Reload = Reload()
    deploy: Deploying = Deploying()
    drills: Drills = Drills()
    projector: Projector = Projector()
    queries: NamedQueries = NamedQueries()
    archive: Archive = Archive()
    incidents: Incidents = Incidents()
    people: dict[str, Person] = {}
    rotations: dict[str, Rotation] = {}
    hours: dict[str, Hours] = {}
    escalation: dict[str, Escalation] = {}
    slack: Slack = Slack()
    file: AppliedFile | None = None


#: Keys of the whole system's settings.
QUOTA_KEY = "guards.quota"
LOOP_KEY = "guards.loop"
MONITOR_KEY = "guards.monitor"
SERVER_KEY = "settings.server"
DAEMONS_KEY = "settings.daemons"
RELOAD_KEY = "settings.reload"
DEPLOY_KEY = "settings.deploy"
DRILLS_KEY = "settings.drills"
PROJECTOR_KEY = "settings.projector"
QUERIES_KEY = "settings.queries"
ARCHIVE_KEY = "settings.archive"
SLACK_KEY = "settings.slack"
FILE_KEY = "settings.file"
INCIDENTS_KEY = "settings.incidents"
#: Tables of named tables, each as one value: what they hold names one another.
PEOPLE_KEY = "settings.people"
ROTATIONS_KEY = "settings.rotations"
HOURS_KEY = "settings.hours"
ESCALATION_KEY = "settings.escalation"
WHOLE: dict[str, Any] = {
    QUOTA_KEY: Quota,
    LOOP_KEY: LoopLimits,
    MONITOR_KEY: Monitor,
    SERVER_KEY: Server,
    DAEMONS_KEY: Daemons,
    RELOAD_KEY: Reload,
    DEPLOY_KEY: Deploying,
    DRILLS_KEY: Drills,
    PROJECTOR_KEY: Projector,
    QUERIES_KEY: NamedQueries,
    ARCHIVE_KEY: Archive,
    SLACK_KEY: Slack,
    FILE_KEY: AppliedFile,
    INCIDENTS_KEY: Incidents,
    PEOPLE_KEY: dict[str, Person],
    ROTATIONS_KEY: dict[str, Rotation],
    HOURS_KEY: dict[str, Hours],
    ESCALATION_KEY: dict[str, Escalation],
}
#: What a key begins with, in the order in which values are taken: a role names a prompt.
_KINDS = ("prompts", "settings", "guards", "projects", "caps", "roles")


def caps_key(scope: str) -> str:
    """Key of the caps that people set for a scope token (``system``, ``shop``, ``shop_coder``): a list of overrides."""
    return f"caps.{scope}"


def role_key(project: str, role: str) -> str:
    """Key of a role."""
    return f"roles.{project}.{role}"


def prompt_key(name: str) -> str:
    """Key of a prompt."""
    return f"prompts.{name}"


def project_key(name: str) -> str:
    """Key of a project's own settings, without its roles."""
    return f"projects.{name}"


def entries(fleet: Fleet, prompts: dict[str, str]) -> dict[str, bytes]:
    """A fleet as the registry's keys and values, what others name first."""
    found: dict[str, bytes] = {}
    for name, text in prompts.items():
        found[prompt_key(name)] = text.encode()
    found[SERVER_KEY] = msgspec.json.encode(_public(fleet.server))
    found[DAEMONS_KEY] = msgspec.json.encode(fleet.daemons)
    found[RELOAD_KEY] = msgspec.json.encode(fleet.reload)
    found[DEPLOY_KEY] = msgspec.json.encode(fleet.deploy)
    found[QUOTA_KEY] = msgspec.json.encode(fleet.quota)
    found[DRILLS_KEY] = msgspec.json.encode(fleet.drills)
    found[PROJECTOR_KEY] = msgspec.json.encode(fleet.projector)
    found[QUERIES_KEY] = msgspec.json.encode(fleet.queries)
    found[ARCHIVE_KEY] = msgspec.json.encode(fleet.archive)
    found[SLACK_KEY] = msgspec.json.encode(fleet.slack)
    found[LOOP_KEY] = msgspec.json.encode(fleet.loop)
    found[MONITOR_KEY] = msgspec.json.encode(fleet.monitor)
    found[INCIDENTS_KEY] = msgspec.json.encode(fleet.incidents)
    found[PEOPLE_KEY] = msgspec.json.encode(fleet.people)
    found[ROTATIONS_KEY] = msgspec.json.encode(fleet.rotations)
    found[HOURS_KEY] = msgspec.json.encode(fleet.hours)
    found[ESCALATION_KEY] = msgspec.json.encode(fleet.escalation)
    for name, project in fleet.projects.items():
        found[project_key(name)] = msgspec.json.encode(msgspec.structs.replace(project, roles={}))
    for (project_name, name), role in fleet.roles().items():
        found[role_key(project_name, name)] = msgspec.json.encode(role)
    return found


def _public(server: Server) -> Server:
    """The server without a login in its address: everybody on the bus may read the registry."""
    urls = (
        scheme + at + rest.rpartition("@")[2]
        for scheme, at, rest in (u.partition("://") for u in server.url.split(","))
    )
    return msgspec.structs.replace(server, url=",".join(urls))


def provenance(who: str, why: str, operation: str = "") -> dict[str, str]:
    """The headers that say where a value comes from; of several lines of `why` one is made."""
    return {name: " ".join(text.split()) for name, text in ((WHO, who), (WHY, why), (OPERATION, operation)) if text}


def digests(values: Mapping[str, bytes]) -> dict[str, str]:
    """A short digest of each value. Pure."""
    return {key: hashlib.sha256(value).hexdigest()[:12] for key, value in values.items()}


def changes(present: Mapping[str, bytes], wanted: Mapping[str, bytes]) -> list[Write]:
    """The writes that make one registry out of another: what others name is put first and deleted last. Pure."""
    puts = [Write(key, wanted[key]) for key in sorted(wanted, key=order) if present.get(key) != wanted[key]]
    gone = sorted(present.keys() - wanted.keys(), key=order, reverse=True)
    return [*puts, *(Write(key, None) for key in gone)]


def order(key: str) -> tuple[int, str]:
    """Sorts keys so that what others name comes first."""
    kind = key.partition(".")[0]
    return (_KINDS.index(kind) if kind in _KINDS else len(_KINDS), key)


async def publish(bucket: Bucket, wanted: dict[str, bytes], headers: Mapping[str, str] = {}) -> list[str]:
    """Bring the bucket to `wanted`, all at once: the keys that were changed or removed.

    Raises:
        Unanswered: it may be done, or not; doing it again does no harm.
    """
    while True:
        revision = await bucket.revision()
        writes = changes({key: entry.value for key, entry in (await bucket.items()).items()}, wanted)
        if not writes:
            return []
        try:
            for first in range(0, len(writes), wire.BATCH_LIMIT):
                part = writes[first : first + wire.BATCH_LIMIT]
                revision = await bucket.put_all(part, expect_last=revision, headers=headers)
        except errors.SequenceConflict:
            continue  # somebody put something meanwhile: look again
        return [write.key for write in writes]


def fault(key: str, raw: bytes, prompts: Collection[str]) -> str:
    """What keeps a value from taking effect under a key; empty for nothing."""
    try:
        parse(key, raw, prompts)
    except (ValueError, errors.BusError) as exc:
        return exc.sentence if isinstance(exc, value.BadValue) else str(exc)
    return ""


def parse(key: str, raw: bytes, prompts: Collection[str]) -> Any:
    """A value as what its key stands for; `prompts` are the names that a role may name.

    Raises:
        BadValue, ValueError, BadSubject: it cannot be used.
    """
    kind, _, name = key.partition(".")
    match kind:
        case "roles":
            # The fleet file's checks hold for a value that was put by hand as well.
            project, dot, role_name = name.partition(".")
            if not dot:
                raise ValueError(f"expected a key roles.<project>.<role>, got: {key!r}")
            subjects.check_name("a project", project)
            subjects.check_name("a role", role_name)
            return value.read(key, raw, Role, prompts)
        case "prompts":
            return value.text(key, raw)
        case "projects":
            return value.read(key, raw, Project)
        case "caps":
            return value.read(key, raw, tuple[CapOverride, ...])
    if key in WHOLE:
        return value.read(key, raw, WHOLE[key])
    raise ValueError(
        f"expected a key such as roles.shop.coder or prompts.rules, or one of {', '.join(WHOLE)}, got: {key!r}"
    )
