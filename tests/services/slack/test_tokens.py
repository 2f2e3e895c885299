"""Where tokens come from, and which are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.fleet.slack import Mode
from services.home import Home, write_json
from services.slack import tokens
from services.slack.tokens import BadTokens, Tokens

SECRET = "xoxb-very-secret"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with its directories."""
    found = Home(tmp_path / "home")
    found.prepare()
    return found


def test_none_is_console_mode(home: Home) -> None:
    """Without any token there is no app, which is no fault."""
    assert tokens.load({}, home, Mode.SOCKET) is None


def test_environment_before_file(home: Home) -> None:
    """What the environment names counts before the file, and the file fills in the rest."""
    write_json(tokens.file(home), Tokens(bot_token="xoxb-file", app_token="xapp-file"))
    found = tokens.load({"SYSTEMS_SLACK_BOT_TOKEN": SECRET}, home, Mode.SOCKET)
    assert found == Tokens(bot_token=SECRET, app_token="xapp-file")
    assert SECRET not in repr(found)


def test_readable_file_is_refused(home: Home) -> None:
    """A file that others can read is refused with the command that repairs it."""
    path = tokens.file(home)
    write_json(path, Tokens(bot_token=SECRET, app_token="xapp-file"))
    path.chmod(0o640)
    with pytest.raises(BadTokens, match=r"0600.*got: 0640; chmod 600 ") as caught:
        tokens.load({}, home, Mode.SOCKET)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("environ", "mode", "sentence"),
    [
        ({"SYSTEMS_SLACK_BOT_TOKEN": SECRET}, Mode.SOCKET, "expected SYSTEMS_SLACK_APP_TOKEN .*App-Level Tokens"),
        ({"SYSTEMS_SLACK_BOT_TOKEN": SECRET}, Mode.HTTP, "expected SYSTEMS_SLACK_SIGNING_SECRET .*Signing Secret"),
        ({"SYSTEMS_SLACK_APP_TOKEN": "xoxb-swapped"}, Mode.SOCKET, "SYSTEMS_SLACK_APP_TOKEN to begin with xapp-"),
    ],
)
def test_incomplete(home: Home, environ: dict[str, str], mode: Mode, sentence: str) -> None:
    """A missing or swapped token is named, with the place where Slack shows it."""
    with pytest.raises(BadTokens, match=sentence):
        tokens.load(environ, home, mode)


def test_damaged_file(home: Home) -> None:
    """A file that is no JSON, or has an unknown key, is refused."""
    path = tokens.file(home)
    write_json(path, {"token": SECRET})
    with pytest.raises(BadTokens, match="to be JSON with bot_token, app_token, signing_secret") as caught:
        tokens.load({}, home, Mode.SOCKET)
    assert SECRET not in str(caught.value)
