"""The registry as a runner sees it: roles and prompts by name, each with its KV revision.

Read from the bucket ``registry`` and kept up to date by watching it. A value that cannot be read never takes a working
role away: the last good one stays, and the error is logged with the key and the reason.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable

import msgspec
import structlog

from bus import errors, subjects
from bus.bucket import Bucket, Entry
from bus.events.moment import Moment
from bus.invocation import Limits
from services.fleet import cron
from services.fleet.schema import check_schema
from services.fleet.spec import Fleet, LoopLimits, Monitor, Project, Quota, Role, Unit, Window

log = structlog.get_logger()

_UNKNOWN = Limits(idempotent=False)


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


#: Keys of the whole system's settings.
QUOTA_KEY = "guards.quota"
LOOP_KEY = "guards.loop"
MONITOR_KEY = "guards.monitor"


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
    """A fleet as the registry's keys and values."""
    found: dict[str, bytes] = {}
    for name, project in fleet.projects.items():
        found[project_key(name)] = msgspec.json.encode(msgspec.structs.replace(project, roles={}))
    for (project_name, name), role in fleet.roles().items():
        found[role_key(project_name, name)] = msgspec.json.encode(role)
    for name, text in prompts.items():
        found[prompt_key(name)] = text.encode()
    found[QUOTA_KEY] = msgspec.json.encode(fleet.quota)
    found[LOOP_KEY] = msgspec.json.encode(fleet.loop)
    found[MONITOR_KEY] = msgspec.json.encode(fleet.monitor)
    return found


async def publish(bucket: Bucket, wanted: dict[str, bytes]) -> list[str]:
    """Bring the bucket to `wanted`: the keys that were changed or removed."""
    present = await bucket.items()
    changed: list[str] = []
    for key, value in wanted.items():
        entry = present.get(key)
        if entry is None or entry.value != value:
            await bucket.put(key, value)
            changed.append(key)
    for key in present.keys() - wanted.keys():
        await bucket.delete(key)
        changed.append(key)
    return changed


class Registry:
    """Roles and prompts, kept up to date. `on_change` is called with each key that changed, after it took effect."""

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
        #: Caps set by people, by scope token.
        self.overrides: dict[str, tuple[CapOverride, ...]] = {}
        #: Limits of roles that were removed: some of their work may still be unfinished.
        self._left: dict[tuple[str, str], Limits] = {}
        #: KV revision of the newest value read.
        self.revision = 0
        self.on_change: Callable[[str], None] | None = None
        self._task: asyncio.Task[None] | None = None
        for entry in entries:
            self._take(entry)

    @property
    def _bucket(self) -> Bucket:
        assert self._source is not None
        return self._source

    async def load(self) -> None:
        """Read everything once."""
        for entry in (await self._bucket.items()).values():
            self._take(entry)

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
        seen = self.revision
        async for entry in self._bucket.watch():
            if entry.revision > seen and self._take(entry) and self.on_change is not None:
                self.on_change(entry.key)

    def _take(self, entry: Entry) -> bool:  # noqa: PLR0912 (one arm for each kind of key)
        kind, _, name = entry.key.partition(".")
        try:
            match kind:
                case "roles":
                    self._take_role(name, entry)
                case "prompts":
                    if entry.gone:
                        self.prompts.pop(name, None)
                    else:
                        text = entry.value.decode()
                        digest = f"sha-256:{hashlib.sha256(entry.value).hexdigest()}"
                        self.prompts[name] = RegisteredPrompt(text=text, digest=digest, revision=entry.revision)
                case "projects":
                    if entry.gone:
                        self.projects.pop(name, None)
                    else:
                        self.projects[name] = msgspec.json.decode(entry.value, type=Project)
                case "guards":
                    self._take_guard(name, entry)
                case "caps":
                    if entry.gone:
                        self.overrides.pop(name, None)
                    else:
                        self.overrides[name] = msgspec.json.decode(entry.value, type=tuple[CapOverride, ...])
                case _:
                    raise ValueError("expected a key under roles., prompts., projects., guards. or caps.")  # noqa: TRY301 (one place logs all)
        except (msgspec.DecodeError, ValueError, RecursionError, errors.BusError) as exc:
            log.error(
                "registry_value_refused", key=entry.key, revision=entry.revision, error=str(exc), kept="last good"
            )
            return False
        self.revision = max(self.revision, entry.revision)
        return True

    def _take_guard(self, name: str, entry: Entry) -> None:
        match name:
            case "quota":
                self.quota = Quota() if entry.gone else msgspec.json.decode(entry.value, type=Quota)
                self.quota_revision = entry.revision
            case "loop":
                self.loop = LoopLimits() if entry.gone else msgspec.json.decode(entry.value, type=LoopLimits)
            case "monitor":
                self.monitor = Monitor() if entry.gone else msgspec.json.decode(entry.value, type=Monitor)
            case _:
                raise ValueError("expected guards.quota, guards.loop or guards.monitor")

    def _take_role(self, name: str, entry: Entry) -> None:
        project, dot, role_name = name.partition(".")
        if not dot:
            raise ValueError("expected a key roles.<project>.<role>")
        if entry.gone:
            left = self.roles.pop((project, role_name), None)
            if left is not None:
                self._left[project, role_name] = left.limits
            return
        present = self.roles.get((project, role_name))
        if present is not None and present.revision >= entry.revision:
            return
        # The fleet file's checks hold for a value that was put by hand as well: what nobody can carry out is refused whole.
        subjects.check_name("a project", project)
        subjects.check_name("a role", role_name)
        role = msgspec.json.decode(entry.value, type=Role)
        for schedule in role.schedules.values():
            cron.parse(schedule.cron, schedule.time_zone)
        if role.input_schema is not None:
            check_schema(role.input_schema)
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
