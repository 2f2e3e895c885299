"""What people do from Slack: commands, buttons, modals, the home tab."""

from __future__ import annotations

from collections.abc import Callable

from slack_bolt.async_app import AsyncApp

from bus.connection import Credentials
from services.slack.app import Parts


def register(app: AsyncApp, parts: Parts, login: Callable[[str], Credentials] | None = None) -> None:
    """Add every handler to the app, and keep home tabs up to date as long as the daemon runs.

    Args:
        app: of the workspace.
        parts: what handlers work with.
        login: the credentials of a user of the fleet's server; by default those of the home.
    """
    # Rows come as Arrow, which a mirror without commands has no use for.
    from services.slack.desk.handlers import Handlers  # noqa: PLC0415

    handlers = Handlers(parts, login)
    handlers.register(app)
    parts.running.accompany("slack_home", handlers.home.run())
