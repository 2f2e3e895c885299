"""The settings in effect as the tables of a fleet file, and back: paths into them, and how two of them differ. Pure."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import msgspec

from bus import errors
from bus.events.topology import Change
from services.fleet.entries import FILE_KEY
from services.fleet.slack import AT_START as SLACK_AT_START
from services.fleet.spec import SANDBOX, Fleet

Tables = dict[str, Any]
Path = tuple[str, ...]

#: Kinds of keys that a fleet file stands for; caps that people set have commands of their own.
_KINDS = ("prompts", "projects", "roles", "guards", "settings")
#: A role's settings, the short way: ``shop/coder.timeout``.
_ROLE = re.compile(r"([a-z0-9-]+)/([a-z0-9-]+)((?:\..*)?)")
#: Settings that bound what may be spent and tried: a change asks for a decision.
_POLICY = frozenset({"caps", "max_tokens", "max_usd", "max_attempts", "max_crashes"})


class BadPath(errors.BusError):
    """A path that leads to no setting."""


def is_setting(key: str) -> bool:
    """Whether a registry key is one that a fleet file stands for."""
    kind, _, name = key.partition(".")
    return kind in _KINDS and key != FILE_KEY and name.partition(".")[0] != SANDBOX


def of_values(values: Mapping[str, bytes]) -> Tables:
    """Registry values as tables; each must be good."""
    found: Tables = {}
    for key in sorted(values):
        if not is_setting(key):
            continue
        kind, _, name = key.partition(".")
        value = values[key]
        if kind == "prompts":
            found.setdefault("prompts", {})[name] = {"text": value.decode()}
            continue
        table = msgspec.json.decode(value)
        match kind:
            case "guards" | "settings":
                if table:
                    found[name] = table
            case "projects":
                found.setdefault("projects", {}).setdefault(name, {}).update(table)
            case "roles":
                project, _, role = name.partition(".")
                its = found.setdefault("projects", {}).setdefault(project, {})
                its.setdefault("roles", {})[role] = table
    return found


def complete(value: Any) -> Any:
    """A Struct with everything in it, its defaults too, as tables."""
    if isinstance(value, msgspec.Struct):
        tag = {"kind": value.__struct_config__.tag} if value.__struct_config__.tag else {}
        return tag | {name: complete(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, dict):
        return {key: complete(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return [complete(inner) for inner in value]
    return msgspec.to_builtins(value)


def path(text: str) -> Path:
    """``loop.depth``, ``projects.shop.roles.coder.timeout`` or ``shop/coder.timeout`` as keys.

    Raises:
        BadPath: it is none.
    """
    short = _ROLE.fullmatch(text)
    if short is not None:
        text = f"projects.{short[1]}.roles.{short[2]}{short[3]}"
    bad = BadPath(
        f"expected a setting such as loop.depth or shop/coder.timeout, got: {text!r}; see `systems config get`"
    )
    if "\n" in text:
        raise bad
    try:
        found: Any = tomllib.loads(f"{text} = 0")
    except tomllib.TOMLDecodeError as exc:
        raise bad from exc
    keys: list[str] = []
    while isinstance(found, dict):
        (key,) = found
        keys.append(key)
        found = found[key]
    return tuple(keys)


def value(text: str) -> Any:
    """A value as TOML has it; a plain word is a text."""
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text


def dotted(keys: Path) -> str:
    """A path as people write it."""
    return ".".join(key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else msgspec.json.encode(key).decode() for key in keys)


def get(tables: Tables, keys: Path) -> Any:
    """What lies at a path.

    Raises:
        UnknownName: nothing does; the sentence suggests what is near.
    """
    found: Any = tables
    for place, key in enumerate(keys):
        if not isinstance(found, dict) or key not in found:
            known = [dotted((*keys[:place], name)) for name in found] if isinstance(found, dict) else []
            raise errors.UnknownName("setting", dotted(keys), known)
        found = found[key]
    return found


def put(tables: Tables, keys: Path, what: Any) -> None:
    """Set what lies at a path, making the tables on the way; whether it belongs there is the checks' to say.

    Raises:
        BadPath: a value is in the way.
    """
    for place, key in enumerate(keys[:-1], 1):
        tables = tables.setdefault(key, {})
        if not isinstance(tables, dict):
            raise BadPath(f"expected {dotted(keys[:place])} to be a table, got: a value; see `systems config get`")
    tables[keys[-1]] = what


def remove(tables: Tables, keys: Path) -> None:
    """Take out what lies at a path: its default counts again.

    Raises:
        UnknownName: nothing does.
    """
    get(tables, keys)
    del get(tables, keys[:-1])[keys[-1]]


def flat(table: Mapping[str, Any], above: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Each value with its path, in the order of the tables."""
    for key, inner in table.items():
        if isinstance(inner, dict) and inner:
            yield from flat(inner, (*above, key))
        else:
            yield (*above, key), inner


def differences(before: Tables, after: Tables) -> tuple[Change, ...]:
    """What differs, setting by setting."""
    old, new = dict(flat(before)), dict(flat(after))
    for these, those in ((old, new), (new, old)):
        for keys in [keys for keys, what in these.items() if what == {}]:
            # An empty table that is filled on the other side is told by what it is filled with.
            if any(other[: len(keys)] == keys and other != keys for other in those):
                del these[keys]
    return tuple(
        Change(field=dotted(keys), before=_json(old.get(keys)), after=_json(new.get(keys)))
        for keys in sorted(old.keys() | new.keys())
        if old.get(keys) != new.get(keys)
    )


def _json(what: Any) -> str:
    return msgspec.json.encode(what).decode()


def policies(changed: Collection[Change]) -> tuple[str, ...]:
    """Those of the changed settings that are policy: limits of guards, caps, and who may act from Slack."""
    return tuple(change.field for change in changed if _is_policy(path(change.field)))


def _is_policy(keys: Path) -> bool:
    return (
        keys[0] in ("quota", "loop") or keys[:2] == ("slack", "permissions") or any(key in _POLICY for key in keys[2:])
    )


#: Tables that are read once, when the launcher starts.
_AT_START = frozenset({"archive", "daemons", "drills", "projector", "queries", "server"})


def late(changed: Collection[Change]) -> tuple[str, ...]:
    """Those of the changed settings that take effect at the next start of the fleet only."""
    return tuple(change.field for change in changed if _is_late(path(change.field)))


def _is_late(keys: Path) -> bool:
    return keys[0] in _AT_START or (keys[0] == "slack" and keys[1:2] != () and keys[1] in SLACK_AT_START)


def unreachable(changed: Collection[Change]) -> tuple[str, ...]:
    """Those that are needed before there is a bus to read them from: only the fleet file can change them."""
    return tuple(change.field for change in changed if path(change.field)[0] == "server")


def full(fleet: Fleet) -> Tables:
    """A fleet with all its defaults."""
    found: Tables = complete(fleet)
    return found
