"""The registry as a runner sees it: roles and prompts by name, each with its KV revision.

Read from the bucket ``registry`` and kept up to date by watching it. A value that cannot be used never takes a working role
away: the last good one stays, also over a restart, and the error is logged and kept with the key and the reason.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
import structlog

from bus import errors, subjects, wire
from bus.bucket import Bucket, Entry, Write
from bus.events.moment import Moment
from bus.invocation import Limits
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

log = structlog.get_logger()

T = TypeVar("T")

_UNKNOWN = Limits(idempotent=False)
#: Headers of a value: who put it, why, and the action that it belongs to.
WHO, WHY, OPERATION = "Systems-Actor", "Systems-Reason", "Systems-Operation"


class RegisteredRole(msgspec.Struct, frozen=True, kw_only=True):
    """A role under the revision that names it in claims."""

    project: str
    name: str
    role: Role
    revision: int
    limits: Limits

    @property
    def path(self) -> str:
        """``project/role``."""
        return f"{self.project}/{self.name}"


class RegisteredPrompt(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt's text and its digest."""

    text: str
    digest: str
    revision: int


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


class RefusedValue(msgspec.Struct, frozen=True, kw_only=True):
    """A value that is not in effect."""

    revision: int
    sentence: str
    #: Revision that is in effect instead; 0 for none.
    kept: int


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
_WHOLE: dict[str, Any] = {
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
    puts = [Write(key, wanted[key]) for key in sorted(wanted, key=_order) if present.get(key) != wanted[key]]
    gone = sorted(present.keys() - wanted.keys(), key=_order, reverse=True)
    return [*puts, *(Write(key, None) for key in gone)]


def _order(key: str) -> tuple[int, str]:
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
    if key in _WHOLE:
        return value.read(key, raw, _WHOLE[key])
    raise ValueError(
        f"expected a key such as roles.shop.coder or prompts.rules, or one of {', '.join(_WHOLE)}, got: {key!r}"
    )


def _keep(table: dict[str, T], name: str, what: T | None) -> None:
    if what is None:
        table.pop(name, None)
    else:
        table[name] = what


class Registry:
    """Roles, prompts and settings, kept up to date. `on_change` is called with each key that changed, after it took effect."""

    def __init__(self, bucket: Bucket | None = None, entries: Iterable[Entry] = ()) -> None:
        """A registry of a bucket that is still to be read; or of entries alone, which stay as they are.

        Args:
            bucket: where to read.
            entries: what is known already.
        """
        self._source = bucket
        self.roles: dict[tuple[str, str], RegisteredRole] = {}
        self.prompts: dict[str, RegisteredPrompt] = {}
        self.projects: dict[str, Project] = {}
        self.quota = Quota()
        #: KV revision of the quota settings: the version of the prices.
        self.quota_revision = 0
        self.loop = LoopLimits()
        self.monitor = Monitor()
        self.settings = Settings()
        #: Caps set by people, by scope token.
        self.overrides: dict[str, tuple[CapOverride, ...]] = {}
        #: Limits of roles that were removed: some of their work may still be unfinished.
        self._left: dict[tuple[str, str], Limits] = {}
        #: KV revision of the newest value read.
        self.revision = 0
        #: The bucket's revision up to which everything was looked at.
        self.seen = 0
        #: The values in effect, by key.
        self.values: dict[str, bytes] = {}
        #: Their revisions.
        self.revisions: dict[str, int] = {}
        #: Newer values that are not in effect, by key.
        self.refused: dict[str, RefusedValue] = {}
        self._waiting: dict[str, Entry] = {}
        self.on_change: Callable[[str], None] | None = None
        #: Called after each look at a change, whatever became of it.
        self.listeners: list[Callable[[], None]] = []
        self._task: asyncio.Task[None] | None = None
        for entry in entries:
            self._take(entry)

    @property
    def _bucket(self) -> Bucket:
        assert self._source is not None
        return self._source

    async def load(self) -> None:
        """Read everything once. Of a key whose value cannot be used the newest one that can is taken."""
        seen = await self._bucket.revision()
        items = await self._bucket.items()
        for entry in sorted(items.values(), key=lambda entry: _order(entry.key)):
            if not self._take(entry) and entry.key not in self.values:
                await self._fall_back(entry)
        for key in self.values.keys() - items.keys():
            if self.revisions[key] <= seen:
                entry = Entry(key=key, value=b"", revision=seen, created=datetime.now(UTC), gone=True)
                self._take(entry)
        self.seen = max(self.seen, seen)

    async def _fall_back(self, entry: Entry) -> None:
        for older in reversed(await self._bucket.history(entry.key)):
            if older.revision < entry.revision and not older.gone and self._take(older, quietly=True):
                refused = self.refused[entry.key]
                self.refused[entry.key] = msgspec.structs.replace(refused, kept=older.revision)
                return

    async def refresh(self, key: str) -> None:
        """Read one key now, without waiting for the watcher to come to it."""
        entry = await self._bucket.get(key)
        if entry is not None:
            self._take(entry)

    async def open(self) -> None:
        """Read everything, then keep watching."""
        await self.load()
        self._task = asyncio.create_task(self._watch(), name="registry")

    async def close(self) -> None:
        """Stop watching."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        seen = self.seen
        async for entry in self._bucket.watch():
            if entry.revision <= seen:
                continue
            if self._take(entry):
                self._changed(entry.key)
                # What was refused because it names what was not there yet may be good now.
                for key, waiting in list(self._waiting.items()):
                    if key != entry.key and self._take(waiting, quietly=True):
                        self._changed(key)
            self.seen = max(self.seen, entry.revision)
            for listener in self.listeners:
                listener()

    def _changed(self, key: str) -> None:
        if self.on_change is not None:
            self.on_change(key)

    def _take(self, entry: Entry, *, quietly: bool = False) -> bool:
        """Let a value take effect: False if it cannot be used, and what was there before stays."""
        key = entry.key
        if self.revisions.get(key, 0) >= entry.revision:
            return True
        try:
            self._read(entry)
        except (ValueError, errors.BusError) as exc:
            sentence = exc.sentence if isinstance(exc, value.BadValue) else str(exc)
            if not quietly:
                kept = self.revisions.get(key, 0)
                self.refused[key] = RefusedValue(revision=entry.revision, sentence=sentence, kept=kept)
                self._waiting[key] = entry
                log.error("registry_value_refused", key=key, revision=entry.revision, error=sentence, kept=kept)
            return False
        if key not in self.refused or self.refused[key].revision <= entry.revision:
            self.refused.pop(key, None)
            self._waiting.pop(key, None)
        self.revisions[key] = entry.revision
        if entry.gone:
            self.values.pop(key, None)
        else:
            self.values[key] = entry.value
        self.revision = max(self.revision, entry.revision)
        return True

    def fault(self, key: str, raw: bytes) -> str:
        """What keeps a value from taking effect under a key now; empty for nothing."""
        return fault(key, raw, self.prompts)

    def _read(self, entry: Entry) -> None:
        """Let a value take effect, or its end."""
        key, kind, name = entry.key, *entry.key.partition(".")[::2]
        parsed = None if entry.gone else parse(key, entry.value, self.prompts)
        match kind:
            case "roles":
                self._take_role(name, entry, parsed)
            case "prompts":
                digest = f"sha-256:{hashlib.sha256(entry.value).hexdigest()}"
                prompt = (
                    None if parsed is None else RegisteredPrompt(text=parsed, digest=digest, revision=entry.revision)
                )
                _keep(self.prompts, name, prompt)
            case "projects":
                _keep(self.projects, name, parsed)
            case "caps":
                _keep(self.overrides, name, parsed)
            case "settings" if key in _WHOLE:
                default = None if key == FILE_KEY else _WHOLE[key]()
                self.settings = msgspec.structs.replace(self.settings, **{name: parsed or default})
        if key == QUOTA_KEY:
            self.quota, self.quota_revision = parsed or Quota(), entry.revision
        elif key == LOOP_KEY:
            self.loop = parsed or LoopLimits()
        elif key == MONITOR_KEY:
            self.monitor = parsed or Monitor()

    def _take_role(self, name: str, entry: Entry, role: Role | None) -> None:
        project, _, role_name = name.partition(".")
        if role is None:
            left = self.roles.pop((project, role_name), None)
            if left is not None:
                self._left[project, role_name] = left.limits
            return
        self.roles[project, role_name] = RegisteredRole(
            project=project, name=role_name, role=role, revision=entry.revision, limits=role.limits
        )

    def role(self, project: str, name: str) -> RegisteredRole:
        """A role by name.

        Raises:
            UnknownName: there is none; the sentence suggests the closest one.
        """
        found = self.roles.get((project, name))
        if found is None:
            raise errors.UnknownName("role", f"{project}/{name}", (f"{p}/{r}" for p, r in self.roles))
        return found

    def limits(self, project: str, name: str) -> Limits:
        """A role's limits; its last ones when it is no longer registered.

        Of a role that was never seen nothing is known, also not that its work may run twice.
        """
        found = self.roles.get((project, name))
        return found.limits if found is not None else self._left.get((project, name), _UNKNOWN)

    def prompt(self, role: Role) -> RegisteredPrompt | None:
        """The prompt of a role, if it has one."""
        return self.prompts.get(role.prompt) if role.prompt else None
