"""What a panel says when not everything of a fleet is of one version. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from services.health.daemons import DaemonLine
from services.release.plan import LAUNCHER
from services.release.release import INSTALLED


def told(line: DaemonLine, *, whole: bool) -> str:
    """The version of a daemon; `whole` with its release, where versions alone would look the same."""
    if not whole:
        return line.version
    return f"{line.version} ({line.release.partition('-')[2] or INSTALLED})"


def mixed(lines: Iterable[DaemonLine]) -> str:
    """That daemons are of several releases, and which; empty if they are not. The launcher does not count."""
    runs: dict[tuple[str, str], list[str]] = {}
    for line in lines:
        if line.version and line.daemon != LAUNCHER:
            runs.setdefault((line.version, line.release), []).append(line.name)
    if len(runs) < 2:
        return ""
    groups = (f"{', '.join(names)} {release or version}" for (version, release), names in sorted(runs.items()))
    return f"daemons run different releases: {'; '.join(groups)}; roll one of them out: systems deploy RELEASE --reason TEXT"


def relaunch(lines: Iterable[DaemonLine]) -> str:
    """That the launcher is of another version than all that it holds, and that a person relaunches it; empty if it is not."""
    known = [line for line in lines if line.version]
    hosts = {line.host: line for line in known if line.daemon == LAUNCHER}
    for host, launcher in hosts.items():
        held = {(line.version, line.release) for line in known if line.host == host and line.daemon != LAUNCHER}
        if len(held) == 1 and (launcher.version, launcher.release) not in held:
            version, release = held.pop()
            how = (
                f"; its command is in: systems releases show {release}"
                if release
                else "; run: systems down, systems up"
            )
            return f"the launcher runs {launcher.release or launcher.version}, its daemons {release or version}{how}"
    return ""
