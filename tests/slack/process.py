"""The daemon as a process of its own, one life after the other, beside a bus that runs already."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from bus.context import Context
from services.home import Home, write_json
from tests.slack.fake import FakeSlack

#: Seconds that an end may take.
_END_S = 20


class Mirrors:
    """Lives of one ``slack_mirror``; nothing runs until :meth:`start`."""

    def __init__(self, home: Home, url: str, slack: FakeSlack) -> None:
        home.prepare()
        write_json(home.server_file, Context(url=url))
        self._log = home.logs / "slack_mirror.log"
        self._command = (sys.executable, "-m", "services.app", "slack_mirror", "--home", str(home.path), "--fleet", "x")
        self._environ = os.environ | {
            "SYSTEMS_HOME": str(home.path),
            "SYSTEMS_SLACK_BOT_TOKEN": slack.bot_token,
            "SYSTEMS_SLACK_APP_TOKEN": slack.app_token,
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the present life."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Begin a life."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                (*self._command, "--instance", "slack_mirror"), stdin=subprocess.DEVNULL, stderr=log, env=self._environ
            )

    def end(self, number: signal.Signals) -> None:
        """End it; it must have lived until now."""
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()[-2000:]
        self._process.send_signal(number)
        self._process.wait(_END_S)

    def kill(self) -> None:
        """Whatever still lives."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(_END_S)
