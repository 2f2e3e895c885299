"""Which projects an incident hits, and why: from its findings, the guards that stand, and who asked whom. Pure.

A project is hit when something of the incident is about all work, about one of its roles, or about a role that its own work
waits for. What a person has said of a project is never overruled (:mod:`services.incident.decision`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from bus.events.finding import Kind
from bus.events.incident import Impact
from bus.refusal import Refusal
from services.incident.opening import about
from services.incident.state import Incident
from services.loop.tree import Forest, Tree

#: What hits all work, by kind, in words for a project.
_ALL_WORK: dict[Kind, str] = {
    Kind.BUS_DOWN: "the bus is down: nothing is accepted and nothing is written",
    Kind.STORAGE_LOW: "the bus runs out of storage: soon nothing is accepted",
    Kind.MEMORY_LOW: "the machine runs out of memory",
    Kind.FROZEN: "the kill switch is thrown: its work waits",
    Kind.FREEZE_UNANSWERED: "a freeze was not answered by every daemon",
    Kind.WRITTEN_FROZEN: "something was written in a freeze",
    Kind.NO_RUNNER: "nobody runs work: what is asked for waits",
}
#: What it means that daemons of a kind are away.
_DAEMONS: dict[str, str] = {
    "nats-server": "the bus is down: nothing is accepted and nothing is written",
    "agent_runner": "a runner is away: work may wait",
    "warden": "no warden: new requests over NATS and schedules wait",
    "projector": "the tables stand still; work goes on",
    "launcher": "no launcher: daemons that die are not started again",
    "slack_mirror": "nothing comes to Slack; work goes on",
}
#: Open invocations that are looked at for who waits for whom: a runaway tree must not stop the warden.
_LOOKED_AT = 20_000
#: Reasons that one project is shown.
_REASONS = 5


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the fleet at this moment."""

    #: All roles, as ``project/role``.
    roles: frozenset[str]
    #: Refusals that stand: pauses and reached caps.
    refusals: tuple[Refusal, ...] = ()
    #: Role -> roles whose unfinished work has asked it, directly or through others.
    waits: dict[str, frozenset[str]] = {}

    @property
    def projects(self) -> frozenset[str]:
        """All projects that have a role."""
        return frozenset(role.partition("/")[0] for role in self.roles)


def impacts(incident: Incident, scene: Scene) -> tuple[Impact, ...]:
    """The projects that an incident hits, each with its reasons."""
    reasons: dict[str, dict[str, None]] = {}
    for project, reason in _all(incident, scene):
        reasons.setdefault(project, {})[reason] = None
    return tuple(
        Impact(project=project, reason="; ".join(list(found)[:_REASONS])) for project, found in sorted(reasons.items())
    )


def _all(incident: Incident, scene: Scene) -> Iterator[tuple[str, str]]:
    hit: dict[str, str] = {}
    for part in incident.findings.values():
        if part.recovered_at is not None:
            continue
        whole = _ALL_WORK.get(part.kind) or _DAEMONS.get(about(part.subject), "")
        if whole:
            yield from ((project, whole) for project in scene.projects)
            continue
        for role in _roles(part.subject, scene):
            hit[role] = part.title
            yield role.partition("/")[0], part.title if role in part.title else f"{role}: {part.title}"
    for refusal in scene.refusals:
        for role in sorted(scene.roles):
            because = refusal.since is not None and refusal.since >= incident.since
            if refusal.covers(role) and (role in hit or because):
                hit.setdefault(role, refusal.because)
                yield role.partition("/")[0], f"{role} is {refusal.reason.value.replace('_', ' ')}: {refusal.because}"
    for role, title in hit.items():
        for asker in sorted(scene.waits.get(role, frozenset())):
            project = asker.partition("/")[0]
            if project != role.partition("/")[0]:
                yield project, f"{asker} has asked {role} ({title})"


def _roles(subject: str, scene: Scene) -> list[str]:
    """The roles that a finding's subject names: a role, a project, or who raised it."""
    name = subject.partition(": ")[0]
    return sorted(role for role in scene.roles if name in {role, role.partition("/")[0]})


def news(incident: Incident, found: Iterable[Impact]) -> tuple[Impact, ...]:
    """What of it the incident does not say yet. A project once hit stays so: it is owed the end of the story."""
    added = []
    for impact in found:
        known = incident.affected.get(impact.project)
        if known is None:
            added.append(impact)
            continue
        old = known.reason.split("; ")
        more = [reason for reason in impact.reason.split("; ") if reason not in old]
        if more and len(old) < _REASONS and known.by == impact.by:
            added.append(msgspec.structs.replace(impact, reason="; ".join([*old, *more][:_REASONS])))
    return tuple(added)


def waits(forest: Forest) -> dict[str, frozenset[str]]:
    """Who waits for whom: role -> roles above its unfinished work in their run trees."""
    found: dict[str, set[str]] = {}
    left = _LOOKED_AT
    for tree in forest.trees.values():
        if left <= 0:
            break
        left -= len(tree.nodes)
        for node in tree.nodes.values():
            if node.open:
                found.setdefault(node.role, set()).update(_above(tree, node.parent))
    return {role: frozenset(above - {role}) for role, above in found.items()}


def _above(tree: Tree, parent: str) -> set[str]:
    roles: set[str] = set()
    seen: set[str] = set()
    while parent in tree.nodes and parent not in seen:
        seen.add(parent)
        roles.add(tree.nodes[parent].role)
        parent = tree.nodes[parent].parent
    return roles


def merged(waits_: Mapping[str, frozenset[str]], more: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    """Two accounts of who waits for whom as one."""
    return {role: waits_.get(role, frozenset()) | more.get(role, frozenset()) for role in {*waits_, *more}}
