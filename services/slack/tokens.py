"""The app's tokens: from the environment, or from a file in the home that nobody else can read.

::

    SYSTEMS_SLACK_BOT_TOKEN        xoxb-…   what the app posts with
    SYSTEMS_SLACK_APP_TOKEN        xapp-…   what it opens its socket with (mode socket)
    SYSTEMS_SLACK_SIGNING_SECRET   …        what Slack signs its requests with (mode http)

    HOME/credentials/slack.json    {"bot_token": "xoxb-…", "app_token": "xapp-…", "signing_secret": "…"}

What the environment names counts before the file. Blocks for the time of one small file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from bus import errors
from services.fleet.slack import Mode
from services.home import Home

#: Environment variable of each field.
VARIABLES = {
    "bot_token": "SYSTEMS_SLACK_BOT_TOKEN",
    "app_token": "SYSTEMS_SLACK_APP_TOKEN",
    "signing_secret": "SYSTEMS_SLACK_SIGNING_SECRET",
}
#: What a token begins with.
_BEGINS = {"bot_token": "xoxb-", "app_token": "xapp-"}
#: Where Slack shows it.
_SHOWN = {
    "bot_token": "OAuth & Permissions, Bot User OAuth Token",
    "app_token": "Basic Information, App-Level Tokens, with the scope connections:write",
    "signing_secret": "Basic Information, Signing Secret",
}


class BadTokens(errors.BusError):
    """Tokens that cannot be used; the sentence never holds one."""


class Tokens(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the app shows to Slack."""

    bot_token: str = ""
    app_token: str = ""
    signing_secret: str = ""

    def __repr__(self) -> str:
        """Which there are, and never what they are."""
        return f"Tokens({', '.join(name for name in VARIABLES if getattr(self, name))})"


def file(home: Home) -> Path:
    """Where tokens may be kept."""
    return home.credentials / "slack.json"


def load(environ: Mapping[str, str], home: Home, mode: Mode) -> Tokens | None:
    """The tokens for a mode; None when there is no token at all, which is console mode.

    Raises:
        BadTokens: the file can be read by others or cannot be read, a token is of the wrong kind, or the one that the
            mode needs is missing.
    """
    kept = _read(file(home))
    found = {name: environ.get(variable, "").strip() or kept.get(name, "") for name, variable in VARIABLES.items()}
    if not any(found.values()):
        return None
    for name, begins in _BEGINS.items():
        if found[name] and not found[name].startswith(begins):
            raise BadTokens(
                f"expected {VARIABLES[name]} to begin with {begins}, got: something else; copy it from {_SHOWN[name]}"
            )
    for name in ("bot_token", "app_token" if mode is Mode.SOCKET else "signing_secret"):
        if not found[name]:
            raise BadTokens(
                f"expected {VARIABLES[name]} for [slack] mode = {mode.value!r}, got none; copy it from {_SHOWN[name]}, "
                f"or take the others away to run without Slack"
            )
    return Tokens(**found)


def _read(path: Path) -> dict[str, str]:
    try:
        mode = path.stat().st_mode & 0o777
        if mode & 0o077:
            raise BadTokens(
                f"expected {path} to be readable by its owner alone (0600), got: {mode:04o}; chmod 600 {path}"
            )
        tokens = msgspec.json.decode(path.read_bytes(), type=Tokens)
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError) as exc:
        known = ", ".join(VARIABLES)
        raise BadTokens(f"expected {path} to be JSON with {known}, got: {exc}; write it anew, or remove it") from exc
    return msgspec.structs.asdict(tokens)
