"""A Slack of one's own: the Web API over HTTP, Socket Mode over WebSocket, and signed deliveries, as Slack documents them.

Everything runs over real sockets on 127.0.0.1. Each message and view is held against Slack's limits: one that Slack would not
take is refused as Slack does, and fails the test when the fake is left. ``unmet`` holds what was found.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.slack import limits
from tests.slack.methods import METHODS, SCOPES, Method
from tests.slack.sockets import Sockets
from tests.slack.workspace import BOT, Refused, Workspace

BOT_TOKEN, APP_TOKEN, SECRET = "xoxb-fake", "xapp-fake", "fake-signing-secret"
#: Arguments that come as JSON in a form.
_JSON = ("blocks", "attachments", "view", "metadata", "files", "unfurl_media")
#: Uses of one response_url.
_RESPONSES = 5
#: All that the app's manifest may ask for.
ALL_SCOPES = frozenset(scope for scopes in SCOPES.values() for scope in scopes) | {"commands"}


@dataclass
class Call:
    """One request to the Web API."""

    method: str
    args: dict[str, Any]
    #: Monotonic seconds.
    at: float
    #: ``ok``, or the error.
    answer: str = "ok"


@dataclass
class Script:
    """What a fake does to the next calls that match."""

    error: str
    method: str = "chat.postMessage"
    channel: str = ""
    times: float = 1
    retry_after: float = 0
    #: The message is taken and nobody hears of it: the connection ends before the answer.
    after: bool = False


@dataclass
class Response:
    """What was sent to one response_url."""

    url: str
    bodies: list[dict[str, Any]] = field(default_factory=list)


class FakeSlack:
    """One workspace with one app in it; made by :func:`fake_slack`."""

    def __init__(self) -> None:
        self.workspace = Workspace()
        self.sockets = Sockets(self._changed)
        self.url = ""
        #: Scopes of the bot's token.
        self.scopes: set[str] = set(ALL_SCOPES)
        self.bot_token, self.app_token, self.secret = BOT_TOKEN, APP_TOKEN, SECRET
        self.calls: list[Call] = []
        #: What the app did that Slack would not take.
        self.unmet: list[str] = []
        self.scripts: list[Script] = []
        #: Messages a second that one channel takes; more is answered with 429. None: any number.
        self.per_second: float | None = None
        #: While it is not set, posts are taken and their answers wait.
        self.answering = asyncio.Event()
        self.answering.set()
        self.responses: dict[str, Response] = {}
        self._room: dict[str, tuple[float, float]] = {}
        self._news = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def api(self) -> str:
        """The base_url of a client."""
        return f"{self.url}/api/"

    # What tests ask.

    def messages(self, channel: str) -> list[dict[str, Any]]:
        """All messages of a channel, replies among them, in the order in which they came."""
        return self.workspace.channels[channel].messages

    def thread(self, channel: str, ts: str) -> list[dict[str, Any]]:
        """A message and its replies."""
        return [m for m in self.messages(channel) if ts in (m["ts"], m.get("thread_ts"))]

    def of(self, method: str) -> list[Call]:
        """The calls of one method."""
        return [call for call in self.calls if call.method == method]

    async def until(self, condition: Callable[[], Any], limit_s: float = 30.0) -> Any:
        """Wait until something is so: what `condition` gave, the first time that it is true."""
        async with self._news:
            try:
                async with asyncio.timeout(limit_s):
                    while not (found := condition()):
                        await self._news.wait()
            except TimeoutError:
                last = [(call.method, call.answer) for call in self.calls[-10:]]
                raise AssertionError(f"it did not come; the last calls: {last}") from None
            return found

    async def said(self, channel: str, words: str, limit_s: float = 30.0) -> dict[str, Any]:
        """Wait for a message that holds these words anywhere: the message."""

        def find() -> dict[str, Any] | None:
            return next((m for m in self.messages(channel) if words in spoken(m)), None)

        found: dict[str, Any] = await self.until(find, limit_s)
        return found

    def response_url(self) -> str:
        """A new response_url."""
        url = f"{self.url}/response/{self.workspace.id('R')}"
        self.responses[url] = Response(url)
        return url

    def trigger(self) -> str:
        """A new trigger_id, for one view."""
        return self.workspace.id("trigger-")

    # The server.

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Answer until left; then nothing may be unmet."""
        application = web.Application(client_max_size=64 << 20)
        application.router.add_route("*", "/api/{method}", self._call)
        application.router.add_post("/response/{id}", self._respond)
        application.router.add_post("/upload/{id}", self._upload)
        application.router.add_get("/link", self._link)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = "http://{}:{}".format(*runner.addresses[0][:2])
        try:
            yield
        finally:
            self.answering.set()
            await self.sockets.close()
            await runner.cleanup()
        assert not self.unmet, self.unmet

    def _changed(self) -> None:
        async def tell() -> None:
            async with self._news:
                self._news.notify_all()

        task = asyncio.get_running_loop().create_task(tell())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _call(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["method"]
        call = Call(name, await _arguments(request), time.monotonic())
        self.calls.append(call)
        try:
            return await self._answer(request, call)
        finally:
            self._changed()

    async def _answer(self, request: web.Request, call: Call) -> web.StreamResponse:
        channel = str(call.args.get("channel", ""))
        script = self._scripted(call.method, channel)
        headers = {"x-oauth-scopes": ",".join(sorted(self.scopes))}
        wait = self._wait(call.method, channel) if script is None else script.retry_after
        if wait or (script and script.error == "ratelimited"):
            call.answer = "ratelimited"
            headers["Retry-After"] = str(max(1, math.ceil(wait)))
            return web.json_response({"ok": False, "error": "ratelimited"}, status=429, headers=headers)
        if script is not None and script.error == "http_500":
            call.answer = script.error
            return web.Response(status=500, text="upstream error")
        try:
            method = self._allowed(request, call, script)
            self._hold_to_limits(call)
            answer = method(self, call.args)
        except Refused as exc:
            call.answer = exc.error
            return web.json_response({"ok": False, "error": exc.error} | exc.more, headers=headers)
        self._changed()
        if script is not None and script.after:
            call.answer = "cut off"
            assert request.transport is not None
            request.transport.close()
        if call.method == "chat.postMessage":
            await self.answering.wait()
        return web.json_response({"ok": True} | answer, headers=headers)

    def _scripted(self, method: str, channel: str) -> Script | None:
        for script in self.scripts:
            if script.method == method and script.channel in ("", channel) and script.times > 0:
                script.times -= 1
                return script
        return None

    def _wait(self, method: str, channel: str) -> float:
        """Seconds until a channel takes another message; 0 for now. Slack allows short bursts."""
        if self.per_second is None or method not in ("chat.postMessage", "chat.update"):
            return 0.0
        now = time.monotonic()
        room, at = self._room.get(channel, (self.per_second, now))
        room = min(max(1.0, self.per_second), room + (now - at) * self.per_second)
        if room < 1:
            self._room[channel] = (room, now)
            return (1 - room) / self.per_second
        self._room[channel] = (room - 1, now)
        return 0.0

    def _allowed(self, request: web.Request, call: Call, script: Script | None) -> Method:
        """The method, if the token, its scopes and the script allow it."""
        token = request.headers.get("Authorization", "").removeprefix("Bearer ") or call.args.get("token", "")
        if not token:
            raise Refused("not_authed")
        if call.method not in METHODS:
            self.unmet.append(f"unknown method {call.method}")
            raise Refused("unknown_method")
        wanted = self.app_token if call.method == "apps.connections.open" else self.bot_token
        if token != wanted:
            raise Refused("not_allowed_token_type" if token in (self.app_token, self.bot_token) else "invalid_auth")
        needed = SCOPES.get(call.method, ())
        if needed and not self.scopes.intersection(needed):
            raise Refused("missing_scope", needed=",".join(needed), provided=",".join(sorted(self.scopes)))
        if script is not None and not script.after:
            raise Refused(script.error)
        return METHODS[call.method]

    def _hold_to_limits(self, call: Call) -> None:
        if call.method in ("chat.postMessage", "chat.update", "chat.postEphemeral"):
            found, error = limits.message(call.args), "invalid_blocks"
        elif call.method.startswith("views."):
            found, error = limits.view(call.args.get("view") or {}), "invalid_arguments"
        else:
            return
        if found:
            self.unmet += [f"{call.method}: {fault}" for fault in found]
            raise Refused(error, response_metadata={"messages": [f"[ERROR] {fault}" for fault in found]})

    async def _respond(self, request: web.Request) -> web.Response:
        response = self.responses.get(f"{self.url}{request.path}")
        if response is None or len(response.bodies) >= _RESPONSES:
            return web.json_response({"ok": False, "error": "expired_url"}, status=404)
        body = await request.json()
        if not body.get("delete_original"):
            self.unmet += [f"response_url: {fault}" for fault in limits.message(body)]
        response.bodies.append(body)
        self._changed()
        return web.Response(text="ok")

    async def _upload(self, request: web.Request) -> web.Response:
        file = self.workspace.files[request.match_info["id"]]
        body = await request.read()
        if request.content_type.startswith("multipart/"):
            body = bytes(next(iter((await request.post()).values())).file.read())  # type: ignore[union-attr]
        if len(body) != file["length"]:
            self.unmet.append(f"an upload of {len(body)} bytes where {file['length']} were announced")
        file["content"] = body
        return web.Response(text=f"OK - {len(body)}")

    async def _link(self, request: web.Request) -> web.StreamResponse:
        return await self.sockets.serve(request)


async def _arguments(request: web.Request) -> dict[str, Any]:
    """The arguments of a call, however they come."""
    if request.content_type == "application/json":
        return dict(await request.json())
    found: dict[str, Any] = dict(request.query)
    if request.method == "POST":
        found |= dict(await request.post())
    for name in _JSON:
        if isinstance(found.get(name), str):
            found[name] = json.loads(found[name])
    return found


def spoken(message: dict[str, Any]) -> str:
    """All that a message says: its text, and the texts of its blocks."""
    found = [message.get("text", "")]

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if isinstance(value.get("text"), str):
                found.append(value["text"])
            for each in value.values():
                walk(each)
        elif isinstance(value, list):
            for each in value:
                walk(each)

    walk(message.get("blocks", []))
    return "\n".join(found)


@asynccontextmanager
async def fake_slack() -> AsyncIterator[FakeSlack]:
    """A fake Slack that answers until left."""
    fake = FakeSlack()
    async with fake.serving():
        yield fake


__all__ = ["BOT", "Call", "FakeSlack", "Script", "fake_slack", "spoken"]
