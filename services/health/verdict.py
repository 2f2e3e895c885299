"""The verdict on a panel: what is wrong, the worst first. Pure."""

from __future__ import annotations

from bus import flags
from bus.events.finding import Kind, Severity
from services.cards import is_urgent
from services.config.drift import ConfigLine
from services.health.daemons import State
from services.health.panel import Panel, Verdict
from services.launcher.reporter import describe
from services.release import versions

#: Kinds of finding that the panel judges by itself, by what it sees now.
_SEEN_LIVE = frozenset({
    Kind.BUS_DOWN, Kind.DAEMON_DOWN, Kind.DAEMON_LATE, Kind.DAEMON_DEAF, Kind.DAEMON_ENDED, Kind.NO_RUNNER, Kind.DEAD_LETTERS,
    Kind.PERSON_NEEDED, Kind.FROZEN, Kind.FREEZE_UNANSWERED, Kind.WRITTEN_FROZEN, Kind.REFUSED, Kind.PAUSED, Kind.SPEND_UNVERIFIED, Kind.DRILL_FAILED,
})  # fmt: skip


def judge(panel: Panel) -> tuple[Verdict, tuple[str, ...]]:
    """The verdict and its reasons, the worst first. Pure."""
    ultra: list[str] = []
    concern: list[str] = []
    for incident in panel.incidents:
        (ultra if incident.pages or incident.paging_failed else concern).append(f"{incident.told}: {incident.command}")
    runners = [d for d in panel.daemons if d.daemon == "agent_runner" and d.state in (State.ALIVE, State.STARTING)]
    backlog = sum(role.backlog for role in panel.roles)
    if not runners:
        (ultra if backlog else concern).append(f"no agent_runner is alive; {backlog:,} invocations wait")
    for card in panel.cards:
        (ultra if is_urgent(card) else concern).append(f"{card.sentence}: a person is needed")
    carded = {(card.instance, card.host) for card in panel.cards}
    for line in panel.daemons:
        if (line.name, line.host) in carded and line.state is State.DOWN:
            continue  # said by its card
        if line.state is State.DOWN and line.note:
            ultra.append(f"{line.name} is down: {line.note}")
        elif line.state not in (State.ALIVE, State.STARTING):
            concern.append(f"{line.name} is {line.state}" + (f": {line.note}" if line.note else ""))
    concern += [
        f"{line.name} ended {(panel.at - line.exited_at).total_seconds():.0f} s ago ({describe(line.exit_status)}) and was restarted"
        for line in panel.daemons
        if line.exited_at is not None and line.state is not State.DOWN
    ]
    if panel.daemons and all(line.state is State.LATE for line in panel.daemons):
        ultra.append(
            "no heartbeat of any daemon was stored lately: the server may have no room left; see logs/nats-server.log"
        )
    if panel.dead_letters:
        letters = "dead letter waits" if panel.dead_letters == 1 else "dead letters wait"
        concern.append(f"{panel.dead_letters:,} {letters} for a person: systems dlq ls")
    _judge_freeze(panel, ultra, concern)
    concern += [
        f"{line.scope}: spend of this {line.window} cannot be verified ({line.problem}); its work waits"
        for line in panel.quota or ()
        if line.problem
    ]
    concern += [trip.sentence for trip in panel.trips]
    concern += [
        f"the last drill of the {guard.name} failed: {guard.proof.got}"
        for guard in panel.guards
        if guard.proof is not None and not guard.proof.passed
    ]
    if panel.tables is not None and panel.tables.concern:
        concern.append(panel.tables.concern)
    _judge_findings(panel, ultra, concern)
    concern += _config_concerns(panel.config)
    concern += filter(None, [versions.mixed(panel.daemons)])
    concern += [f"not seen: {what}" for what in panel.unseen]
    verdict = Verdict.ULTRA if ultra else Verdict.CONCERN if concern else Verdict.NOMINAL
    return verdict, tuple(ultra + concern)


def _judge_findings(panel: Panel, ultra: list[str], concern: list[str]) -> None:
    """What only a sweep can see; the rest is judged above by what is seen now."""
    tabled = any(line.daemon == "projector" for line in panel.daemons)
    for found in panel.monitor.findings if panel.monitor is not None else ():
        if found.cause or found.silenced_by or found.kind in _SEEN_LIVE or (found.kind == Kind.UNSEEN and not tabled):
            continue
        said = found.title + (f": {found.command}" if found.command else "")
        (ultra if found.severity == Severity.ULTRA else concern).append(said)


def _config_concerns(config: ConfigLine | None) -> list[str]:
    if config is None:
        return []
    found = [
        f"{one.key} at revision {one.revision} is refused: {one.sentence}; {_kept(one.kept)}" for one in config.refused
    ]
    if config.file_fault:
        found.append(
            f"the fleet file cannot be used, the last good one is in effect: {' | '.join(config.file_fault.splitlines())}"
        )
    return found + [f"{name} has not taken up revision {config.revision}" for name in config.behind]


def _kept(revision: int) -> str:
    return f"revision {revision} is in effect" if revision else "nothing is in effect in its place"


def _judge_freeze(panel: Panel, ultra: list[str], concern: list[str]) -> None:
    switch = panel.kill_switch
    if switch.overdue:
        ultra.append(
            f"no receipt of the freeze from {', '.join(switch.overdue)}: nobody can say that they have stopped"
        )
    if switch.writes:
        ultra.append(f"{switch.writes:,} events were stored after the freeze: see what wrote them with `systems tail`")
    if switch.mode is not flags.Mode.CLEAR or switch.thawing:
        said = switch.reason or switch.text
        concern.append(
            f"the kill switch: {switch.told}"
            + (f" ({switch.by}: {said})" if switch.by else f" ({said})" if said else "")
        )
    if switch.problem:
        concern.append(switch.problem)
