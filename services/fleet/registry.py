"""The registry as a runner sees it: roles and prompts by name, each with its KV revision.

Read from the bucket ``registry`` and kept up to date by watching it. A value that cannot be used never takes a working role
away: the last good one stays, also over a restart, and the error is logged and kept with the key and the reason.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TypeVar

import msgspec
import structlog

from bus import errors
from bus.bucket import Bucket, Entry
from bus.invocation import Limits
from services.fleet import value
from services.fleet.entries import (
    FILE_KEY,
    LOOP_KEY,
    MONITOR_KEY,
    QUOTA_KEY,
    WHOLE,
    CapOverride,
    Settings,
    fault,
    order,
    parse,
)
from services.fleet.spec import LoopLimits, Monitor, Project, Quota, Role

log = structlog.get_logger()


T = TypeVar("T")


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


class RefusedValue(msgspec.Struct, frozen=True, kw_only=True):
    """A value that is not in effect."""

    revision: int
    sentence: str
    #: Revision that is in effect instead; 0 for none.
    kept: int


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
        for entry in sorted(items.values(), key=lambda entry: order(entry.key)):
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
            case "settings" if key in WHOLE:
                default = None if key == FILE_KEY else WHOLE[key]()
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
