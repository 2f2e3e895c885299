"""What people do from Slack: commands, buttons, modals, the home tab."""

from __future__ import annotations

from slack_bolt.async_app import AsyncApp

from services.slack.app import Parts


def register(app: AsyncApp, parts: Parts) -> None:
    """Add every handler to the app."""
