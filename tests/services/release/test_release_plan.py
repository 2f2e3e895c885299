"""What a roll-out would do, and what a panel says of releases that differ."""

from __future__ import annotations

from pathlib import Path

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from services.health.daemons import DaemonLine, State
from services.home import Home
from services.release import canary, versions
from services.release.plan import Plan, lines, relaunch, settled, steps
from services.release.release import ALL, INSTALLED, release_of

DAEMONS = ("warden", "projector", "agent_runner-1")


def plan(current: dict[str, str], running: tuple[str, ...] = (), within: str = "") -> Plan:
    """A plan to roll `new` out."""
    found = steps(DAEMONS, current, running, "new", within, "do it")
    return Plan(release="new", version="2.0", standing="new", steps=found, watch_s=5)


def test_all_daemons_are_rolled_in_order() -> None:
    """Every daemon is rolled, in the order of start, from what it is started from now."""
    found = plan({"warden": "old"})
    assert [(s.daemon, s.before, s.after, s.kept, s.command) for s in found.steps] == [
        ("warden", "old", "new", False, ""),
        ("projector", INSTALLED, "new", False, ""),
        ("agent_runner-1", INSTALLED, "new", False, ""),
    ]


def test_what_runs_it_already_is_kept() -> None:
    """Only a daemon that is started from the release and says that it runs it is left alone."""
    found = plan({"warden": "new", "projector": "new"}, ("warden", "agent_runner-1"))
    assert [s.kept for s in found.steps] == [True, False, False]


def test_own_daemon_is_a_persons() -> None:
    """From inside a daemon its own step is a command, and it stays started from what it was when the rest is settled."""
    found = plan({ALL: "old"}, within="agent_runner-1")
    assert [s.command for s in found.steps] == ["", "", "do it"]
    assert settled({ALL: "old", "warden": "new"}, found) == {ALL: "new", "agent_runner-1": "old"}
    assert "   agent_runner-1: by a person, because this runs inside of it: do it" in list(lines(found))


@given(
    st.dictionaries(st.sampled_from((*DAEMONS, ALL)), st.sampled_from(["old", "new", INSTALLED])),
    st.sampled_from(["", *DAEMONS]),
)
def test_roll_out_ends_with_everything_on_the_release(current: dict[str, str], within: str) -> None:
    """When a roll-out is settled every daemon is started from the release, but for the one that a person has to do."""
    found = plan(current, within=within)
    after = settled(current, found)
    for step in found.steps:
        assert release_of(after, step.daemon) == (step.before if step.command else "new")


def test_plan_says_who_relaunches_the_launcher() -> None:
    """A plan ends with what a person does about the launcher, unless it runs the release already."""
    found = plan({})
    assert not any(line.lstrip().startswith("launcher") for line in lines(found))
    told = list(lines(msgspec.structs.replace(found, relaunch="down && up")))
    assert told[-1] == "   launcher: by a person, because everything hangs on it: down && up"


def test_relaunch_is_a_line_to_paste() -> None:
    """The launcher's relaunch is one line for a shell, with paths that hold blanks quoted."""
    said = relaunch(Home(Path("/my home")), "/f.toml", "/r/venv/bin/systems")
    assert said == (
        "/r/venv/bin/systems down --home '/my home' && "
        "/r/venv/bin/systems up --detach --fleet /f.toml --home '/my home'"
    )


def line(name: str, version: str, release: str = "", host: str = "h") -> DaemonLine:
    """A daemon of the panel."""
    kind = name.partition("-")[0]
    return DaemonLine(name=name, state=State.ALIVE, daemon=kind, host=host, version=version, release=release)


def test_different_releases_are_told() -> None:
    """Daemons of several releases are named by release; a launcher that is older than all of them is no such case."""
    told = versions.mixed([line("launcher", "1"), line("warden", "2", "2-ab"), line("agent_runner-1", "1")])
    assert told.startswith("daemons run different releases: agent_runner-1 1; warden 2-ab; roll one")
    assert versions.mixed([line("launcher", "1"), line("warden", "2"), line("agent_runner-1", "2")]) == ""


def test_older_launcher_is_told() -> None:
    """A launcher that runs another release than everything that it holds is for a person; equal ones are not."""
    told = versions.relaunch([line("launcher", "1"), line("warden", "2", "2-ab"), line("agent_runner-1", "2", "2-ab")])
    assert told == "the launcher runs 1, its daemons 2-ab; its command is in: systems releases show 2-ab"
    assert versions.relaunch([line("launcher", "1"), line("warden", "1")]) == ""
    assert versions.relaunch([line("launcher", "1"), line("warden", "1"), line("agent_runner-1", "2")]) == ""


def test_same_versions_are_told_apart_by_release() -> None:
    """Where versions are the same and releases differ the panel shows the release."""
    assert versions.told(line("warden", "1", "1-ab"), whole=True) == "1 (ab)"
    assert versions.told(line("warden", "1"), whole=True) == "1 (installed)"
    assert versions.told(line("warden", "1", "1-ab"), whole=False) == "1"


def test_canary_is_one_runners() -> None:
    """The canary's role has a valid name that no other seat has."""
    names = {canary.name(h, "0" * 12, i) for h in ("a", "b") for i in ("agent_runner-1", "agent_runner-2")}
    assert len(names) == 4
    assert all(len(name) <= 40 for name in names)
