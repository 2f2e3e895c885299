"""``systems slack``: what waits for Slack, what it would say, and whether it can."""

from __future__ import annotations

import os
from typing import Annotated

from cyclopts import App, Parameter

from bus.store import Recorded
from services.cli import output
from services.cli.common import DEFAULTS, Common
from services.cli.exits import Exit
from services.cli.session import Session, operator
from services.slack import check as checking
from services.slack import plan, status, tokens
from services.slack.board import Board
from services.slack.message import plain
from services.slack.mirror import fleet_of
from services.slack.notice import Notice

#: Signs of a check.
_SIGNS = {True: "ok", False: "BAD"}

app = App(
    name="slack", help="Show what waits for Slack, preview it, and check the installation.", help_format="plaintext"
)


@app.command(name="status")
async def status_(*, common: Common = DEFAULTS) -> int:
    """Show how the app stands with Slack, and what waits for each channel.

    Args:
        common: Which fleet, and how to print.
    """
    async with operator(common) as session:
        report = await status.ask(session.bus.connection)
    if common.json:
        output.json(report)
    else:
        why = f": {report.line.why}" if report.line.why else ""
        print(f"slack {report.line.state.value} since {output.moment(report.line.since)}{why}")
        print("not shown yet: " + ", ".join(f"{count} of {name}" for name, count in report.behind.items()))
        rows = [
            [one.name, str(one.waiting), str(one.urgent), str(one.shown), one.error or "-", one.remedy or "-"]
            for one in report.channels
        ]
        if rows:
            numbers = ["waiting", "urgent", "shown"]
            output.table(["channel", *numbers, "error", "what to do"], rows, right=numbers)
    return Exit.REFUSED if any(one.error for one in report.channels) or report.line.state.broken else Exit.DONE


@app.command
async def preview(
    *,
    last: Annotated[int, Parameter(name="--last")] = 20,
    channel: str = "",
    common: Common = DEFAULTS,
) -> int:
    """Show the messages that the last events make, as text; nothing is sent.

    Args:
        last: How many messages.
        channel: Only those of one channel, as the fleet file names it.
        common: Which fleet, and how to print.
    """
    async with operator(common) as session:
        notices = await _planned(session)
    shown = [notice for notice in notices if channel in ("", notice.channel)][-max(0, last) :]
    if common.json:
        output.json(
            [
                {"channel": n.channel, "kind": n.kind, "stream": n.stream, "seq": n.seq, "place": n.place, "key": n.key}
                | {"message": n.message}
                for n in shown
            ]
        )
        return Exit.DONE
    for notice in shown:
        where = {"new": "", "reply": ", in its thread", "update": ", in place of its head"}[notice.place.value]
        print(f"--- {notice.channel}{where}  ({notice.kind}, {notice.stream} {notice.seq})")
        print(plain(notice.message))
    if not shown:
        output.note(
            "no event makes a message: name a channel under [slack], or slack_channel of a project, in fleet.toml"
        )
    return Exit.DONE


async def _planned(session: Session) -> list[Notice]:
    """The messages of all events that are kept, in the order of time."""
    fleet, board = fleet_of(await session.registry()), Board()
    records: list[Recorded] = []
    for stream, filters in plan.filters(fleet.slack).items():
        for filter_ in filters:
            records += [record async for record in session.bus.store.read(stream, filter_)]
    notices: list[Notice] = []
    for record in sorted(records, key=lambda record: (record.stored_at, record.seq)):
        notices += plan.step(record, board, fleet)
    return notices


@app.command
async def check(*, common: Common = DEFAULTS) -> int:
    """Check token, scopes, socket, channels and people with Slack, and say what to click.

    Args:
        common: Which fleet, and how to print.
    """
    async with operator(common) as session:
        registry = await session.registry()
        settings = registry.settings.slack
        found = tokens.load(os.environ, session.home, settings.mode)
        if found is None:
            where = f"set {', '.join(tokens.VARIABLES.values())}, or write {tokens.file(session.home)}; docs/slack.md says how"
            lines = [
                checking.Line(what="tokens", ok=False, found="none: the daemon runs in console mode", remedy=where)
            ]
        else:
            from services.slack.app import client  # noqa: PLC0415 (Bolt takes half a second to import)

            projects = {name: project.slack_channel for name, project in registry.projects.items()}
            channels = checking.channels_of(settings, projects)
            web = client(found, settings)
            people = registry.settings.people
            lines = [line async for line in checking.check(web, found, settings, channels, people)]
    if common.json:
        output.json({"checks": lines})
    else:
        output.table(
            ["", "what", "found", "what to do"],
            [[_SIGNS[line.ok], line.what, line.found, line.remedy or "-"] for line in lines],
        )
    return Exit.DONE if all(line.ok for line in lines) else Exit.REFUSED
