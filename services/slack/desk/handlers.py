"""What Slack delivers, handed to the desk: commands, presses, forms, the home tab.

Every handler acknowledges first, so that nobody sees ``operation_timeout``; whatever goes wrong after that is told and logged.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import structlog
from slack_bolt.async_app import AsyncApp

from bus import errors
from bus.connection import Credentials
from bus.errors import BadAsk
from bus.ids import key_id
from services.ops.deciding import Proposal
from services.quota import setting
from services.quota.lines import text as cap_text
from services.slack.app import Parts
from services.slack.desk import acts, answer, buttons, forms, incidents, looks, words
from services.slack.desk import blocks as kit
from services.slack.desk.answer import Answer
from services.slack.desk.blocks import Block
from services.slack.desk.buttons import PRESSES
from services.slack.desk.desk import Desk, Request
from services.slack.desk.forms import Kept, Wrong
from services.slack.desk.home import Home
from services.slack.desk.permission import Permission, Who
from services.slack.desk.reply import FAULTS, Reply, To
from services.slack.desk.words import Said
from services.slack.markup import escaped

log = structlog.get_logger()

Ack = Callable[..., Awaitable[Any]]
Body = dict[str, Any]

_LOOKS = {**looks.LOOKS, **incidents.LOOKS}
_ACTS = {**acts.ACTS, **incidents.ACTS}
_FORM = re.compile(f"{forms.PREFIX}.+")
_PRESS = re.compile(rf"(?P<name>{'|'.join(PRESSES)})(?::\d+)?")


class Handlers:
    """What happens upon each delivery."""

    def __init__(self, parts: Parts, login: Callable[[str], Credentials] | None = None) -> None:
        """`login` gives the credentials of a user of the fleet's server; else those of the home."""
        self.desk = Desk(parts, login)
        self.home = Home(self.desk)
        self._client = parts.client
        self._reply = Reply(parts.client)

    def register(self, app: AsyncApp) -> None:
        """Add all of them to an app."""
        app.command("/systems")(self.slash)
        app.action(_PRESS)(self.press)
        app.view(_FORM)(self.submit)
        app.event("app_home_opened")(self.opened)
        app.error(self.failed)

    async def failed(self, error: Exception, body: Body) -> None:
        """What no handler has caught: the library would keep it to itself."""
        log.error("slack_delivery_failed", kind=body.get("type") or body.get("command"), exc_info=error)

    async def slash(self, ack: Ack, body: Body) -> None:
        """``/systems …``."""
        await ack()
        to = To(user=body["user_id"], url=body.get("response_url", ""))
        typed = body.get("text") or ""

        async def work() -> Answer | None:
            said = words.read(typed)
            who = await self.desk.directory.who(body["user_id"], body.get("user_name", ""))
            asked = Request(
                who,
                said.spec.name,
                said.spec.needs,
                text=typed,
                channel=body.get("channel_id", ""),
                delivery=f"slash {body['trigger_id']}",
            )
            return await self._do(asked, said)

        await self._answered(to, work(), f"/systems {typed.split(' ')[0] if typed else 'help'}")

    async def press(self, ack: Ack, body: Body, action: Body) -> None:
        """A button."""
        await ack()
        found = _PRESS.fullmatch(action["action_id"])
        assert found is not None  # what it was registered for
        name, value = found["name"], action.get("value", "")
        container = body.get("container", {})
        message = body.get("message", {})
        thread = message.get("thread_ts") or message.get("ts") or ""
        channel = container.get("channel_id", "")
        to = To(user=body["user"]["id"], url=body.get("response_url", ""), thread=thread)
        press = PRESSES[name]

        async def work() -> Answer | None:
            who = await self.desk.directory.who(to.user, body["user"].get("name", ""))
            asked = Request(
                who,
                press.command,
                press.needs,
                text=f"{name} {value}",
                channel=channel,
                delivery=f"press {body['trigger_id']}",
            )
            if name == "home_refresh":
                await self.home.open(who)
                return None
            if press.form:
                kept = Kept(about=value, channel=channel, thread=thread)
                return await self._open(asked, name, kept, body["trigger_id"])
            if name == "proposal_approve":
                return await self._approve(asked, value)
            return await self._do(asked, buttons.said(press, value))

        await self._answered(to, work(), press.command)

    async def submit(self, ack: Ack, body: Body, view: Body) -> None:
        """A form that came back."""
        name, kept = view["callback_id"].removeprefix(forms.PREFIX), forms.kept_of(view)
        filled = forms.values(view)
        try:
            said = forms.command(name, kept, filled)
        except Wrong as exc:
            await ack(response_action="errors", errors={exc.field: exc.sentence})
            return
        title = view["title"]["text"]
        await ack(response_action="update", view=forms.told(title, [kit.section(":hourglass: at work on it …")]))
        user = body["user"]["id"]

        async def work() -> Answer | None:
            who = await self.desk.directory.who(user, body["user"].get("name", ""))
            press = PRESSES[name]
            needs = said.spec.needs if said is not None else press.needs
            command = said.spec.name if said is not None else press.command
            text = f"{command} {kept.about} {filled.get('reason', '')}"
            delivery = f"form {view['id']}"
            if said is None:
                delivery = forms.proposal(kept).name
            asked = Request(who, command, needs, text=text, channel=kept.channel, delivery=delivery)
            if said is None:
                return await self._reject(asked, kept, filled["reason"])
            return await self._do(asked, said)

        found = await self._safely(work())
        if found is not None:
            await self._show(user, view["id"], title, found)

    async def opened(self, event: Body) -> None:
        """Somebody looks at the home tab."""
        if event.get("tab") != "home":
            return
        who = await self.desk.directory.who(event["user"])
        try:
            await self.home.open(who)
        except FAULTS as exc:
            log.warning("slack_home_unpublished", user=event["user"], error=str(exc) or type(exc).__name__)

    async def _do(self, asked: Request, said: Said) -> Answer | None:
        """A command, looked up and done."""
        name = said.spec.name
        if name == "help":
            return await looks.help_(self.desk, said, asked.who)
        if name in _LOOKS:
            return await self.desk.look(asked, lambda: _LOOKS[name](self.desk, said, asked.who))
        hard = said.spec.needs is Permission.HARD
        return await self.desk.act(asked, lambda session: _ACTS[name](session, said), hard=hard)

    async def _open(self, asked: Request, name: str, kept: Kept, trigger: str) -> Answer | None:
        """Open a form, or say why there is none to fill in."""
        if not self.desk.may(asked.who, asked.needs):
            return await self.desk.refuse(asked)
        about = await self._about(name, kept, asked.who)
        made = about if isinstance(about, dict) else forms.FORMS[name](about, kept)
        await self._client.views_open(trigger_id=trigger, view=made)
        return None

    async def _about(self, name: str, kept: Kept, who: Who) -> Any:
        """What a form says of its subject as it is now; a modal that tells what has happened since, where there is nothing to do.

        Raises:
            BusError: it is not there, or nobody can tell.
        """
        match name:
            case "incident_update" | "incident_close":
                one = await incidents.find(self.desk, kept.about, who)
                if one.open:
                    return one
                return forms.told(
                    f"Incident {one.number}", [kit.section(f":information_source: {incidents.ended(one)}")]
                )
            case "cap_raise":
                scope, unit, window = kept.about.split()
                for line in await setting.lines(self.desk.bus):
                    if (line.scope, line.unit, line.window) == (scope, unit, window):
                        return f"{scope}, each {window}: {cap_text(line, self.desk.bus.author.now())}"
                return forms.told("Raise a cap", [kit.section(f"{escaped(scope)} has no such cap any more")])
            case "proposal_reject":
                meant = forms.proposal(kept)
                return f"finding {meant.fingerprint}, proposal {meant.place + 1}"
        return ""

    async def _approve(self, asked: Request, value: str) -> Answer | None:
        meant = msgspec.json.decode(value, type=Proposal)
        asked = Request(
            asked.who, asked.command, asked.needs, text=meant.name, channel=asked.channel, delivery=meant.name
        )
        found = await self.desk.act(asked, lambda session: acts.approve(session, meant))
        return found if found is not None else await self._decided(meant.name)

    async def _reject(self, asked: Request, kept: Kept, why: str) -> Answer | None:
        meant = forms.proposal(kept)
        found = await self.desk.act(asked, lambda session: acts.reject(session, meant, why))
        return found if found is not None else await self._decided(meant.name)

    async def _decided(self, delivery: str) -> Answer:
        """Who was first where one wins."""
        sentence = await self.desk.earlier(key_id("slack", delivery))
        return answer.refused(f"{sentence}; see systems ops")

    async def _answered(self, to: To, work: Awaitable[Answer | None], what: str) -> None:
        await self._reply.after(to, asyncio.ensure_future(self._safely(work)), what)

    async def _safely(self, work: Awaitable[Answer | None]) -> Answer | None:
        """What came of it; whatever goes wrong outside of a deed is told as well."""
        try:
            return await work
        except (errors.BusError, BadAsk) as exc:
            return answer.refused(str(exc))
        except FAULTS as exc:
            log.warning("slack_call_failed", error=str(exc) or type(exc).__name__)
            return answer.refused(f"Slack did not take it: {exc}")
        except Exception as exc:
            log.exception("slack_handler_failed")
            return answer.refused(f"unexpected {type(exc).__name__}: {exc}; the trace is in {self.desk.log_file}")

    async def _show(self, user: str, view_id: str, title: str, found: Answer) -> None:
        """Tell within the modal what came of it; where it is closed already, directly."""
        made: Block = forms.told(title, found.whole)
        try:
            await self._client.views_update(view_id=view_id, view=made)
        except FAULTS as exc:
            log.info("slack_form_closed", user=user, error=str(exc) or type(exc).__name__)
            await self._reply.bring(To(user=user), found)
            return
        if found.file is not None:
            await self._reply.bring(To(user=user), Answer(text=title, file=found.file))
