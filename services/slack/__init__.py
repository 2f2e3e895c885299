"""The Slack app: what happens is shown in channels, and people act from there. Only :mod:`services.slack.app` needs slack_bolt."""
