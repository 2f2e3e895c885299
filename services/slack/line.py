"""How Slack reaches the app: over a socket that the app opens, or by signed requests. Both end in the same Bolt app.

A socket counts as up only while there is evidence for it: Slack's hello, then messages or pongs. Without any for `patience`
seconds it is replaced, whether or not anything has failed. A token that Slack refuses is a state with its remedy, and is tried
again for ever: people repair it from outside.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import aiohttp
import msgspec
import structlog
from aiohttp import web
from slack_bolt.adapter.aiohttp import to_aiohttp_response, to_bolt_request
from slack_bolt.adapter.socket_mode.async_internals import run_async_bolt_app
from slack_bolt.async_app import AsyncApp
from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.socket_mode.aiohttp import SocketModeClient
from slack_sdk.socket_mode.async_client import AsyncBaseSocketModeClient
from slack_sdk.socket_mode.request import SocketModeRequest
from slack_sdk.socket_mode.response import SocketModeResponse
from slack_sdk.web.async_client import AsyncWebClient

from services.fleet.slack import Mode, Slack
from services.slack.app import quiet
from services.slack.screen import Refused
from services.slack.standing import Line, Standing, State
from services.slack.tokens import Tokens

log = structlog.get_logger()

#: Seconds between two tries to connect; doubled up to the second.
_PAUSE_S, _PAUSE_MAX_S = 0.5, 30.0
#: Seconds between two looks at a socket, at most.
_LOOK_S = 0.5
#: Bytes of one signed request.
_BODY = 4 << 20


class Socket(Line):
    """Socket Mode."""

    def __init__(
        self,
        app: AsyncApp,
        app_token: str,
        client: AsyncWebClient,
        settings: Slack,
        on_change: Callable[[Standing], None],
    ) -> None:
        super().__init__(on_change)
        self._app = app
        self._patience = settings.patience
        self._loop = asyncio.get_running_loop()
        #: Loop time of the last sign of life of the present socket.
        self._heard = self._loop.time()
        self._greeted = False
        self._pong: float | None = None
        self._client = SocketModeClient(
            app_token=app_token,
            logger=quiet("systems.slack.socket"),
            web_client=client,
            # The library's own reconnection may run beside ours, and of two sockets it forgets one that Slack still uses.
            auto_reconnect_enabled=False,
            ping_interval=self._patience / 4,
            on_message_listeners=[self._received],
        )
        self._client.message_listeners.append(self._told)
        self._client.socket_mode_request_listeners.append(self._asked)

    async def run(self) -> None:
        """Keep a socket open; ends only by cancellation."""
        pause = _PAUSE_S
        try:
            while True:
                if await self._connect():
                    pause = _PAUSE_S
                    await self._watch()
                else:
                    await asyncio.sleep(pause)
                    pause = min(_PAUSE_MAX_S, pause * 2)
        finally:
            await self._client.close()  # type: ignore[no-untyped-call]

    async def _connect(self) -> bool:
        """Make a socket: whether one is there, which Slack has not yet greeted on."""
        self._greeted, self._pong, self._client.stale = False, None, True
        try:
            async with asyncio.timeout(self._patience):
                await self._client.connect_to_new_endpoint()
        except SlackApiError as exc:
            self.stand(State.REFUSED, refusal(exc))
            return False
        except (TimeoutError, SlackClientError, aiohttp.ClientError, OSError) as exc:
            self.stand(State.LOST, f"Slack cannot be reached: {str(exc) or type(exc).__name__}")
            return False
        self._heard = self._loop.time()
        return True

    async def _watch(self) -> None:
        """Return when the socket is no more, or gives no sign of life."""
        while True:
            await asyncio.sleep(min(_LOOK_S, self._patience / 8))
            session = self._client.current_session
            if session is None or session.closed:
                self.stand(State.LOST, "the socket was closed" + ("" if self._greeted else ", and no hello had come"))
                return
            pong = self._client.last_ping_pong_time
            if pong != self._pong:
                if self._pong is not None and pong is not None:
                    self._sign()
                self._pong = pong
            silence = self._loop.time() - self._heard
            if silence > self._patience:
                what = "nothing was heard" if self._greeted else "no hello came"
                self.stand(State.LOST, f"{what} for {silence:.0f} s")
                return

    def _sign(self) -> None:
        self.heard_at = datetime.now(UTC)
        # A socket that answers pings and was never greeted brings nothing either.
        if self._greeted:
            self._heard = self._loop.time()

    async def _received(self, _: aiohttp.WSMessage) -> None:
        self._sign()

    async def _told(self, _: AsyncBaseSocketModeClient, message: dict[str, Any], __: str | None = None) -> None:
        match message.get("type"):
            case "hello":
                self._greeted = True
                self._sign()
                self.stand(State.UP)
            case "disconnect":
                # Slack says so before it closes the socket, and the library makes another one at once.
                self._greeted, self._heard = False, self._loop.time()
                log.info("slack_socket_refreshed", reason=message.get("reason"))

    async def _asked(self, client: AsyncBaseSocketModeClient, request: SocketModeRequest) -> None:
        answer = await run_async_bolt_app(self._app, request)
        payload: dict[str, Any] | None = None
        if answer.body:
            json = "json" in answer.headers.get("content-type", [""])[0]
            payload = msgspec.json.decode(answer.body) if json else {"text": answer.body}
        if answer.status != 200:
            # Without an acknowledgement people see "operation_timeout", and learn nothing.
            log.warning("slack_request_refused", kind=request.type, status=answer.status)
            payload = {"text": "Nothing here answers to that."} if request.type == "slash_commands" else None
        await client.send_socket_mode_response(SocketModeResponse(envelope_id=request.envelope_id, payload=payload))


class Http(Line):
    """Signed requests to an address of ours."""

    def __init__(self, app: AsyncApp, settings: Slack, on_change: Callable[[Standing], None]) -> None:
        super().__init__(on_change)
        self._app, self._settings = app, settings
        #: Where it listens.
        self.port = 0

    async def run(self) -> None:
        """Serve until cancelled.

        Raises:
            OSError: the address is taken.
        """
        server = web.Application(client_max_size=_BODY)
        server.router.add_post(self._settings.path, self._asked)
        runner = web.AppRunner(server, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._settings.host, self._settings.port).start()
            self.port = runner.addresses[0][1]
            log.info("slack_requests_taken", host=self._settings.host, port=self.port, path=self._settings.path)
            self.stand(State.UP)
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    async def _asked(self, request: web.Request) -> web.Response:
        answer = await self._app.async_dispatch(await to_bolt_request(request))
        if answer.status == 200:
            self.heard_at = datetime.now(UTC)
        return await to_aiohttp_response(answer)


def of(
    app: AsyncApp, tokens: Tokens, client: AsyncWebClient, settings: Slack, on_change: Callable[[Standing], None]
) -> Line:
    """The line that the settings ask for."""
    if settings.mode is Mode.SOCKET:
        return Socket(app, tokens.app_token, client, settings, on_change)
    return Http(app, settings, on_change)


def refusal(exc: SlackApiError) -> str:
    """An error of Slack's with its remedy."""
    return str(Refused(str(exc.response.get("error", "unknown")), str(exc.response.get("needed") or "")))
