"""What must be true of a fleet file's tables beyond the type of each value: one check for each kind of table.

A check sees the values of its table that could be read (others have their own problem already) and the names that the
whole file defines, and reports each fault with the path below its table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from bus import errors, subjects
from bus.spend import BadWindow, Calendar
from services.fleet import cron, reach, schema
from services.fleet.duty import Escalation, Hours, Rotation, Step
from services.fleet.place import Path
from services.fleet.slack import EVERYBODY, Permissions
from services.fleet.spec import (
    Backoff,
    Cap,
    Fleet,
    FunctionHandler,
    HttpHandler,
    LlmHandler,
    Monitor,
    Project,
    Quota,
    Role,
    Schedule,
    Server,
    Unit,
)
from services.quota import estimate

Values = Mapping[str, Any]
#: Called with the path below the table and the sentence.
Wrong = Callable[[Path, str], None]

#: Kinds of names, as a sentence calls them.
_MODEL, _PROJECT = "a model name", "a project name"
#: Scopes of spend that are no projects.
_RESERVED = ("system", "tree")

_TARGET = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


class Known(msgspec.Struct, frozen=True):
    """Names that the file defines, whether or not what they name is without fault."""

    #: Project -> its roles.
    roles: dict[str, set[str]]
    prompts: set[str]


def role(values: Values, known: Known, wrong: Wrong) -> None:
    """Limits that contradict each other, unknown names, a schema that is none, scheduled inputs that do not fit it."""
    concurrency, in_flight = values.get("concurrency", 1), values.get("max_in_flight")
    if in_flight is not None and in_flight < concurrency:
        wrong(
            ("max_in_flight",),
            f"expected at least concurrency ({concurrency}), got: {in_flight}; it counts the work of the whole fleet",
        )
    prompt = values.get("prompt")
    if prompt is not None and prompt not in known.prompts:
        hint = errors.did_you_mean(prompt, known.prompts) or f"; define it as a table [prompts.{prompt}]"
        wrong(("prompt",), f"unknown prompt {prompt!r}{hint}")
    for place, asked in enumerate(values.get("asks") or ()):
        fault = _asked(asked, known)
        if fault:
            wrong(("asks", place), fault)
    _schema(values, wrong)
    _caps(values, wrong)


def _asked(asked: str, known: Known) -> str:
    """What is wrong with an entry of `asks`; empty for nothing."""
    project, slash, name = asked.partition("/")
    if not slash:
        return f"expected PROJECT/ROLE or PROJECT/*, got: {asked!r}"
    if project not in known.roles:
        return f"unknown project {project!r}{errors.did_you_mean(project, known.roles)}"
    if name != "*" and name not in known.roles[project]:
        return f"unknown role {asked!r}{errors.did_you_mean(asked, (f'{project}/{r}' for r in known.roles[project]))}"
    return ""


def _schema(values: Values, wrong: Wrong) -> None:
    expected = values.get("input_schema")
    if expected is None:
        return
    try:
        schema.check_schema(expected)
    except schema.BadSchema as exc:
        wrong(("input_schema",), str(exc))
        return
    for name, schedule in values.get("schedules", {}).items():
        try:
            schema.check_value(expected, schedule.input)
        except schema.InputMismatch as exc:
            wrong(("schedules", name, "input"), f"does not fit the role's input_schema: {exc}")


def schedule(values: Values, _: Known, wrong: Wrong) -> None:
    """A cron that means nothing, or not the same to the server; an unknown time zone."""
    zone, text = values.get("time_zone", "UTC"), values.get("cron")
    try:
        cron.parse(text if text is not None else "@hourly", zone)
    except cron.BadZone as exc:
        wrong(("time_zone",), str(exc))
    except cron.BadCron as exc:
        wrong(("cron",), str(exc))


def backoff(values: Values, _: Known, wrong: Wrong) -> None:
    """A cap below the first wait."""
    defaults = Backoff()
    base, cap = values.get("base", defaults.base), values.get("cap", defaults.cap)
    if cap < base:
        wrong(
            ("cap",) if "cap" in values else ("base",), f"expected cap to be at least base ({base:g} s), got: {cap:g} s"
        )


def function(values: Values, _: Known, wrong: Wrong) -> None:
    """A target that names no callable."""
    target = values.get("target")
    if target is not None and not _TARGET.fullmatch(target):
        wrong(("target",), f"expected module:callable, as 'handlers:report', got: {target!r}")


def http(values: Values, _: Known, wrong: Wrong) -> None:
    """An address that cannot be asked."""
    _address("url", values.get("url"), wrong)


def llm(values: Values, _: Known, wrong: Wrong) -> None:
    """An address that cannot be asked."""
    _address("base_url", values.get("base_url") or None, wrong)


def _address(key: str, url: str | None, wrong: Wrong) -> None:
    if url is None:
        return
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        wrong((key,), f"expected an address such as 'https://host/path', got: {url!r}")


def server(values: Values, _: Known, wrong: Wrong) -> None:
    """A port for an embedded server that is not started."""
    if values.get("url") and values.get("port"):
        wrong(
            ("port",),
            f"expected no port beside url, got: {values['port']}; it is the embedded server's, which url replaces",
        )


def monitor(values: Values, known: Known, wrong: Wrong) -> None:
    """An address that cannot be called, a role that is not there, limits that contradict each other."""
    _address("ping_url", values.get("ping_url") or None, wrong)
    triage = values.get("triage", "")
    fault = _asked(triage, known) if triage else ""
    if fault or triage.endswith("/*"):
        wrong(("triage",), fault or f"expected one role, got: {triage!r}")
    defaults = Monitor()
    left = values.get("storage_left", defaults.storage_left)
    gone = values.get("storage_gone", defaults.storage_gone)
    if gone > left:
        wrong(("storage_gone",), f"expected at most storage_left ({left:g}), got: {gone:g}; it is the worse of the two")
    for place, allowed in enumerate(values.get("allow", ())):
        if len(allowed.split()) != 2:
            wrong(("allow", place), f"expected an action and its target, as 'restart agent_runner-*', got: {allowed!r}")


_MEMBER = re.compile(r"[UWS][A-Z0-9]{2,}")


def permissions(values: Values, _: Known, wrong: Wrong) -> None:
    """What is no id of a user or group; everybody where it is not about looking."""
    for name, ids in values.items():
        for place, id_ in enumerate(ids):
            if id_ == EVERYBODY and name != "view":
                wrong((name, place), f"expected ids of users or groups, got: {id_!r}, which is for view alone")
            elif id_ != EVERYBODY and not _MEMBER.fullmatch(id_):
                wrong(
                    (name, place),
                    f"expected the id of a user or group, as 'U0123ABCD' or 'S0123ABCD', got: {id_!r}; Slack shows a person's "
                    "in their profile under ⋮, Copy member ID",
                )


def cap(values: Values, _: Known, wrong: Wrong) -> None:
    """A part of a token."""
    amount = values.get("cap")
    if amount is not None and amount % 1 and values.get("unit", Unit.TOKENS) is Unit.TOKENS:
        wrong(("cap",), f"expected whole tokens, got: {amount:g}; for US dollars add unit = 'usd'")


def project(values: Values, _: Known, wrong: Wrong) -> None:
    """Two caps for one thing."""
    _caps(values, wrong)


def quota(values: Values, _: Known, wrong: Wrong) -> None:
    """Two caps for one thing; a time zone that nobody knows."""
    _caps(values, wrong)
    try:
        Calendar(values.get("time_zone", "UTC"))
    except BadWindow as exc:
        wrong(("time_zone",), str(exc))


def _caps(values: Values, wrong: Wrong) -> None:
    seen: dict[tuple[str, str], int] = {}
    for place, one in enumerate(values.get("caps", ())):
        same = seen.setdefault((one.unit.value, one.window.value), place)
        if same != place:
            wrong(
                ("caps", place),
                f"expected one cap on {one.unit.value} for each window, "
                f"got a second one for {one.window.value!r} (the first is number {same + 1}); keep one of them",
            )


def fleet(values: Values, _: Known, wrong: Wrong) -> None:
    """Roles under a cap of which nobody can say what they may use; policies that reach nobody."""
    reach.fleet(values, wrong)
    system = values.get("quota", Quota())
    for project_name, its in values.get("projects", {}).items():
        for name, one in its.roles.items():
            units = {c.unit.value for c in (*system.caps, *its.caps, *one.caps)}
            need = estimate.need(one, f"{project_name}/{name}", b"null", "", system.prices, units)
            if not isinstance(need, estimate.Need):
                wrong(("projects", project_name, "roles", name), need.sentence)


CHECKS: dict[type[msgspec.Struct], Callable[[Values, Known, Wrong], None]] = {
    Fleet: fleet,
    Project: project,
    Quota: quota,
    Cap: cap,
    Role: role,
    Schedule: schedule,
    Backoff: backoff,
    FunctionHandler: function,
    HttpHandler: http,
    LlmHandler: llm,
    Monitor: monitor,
    Permissions: permissions,
    Server: server,
    Rotation: reach.rotation,
    Hours: reach.hours,
    Step: reach.step,
    Escalation: reach.escalation,
}


def name_fault(what: str, name: str) -> str:
    """What is wrong with a name; empty for nothing."""
    if what == _MODEL:
        return "" if name.strip() else f"expected {what} as its provider reports it, got: {name!r}"
    if what == _PROJECT and name in _RESERVED:
        return f"expected {what} other than {' and '.join(_RESERVED)}, which name scopes of spend, got: {name!r}"
    try:
        subjects.check_name(what, name)
    except errors.BadSubject:
        better = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40]
        remedy = f"; call it {better!r}" if better else ""
        return f"expected {what} of 1 to 40 lower-case letters, digits and '-', got: {name!r}{remedy}"
    return ""
