"""``systems``: the command line. This module only parses, calls and translates what went wrong into one sentence.

A command is imported when it is run, not before: ``systems --help`` touches none of them. Every error is one sentence on
stderr behind ``systems: ``, with ``--output json`` also ``{"error": {"kind": …, "message": …}}`` on stdout (a guard's has its
whole ``refusal`` too), and the status that :mod:`services.cli.exits` gives it. Ctrl-C ends a command with 130, a closed pipe
quietly.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Coroutine
from typing import Any, NamedTuple

from cyclopts import App, CycloptsError, Group, UnknownCommandError, UnusedCliTokensError

from services.cli.common import NAMES
from services.cli.exits import CommandFailed, Exit, UsageError, status_of

_FLEET = Group("Fleet", sort_key=1)
_WORK = Group("Work", sort_key=2)
_TABLES = Group("Tables", sort_key=3)
_GUARDS = Group("Guards", sort_key=4)
_BUS = Group("Bus", sort_key=5)
_SHELL = Group("Shell", sort_key=6)


class Command(NamedTuple):
    """A command, not imported yet."""

    name: str
    #: ``module:attribute``: a function, or an App with commands of its own.
    path: str
    group: Group
    help: str


COMMANDS: tuple[Command, ...] = (
    Command("up", "services.cli.fleet:up", _FLEET, "Start a fleet."),
    Command("down", "services.cli.fleet:down", _FLEET, "Stop the fleet."),
    Command("start", "services.cli.fleet:start", _FLEET, "Bring a daemon back that was given up on."),
    Command(
        "restart", "services.cli.restart:restart", _FLEET, "Drain, stop and start a daemon, and wait for evidence."
    ),
    Command("deploy", "services.cli.deploy:deploy", _FLEET, "Roll a release out, and back if it does not hold."),
    Command("releases", "services.cli.deploy:app", _FLEET, "List, show or remove the releases of this home."),
    Command("reload", "services.cli.restart:reload", _FLEET, "Take the fleet file while the fleet runs."),
    Command(
        "config", "services.cli.config:app", _FLEET, "Show, change, compare and bring back the settings in effect."
    ),
    Command("ops", "services.cli.ops:app", _FLEET, "List what was done to the fleet, by whom and why."),
    Command("cards", "services.cli.cards:cards", _FLEET, "List what waits for a person, with the command to paste."),
    Command("doctor", "services.cli.doctor:doctor", _FLEET, "Check the installation, and say what to do."),
    Command("drill", "services.cli.drill:drill", _FLEET, "Prove the guards with a real fault for each."),
    Command("freeze", "services.cli.freeze:freeze", _GUARDS, "Stop every write of the fleet, now."),
    Command("thaw", "services.cli.freeze:thaw", _GUARDS, "Let a frozen fleet go on."),
    Command("quota", "services.cli.quota:app", _GUARDS, "Show, set and raise caps on spend."),
    Command("loop", "services.cli.loop:app", _GUARDS, "List stopped run trees, or let one go on."),
    Command("guards", "services.cli.guards:app", _GUARDS, "List the guards, or replay history with other limits."),
    Command("gate", "services.cli.gate:gate", _GUARDS, "Run a command only if no guard refuses it."),
    Command("pause", "services.cli.freeze:pause", _GUARDS, "Hand out no more work of a role."),
    Command("resume", "services.cli.freeze:resume", _GUARDS, "Hand out a paused role's work again."),
    Command("status", "services.cli.watch:status", _FLEET, "Show the fleet-health panel."),
    Command("watch", "services.cli.watch:watch", _FLEET, "Show the fleet-health panel, live."),
    Command("sweep", "services.cli.monitor:sweep", _FLEET, "Look at the whole fleet now, and list what is wrong."),
    Command("findings", "services.cli.monitor:app", _FLEET, "List what is wrong, or close what somebody raised."),
    Command("silence", "services.cli.monitor:silence", _FLEET, "Let a finding call nobody for a while."),
    Command("raise", "services.cli.monitor:raise_", _FLEET, "Say that something is wrong."),
    Command(
        "incident",
        "services.cli.incident:app",
        _FLEET,
        "Declare, acknowledge, update, hand over and close incidents.",
    ),
    Command(
        "slack", "services.cli.slack:app", _FLEET, "Show what waits for Slack, preview it, and check the installation."
    ),
    Command("replay", "services.cli.replay:replay", _FLEET, "Replay a recorded trace as requests to a role."),
    Command("run", "services.cli.replay:run", _FLEET, "Start a fleet, replay a trace, and sum up."),
    Command("invoke", "services.cli.invoke:invoke", _WORK, "Ask a role for work."),
    Command("show", "services.cli.look:show", _WORK, "Show the timeline of one invocation."),
    Command("why", "services.cli.look:why", _WORK, "Show who caused an invocation, and what it caused."),
    Command("tail", "services.cli.tail:tail", _WORK, "Show events as they happen."),
    Command("cancel", "services.cli.cancel:cancel", _WORK, "Call an invocation off, wherever it stands."),
    Command(
        "roles", "services.cli.roles:app", _WORK, "Show the registered roles, who works for them, and their revisions."
    ),
    Command("prompts", "services.cli.prompts:app", _WORK, "Show the prompts and their revisions."),
    Command("dlq", "services.cli.dlq:app", _WORK, "List, show, redrive or discard dead letters."),
    Command("sql", "services.cli.sql:sql", _TABLES, "Ask the tables anything."),
    Command("query", "services.cli.query:query", _TABLES, "Run a named query, or list them."),
    Command("explain", "services.cli.explain:explain", _TABLES, "Show the events that a row was made of."),
    Command("plan", "services.cli.plan:plan", _BUS, "Show what apply would change, like a diff."),
    Command("apply", "services.cli.plan:apply", _BUS, "Bring the bus to its declared shape."),
    Command("drift", "services.cli.plan:drift", _BUS, "Show where the fleet is not as declared."),
    Command("decide", "services.cli.decide:decide", _BUS, "Record a decision."),
    Command("decisions", "services.cli.decide:decisions", _BUS, "List the decisions, or export them as ADRs."),
    Command("archive", "services.cli.archive:app", _BUS, "Show history in files, and whether it is whole."),
    Command("rebuild", "services.cli.archive:rebuild", _BUS, "Have the tables made anew."),
    Command("part", "services.cli.part:app", _BUS, "Share the streams among several projectors."),
    Command("check", "services.cli.check:check", _BUS, "Check a fleet file."),
    Command("limits", "services.cli.limits:limits", _BUS, "Show what is bounded, and what stays with a person."),
    Command("env", "services.cli.shell:env", _SHELL, "Print shell exports for the plain tools."),
    Command("completion", "services.cli.shell:completion", _SHELL, "Print or install shell completion."),
)


def _version() -> str:
    from importlib.metadata import version  # noqa: PLC0415 (slow to import, and rarely asked for)

    return version("systems")


def build() -> App:
    """The command line, with every command still to be imported."""
    app = App(
        name="systems",
        help="Keep a fleet of unattended agents safe: what happens is an event, what protects is code.",
        version=_version,
        help_format="plaintext",
        usage="Usage: systems COMMAND [ARGUMENTS] [OPTIONS]",
    )
    for place, command in enumerate(COMMANDS):
        app.command(command.path, name=command.name, help=command.help, group=command.group, sort_key=place)
    return app


def main(arguments: list[str] | None = None) -> int:
    """Run one command: the exit status."""
    tokens = hoisted(sys.argv[1:] if arguments is None else arguments)
    try:
        status = _run(build(), tokens)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # Whoever read has seen enough. The interpreter flushes once more at its end, into nothing then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.DONE
    except Exception as exc:  # noqa: BLE001 (a person gets a sentence, whatever went wrong)
        return _failed(_only(exc), tokens)
    return status


def _run(app: App, tokens: list[str]) -> int:
    try:
        command, bound, _ = app.parse_args(tokens, exit_on_error=False, print_error=False)
    except CycloptsError as exc:
        raise UsageError(_usage(exc)) from exc
    result = command(*bound.args, **bound.kwargs)
    if inspect.iscoroutine(result):
        import asyncio  # noqa: PLC0415 (a third of the time that --help takes)

        work: Coroutine[Any, Any, int | None] = result
        result = asyncio.run(work)
    return result if isinstance(result, int) else Exit.DONE


def hoisted(tokens: list[str]) -> list[str]:
    """The tokens with the options of every command behind the command: ``systems --home X show`` works as well. Pure."""
    place = 0
    while place < len(tokens) and tokens[place].partition("=")[0] in NAMES:
        place += 2 if NAMES[tokens[place].partition("=")[0]] and "=" not in tokens[place] else 1
    front, rest = tokens[:place], tokens[place:]
    if not rest:
        return []  # options of nothing: the help says what is missing
    end = rest.index("--") if "--" in rest else len(rest)
    return [*rest[:end], *front, *rest[end:]]


def _usage(exc: CycloptsError) -> str:
    """A parser's error as one sentence with its remedy."""
    from bus.errors import did_you_mean  # noqa: PLC0415 (only needed when something went wrong)

    where = " ".join(exc.command_chain or ())
    remedy = f"see `systems {where} --help`" if where else "see `systems --help`"
    if isinstance(exc, UnknownCommandError) and exc.unused_tokens:
        token = exc.unused_tokens[0]
        known = [name for name in exc.app if not name.startswith("-")] if exc.app is not None else []
        kind, names = ("option", [*NAMES]) if token.startswith("-") else ("command", known)
        text = f"unknown {kind} {token!r}{did_you_mean(token, names)}"
    elif isinstance(exc, UnusedCliTokensError) and exc.unused_tokens:
        text = f"expected no more arguments for `systems {where}`, got: {' '.join(exc.unused_tokens)}"
    else:
        text = " ".join(str(exc).split())
        text = text[:1].lower() + text[1:]
    return f"{text.rstrip('.')}; {remedy}"


def _only(exc: BaseException) -> BaseException:
    """The one error of a group of one: tasks that fail together report together."""
    while isinstance(exc, BaseExceptionGroup) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]
    return exc


def _failed(exc: BaseException, tokens: list[str]) -> int:
    """Say what went wrong: the status."""
    status = Exit.UNREACHABLE if _is_bare(exc) else status_of(exc)
    kind = exc.kind if isinstance(exc, CommandFailed) else type(exc).__name__
    if "--debug" in tokens:
        import traceback  # noqa: PLC0415 (only needed when something went wrong)

        traceback.print_exception(exc)
    message = _sentence(exc)
    print(f"systems: {message}", file=sys.stderr)
    if wants_json(tokens):
        from services.cli import output  # noqa: PLC0415 (only needed when something went wrong)

        refusal = getattr(exc, "refusal", None)
        error = {"kind": kind, "message": message} | ({"refusal": refusal} if refusal is not None else {})
        output.json({"error": error})
    return status


def _sentence(exc: BaseException) -> str:
    from bus import errors  # noqa: PLC0415 (only needed when something went wrong)
    from bus.invocation import Refused  # noqa: PLC0415

    if _is_bare(exc):
        return "expected a bus on this server, got: the server has none of its streams; make them with `systems apply`"
    if isinstance(exc, errors.BusError | Refused | CommandFailed):
        return str(exc)
    return f"unexpected {type(exc).__name__}: {exc}; run it again with --debug to see where"


def _is_bare(exc: BaseException) -> bool:
    """A server answers, and has no bus on it."""
    from bus import errors  # noqa: PLC0415 (only needed when something went wrong)

    if not isinstance(exc, errors.ServerError):
        return False
    from bus.wire import Code  # noqa: PLC0415 (needs the driver, which a usage error does not)

    return exc.code == Code.STREAM_NOT_FOUND


def wants_json(tokens: list[str]) -> bool:
    """Whether JSON was asked for, as far as can be told of a command line that may be wrong. Pure."""
    pairs = zip(tokens, [*tokens[1:], ""], strict=True)
    return "--output=json" in tokens or ("--output", "json") in pairs


if __name__ == "__main__":
    sys.exit(main())
