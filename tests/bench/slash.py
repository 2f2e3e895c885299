"""`/systems status` from Slack: from Slack's delivery over the socket to the answer at its address, on a fleet of processes.

The floor is the acknowledgement of the same delivery: what socket, library and the way through the process cost anyway.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median

import msgspec

from services.slack import tokens
from tests.bench.report import Row
from tests.bench.rig import Rig
from tests.bench.scale import Scale
from tests.chaos.fleet import Fleet
from tests.slack.fake import FakeSlack, fake_slack, spoken
from tests.slack.people import Person

#: Milliseconds from the delivery to the answer.
LIMIT_MS = 500.0
_FLEET = """
[slack]
enabled = true
api_url = "{api}"

[slack.permissions]
view = ["{user}"]

[projects.bench.roles]
noop = {{ handler = {{ kind = "function", target = "handlers:noop" }} }}
strict = {{ handler = {{ kind = "function", target = "handlers:noop" }}, input_schema = {{ type = "object" }} }}
"""


async def measure(_rig: Rig, scale: Scale) -> list[Row]:
    """Type, wait, type again."""
    with tempfile.TemporaryDirectory(prefix="bench-slash-") as folder:
        async with fake_slack() as slack:
            fleet = Fleet(Path(folder))
            ann, channel = Person(slack, slack.workspace.user("ann").id), slack.workspace.channel("fleet").id
            fleet.write(_FLEET.format(api=slack.api, user=ann.user), "async def noop(input):\n    return input\n")
            fleet.home.prepare()
            file = tokens.file(fleet.home)
            file.touch(mode=0o600)
            file.write_bytes(msgspec.json.encode({"bot_token": slack.bot_token, "app_token": slack.app_token}))
            try:
                await fleet.up()
                await slack.until(lambda: slack.sockets.connected, 60)
                await _once(slack, ann, channel)  # who ann is is asked of Slack once a minute
                taken = [await _once(slack, ann, channel) for _ in range(20 * scale.rounds)]
            finally:
                await fleet.down()
    answered, acknowledged = [one[0] for one in taken], [one[1] for one in taken]
    return [
        Row(
            what=f"/systems status from Slack to the answer, p50 of {len(taken)}",
            unit="ms",
            ours=median(answered),
            floor=median(acknowledged),
            ratios=tuple(ours / floor for ours, floor in taken),
            target=f"< {LIMIT_MS:g} ms",
            met=max(answered) < LIMIT_MS,
            note=f"worst {max(answered):.0f} ms; the floor is the acknowledgement alone",
        )
    ]


async def _once(slack: FakeSlack, ann: Person, channel: str) -> tuple[float, float]:
    """Milliseconds to the answer, and to the acknowledgement."""
    begun = time.perf_counter()
    await ann.slash("status", channel)
    acknowledged = time.perf_counter()
    response = slack.responses[ann.last["response_url"]]
    body = await slack.until(lambda: response.bodies and response.bodies[-1])
    answered = time.perf_counter()
    if "fleet health at" not in spoken(body):
        raise RuntimeError(f"expected the panel, got: {spoken(body)}")
    return 1000 * (answered - begun), 1000 * (acknowledged - begun)
