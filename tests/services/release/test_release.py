"""Releases on the disk, and which of them each daemon is started from."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus import errors
from services.home import Home
from services.release.release import ALL, INSTALLED, Release, ReleaseGone, Releases, Standing, release_of

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


@pytest.fixture
def releases(tmp_path: Path) -> Releases:
    """The releases of an empty home."""
    return Releases(Home(tmp_path / "home"))


def made(releases: Releases, version: str, *, digest: str = "ab" * 32, minute: int = 0) -> Release:
    """A release with an interpreter."""
    release = Release(
        name=f"{version}-{digest[:12]}",
        version=version,
        digest=digest,
        wheel="x.whl",
        installed_at=NOW.replace(minute=minute),
        installed_by="ann",
        python="3.11.7",
    )
    python = releases.python(release.name)
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    releases.write(release)
    return release


def test_everything_runs_from_the_installation_at_first(releases: Releases) -> None:
    """In a home without releases every daemon is started by the launcher's own interpreter."""
    assert releases.current() == {}
    assert releases.interpreter("warden") is None
    assert releases.all() == []


def test_daemon_is_started_from_its_own_line(releases: Releases) -> None:
    """A daemon's own line counts before the line for all, whose release is the others'."""
    one = made(releases, "1.0")
    releases.use({"warden": INSTALLED, ALL: one.name})
    assert releases.interpreter("warden") is None
    assert releases.interpreter("agent_runner-7") == releases.python(one.name)


def test_release_that_is_gone_starts_nothing(releases: Releases) -> None:
    """A release without its interpreter is an error with the way out, and never another version in its place."""
    releases.use({ALL: "1.0-abc"})
    with pytest.raises(ReleaseGone, match=r"current\.json, and everything runs from the installation"):
        releases.interpreter("warden")


def test_version_means_its_newest_release(releases: Releases) -> None:
    """A version names the newest release of it, a name exactly one; an unknown one is told what there is."""
    first, second = made(releases, "1.0"), made(releases, "1.0", digest="cd" * 32, minute=1)
    assert releases.get("1.0") == second
    assert releases.get(first.name) == first
    with pytest.raises(errors.UnknownName, match=r"unknown release '1\.1'"):
        releases.get("1.1")


def test_judgement_is_kept(releases: Releases) -> None:
    """What is thought of a release survives, with its reason; nothing is thought of the installation."""
    one = made(releases, "1.0")
    releases.judge(one.name, Standing.BAD, "it died", NOW)
    releases.judge(INSTALLED, Standing.BAD, "it died", NOW)
    found = releases.get("1.0")
    assert (found.standing, found.because, found.judged_at) == (Standing.BAD, "it died", NOW)


def test_used_release_is_not_removed(releases: Releases) -> None:
    """A release that something is started from cannot be removed; one that is not is gone with its environment."""
    used, free = made(releases, "1.0"), made(releases, "2.0", digest="cd" * 32)
    releases.use({"warden": used.name, ALL: INSTALLED})
    with pytest.raises(errors.Conflict, match="from which warden is"):
        releases.remove(used.name)
    releases.remove(free.name)
    assert releases.all() == [used]
    assert not releases.path(free.name).exists()


def test_damaged_files_are_errors(releases: Releases) -> None:
    """A file that cannot be read is an error that says what to do, and never an empty answer."""
    one = made(releases, "1.0")
    for name in ("current.json", "before.json"):
        (releases.folder / name).write_text("{")
    with pytest.raises(errors.HomeUnusable, match="remove it, and everything runs from the installation"):
        releases.current()
    with pytest.raises(errors.HomeUnusable, match="remove it to go on from what is current"):
        releases.unfinished()
    (releases.path(one.name) / "release.json").write_text("[]")
    with pytest.raises(errors.HomeUnusable, match="remove the folder"):
        releases.all()


def test_broken_off_roll_out_returns_to_its_own_beginning(releases: Releases) -> None:
    """What a roll-out returns to is what there was before an earlier one that was broken off, until one is over."""
    releases.use({"warden": "b", ALL: "a"})
    assert releases.begin({ALL: "a"}) == {ALL: "a"}
    assert releases.begin(releases.current()) == {ALL: "a"}
    assert releases.take_back("warden")
    assert release_of(releases.current(), "warden") == "a"
    assert not releases.take_back("warden")
    releases.end()
    releases.use({"warden": "b", ALL: "a"})
    assert not releases.take_back("warden")


@given(st.dictionaries(st.sampled_from(["warden", "projector", ALL]), st.sampled_from(["a", "b", INSTALLED])))
def test_every_daemon_has_one_release(current: dict[str, str]) -> None:
    """Every daemon is started from its own line's release, else from that of all, else from the installation."""
    for daemon in ("warden", "projector", "agent_runner-1"):
        assert release_of(current, daemon) == current.get(daemon, current.get(ALL, INSTALLED))


def test_process_knows_its_release(tmp_path: Path) -> None:
    """An environment below the home's releases is a release; every other one is an installation."""
    home = Home(tmp_path)
    assert home.release(str(tmp_path / "releases" / "1.0-abc" / "venv")) == "1.0-abc"
    assert home.release(str(tmp_path / ".venv")) == ""
    assert home.release(sys.prefix) == ""
