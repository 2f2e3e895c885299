"""Whether an ultra at night would wake anybody: policies, people, and addresses that can be found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from services.doctor.check import Check, ok, warning
from services.fleet.duty import CHANNEL
from services.fleet.spec import Fleet
from services.home import Home
from services.incident.ways import FILE, WayUnusable, address


def look(fleet: Fleet, home: Home, environ: Mapping[str, str]) -> Check:
    """Whom incidents call. Addresses that stand in the warden's environment alone cannot be seen from here."""
    unnamed = [name for name, project in fleet.projects.items() if not project.escalation]
    if not fleet.incidents.escalation and (unnamed or not fleet.projects):
        of = f" of {', '.join(unnamed)}" if fleet.escalation else ""
        return warning(
            "calls",
            f"an incident{of} would wake nobody: no escalation policy is named; it is shown by `systems status` and in the log",
            "add [people], [escalation.NAME] and [incidents] escalation to the fleet file; see docs/incidents.md",
        )
    problems = list(_problems(fleet, home, environ))
    if problems:
        return warning("calls", "; ".join(problems), f"put the addresses into {home.path / FILE} (mode 0600)")
    return ok("calls", f"{len(fleet.people)} people can be called")


def _problems(fleet: Fleet, home: Home, environ: Mapping[str, str]) -> Iterator[str]:
    named = {whom for policy in fleet.escalation.values() for step in policy.steps for whom in step.whom} - {CHANNEL}
    people = {one for whom in named for one in (fleet.rotations[whom].people if whom in fleet.rotations else (whom,))}
    for name in sorted(people):
        for way in sorted(fleet.people[name].ways):
            try:
                address(name, way, fleet.people[name], home.path, environ)
            except WayUnusable as exc:
                yield str(exc)
