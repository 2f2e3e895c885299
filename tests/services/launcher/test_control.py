"""The control socket: one line asks, one line answers, and rubbish is answered too."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bus import errors
from services.home import Home
from services.launcher import control
from services.launcher.control import Answer, ControlServer, Phase

LIMIT_S = 30.0


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A prepared home."""
    made = Home(tmp_path)
    made.prepare()
    return made


async def handle(request: control.Request) -> Answer:
    """Knows one child, and takes for ever to stop."""
    if isinstance(request, control.Start) and request.name != "warden":
        raise errors.UnknownName("child", request.name, ["warden"])
    if isinstance(request, control.Stop):
        await asyncio.Event().wait()
    return Answer(ok=True, phase=Phase.READY)


def refuse(error: str) -> Answer:
    """As the launcher does."""
    return Answer(ok=False, phase=Phase.READY, error=error)


@pytest.fixture
async def listening(home: Home) -> AsyncIterator[Home]:
    """A home whose launcher is this process."""
    with home.lock("boot", datetime.now(UTC)):
        async with ControlServer(home.socket, handle, refuse):
            yield home


async def say(home: Home, *lines: bytes) -> list[dict[str, Any]]:
    """Send lines over one connection and read an answer to each."""
    reader, writer = await asyncio.open_unix_connection(home.socket)
    answers = []
    async with asyncio.timeout(LIMIT_S):
        for line in lines:
            writer.write(line)
            answers.append(json.loads(await reader.readline()))
    writer.close()
    await writer.wait_closed()
    return answers


async def test_control_answers_requests(listening: Home) -> None:
    """A request is answered, a refusal carries its sentence."""
    assert (await control.ask(listening, control.Status())).ok
    answer = await control.ask(listening, control.Start("wardn"))
    assert not answer.ok
    assert "did you mean 'warden'" in answer.error


async def test_control_answers_rubbish_and_goes_on(listening: Home) -> None:
    """Lines that are no request, too long, or of an unknown kind are answered; the connection still serves."""
    answers = await say(
        listening, b"hello\n", b'{"op":"explode"}\n', b'{"op":"stop"}\n', b"x" * 100_000 + b"\n", b'{"op":"status"}\n'
    )
    assert [answer["ok"] for answer in answers[:3]] == [False] * 3
    assert "expected one line of JSON" in answers[0]["error"]
    assert "explode" in answers[1]["error"]
    assert "name" in answers[2]["error"]
    assert not answers[3]["ok"]


async def test_control_socket_is_of_its_user_alone(listening: Home) -> None:
    """Nobody else may ask."""
    assert listening.socket.stat().st_mode & 0o777 == 0o600


async def test_control_ends_in_the_middle_of_a_request(home: Home) -> None:
    """A launcher that ends leaves no socket, and whoever waits for an answer is told."""
    with home.lock("boot", datetime.now(UTC)):
        async with ControlServer(home.socket, handle, refuse):
            waiting = asyncio.create_task(control.ask(home, control.Stop("warden")))
            assert (await control.ask(home, control.Status())).ok  # the first request is under way by now
        async with asyncio.timeout(LIMIT_S):
            with pytest.raises(errors.BusUnreachable, match=r"pid \d+"):
                await waiting
        assert not home.socket.exists()
        with pytest.raises(errors.BusUnreachable, match="does not listen"):
            await control.ask(home, control.Status())


async def test_control_that_does_not_answer_is_given_up_on(listening: Home) -> None:
    """No answer in time is an error that says so, not a hang."""
    with pytest.raises(errors.Unanswered, match=r"stop by the launcher .* within 0\.05 s"):
        await control.ask(listening, control.Stop("warden"), timeout=0.05)


async def test_control_without_a_launcher_is_said(home: Home) -> None:
    """Without a launcher the error says how to start one."""
    with pytest.raises(errors.BusUnreachable, match=r"no launcher runs in this state directory.*systems up"):
        await control.ask(home, control.Status())


async def test_control_replaces_the_socket_of_a_dead_launcher(home: Home) -> None:
    """What a killed launcher left at the socket's path is no obstacle, also where that path is a short one below /tmp."""
    deep = Home(home.path / ("d" * 120))
    deep.prepare()
    for each in (home, deep):
        each.socket.touch()
        with each.lock("boot", datetime.now(UTC)):
            async with ControlServer(each.socket, handle, refuse):
                assert (await control.ask(each, control.Status())).ok
        assert not each.socket.exists()
