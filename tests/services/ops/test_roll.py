"""What a step of a roll-out believes."""

from __future__ import annotations

from datetime import UTC, datetime

from bus.liveness import Heartbeat
from services.ops.roll import runs, said
from services.release.release import INSTALLED

NOW = datetime(2026, 11, 25, tzinfo=UTC)


def beat(version: str, release: str = "") -> Heartbeat:
    """A heartbeat of a daemon."""
    return Heartbeat(
        daemon="warden", instance="warden", boot_id="b", host="h", home="x", pid=1, started_at=NOW, at=NOW,
        version=version, release=release,
    )  # fmt: skip


def test_daemon_runs_what_it_says() -> None:
    """A daemon runs a release if it says so, or its version where it is of one that does not tell its release."""
    assert runs(beat("2", "2-ab"), "2-ab", "2", "")
    assert runs(beat("2"), "2-ab", "2", "")
    assert not runs(beat("1"), "2-ab", "2", "")
    assert not runs(beat("2", "2-cd"), "2-ab", "2", "")


def test_installation_is_the_launchers() -> None:
    """The installation is whatever the launcher runs itself, also when that is a release."""
    assert runs(beat("1"), INSTALLED, "", "")
    assert not runs(beat("2", "2-ab"), INSTALLED, "", "")
    assert runs(beat("2", "2-ab"), INSTALLED, "", "2-ab")


def test_last_words_are_a_sentence() -> None:
    """Of a line of JSON the error is told, else the event; any other line as it is."""
    assert said('{"event": "daemon_ended", "error": "no room"}') == "no room"
    assert said('{"event": "stopped"}') == "stopped"
    assert said("RuntimeError: x") == "RuntimeError: x"
