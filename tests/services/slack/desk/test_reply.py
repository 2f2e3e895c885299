"""How answers reach people, whatever Slack says on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from services.fleet.slack import Slack
from services.slack import app as slack_app
from services.slack.desk import answer, reply
from services.slack.desk.answer import Answer, File
from services.slack.desk.reply import Reply, To
from services.slack.tokens import Tokens
from tests.slack.fake import FakeSlack, Script, fake_slack, spoken

FILE = File(name="rows.csv", title="rows", content=b"a,b\n1,2\n")


@pytest.fixture
async def slack() -> AsyncIterator[FakeSlack]:
    """A workspace."""
    async with fake_slack() as running:
        yield running


def of(slack: FakeSlack) -> Reply:
    """Who brings answers."""
    tokens = Tokens(bot_token=slack.bot_token, app_token=slack.app_token, signing_secret=slack.secret)
    return Reply(slack_app.client(tokens, Slack(api_url=slack.api)))


async def test_an_answer_goes_where_slack_wants_it_and_its_file_to_the_person(slack: FakeSlack) -> None:
    """Only the person sees what was looked at; all see what was done; a file is in their direct messages."""
    user, url = slack.workspace.user("ann").id, slack.response_url()
    await of(slack).bring(To(user=user, url=url, thread="1.2"), Answer(text="seen", file=FILE))
    await of(slack).bring(To(user=user, url=url), answer.done("done", "ann"))
    first, second = slack.responses[url].bodies
    assert (first["response_type"], first["thread_ts"]) == ("ephemeral", "1.2")
    assert second["response_type"] == "in_channel"
    (file,) = slack.workspace.files.values()
    assert (file["name"], file["content"]) == ("rows.csv", FILE.content)
    assert [message["files"][0]["name"] for message in slack.messages(slack.workspace.direct(user).id)] == ["rows.csv"]


async def test_an_address_that_has_expired_is_replaced_by_a_direct_message(slack: FakeSlack) -> None:
    """The answer of what took longer than half an hour is not lost."""
    user = slack.workspace.user("ann").id
    await of(slack).bring(To(user=user, url=f"{slack.url}/response/gone"), Answer(text="at last"))
    assert spoken(await slack.said(slack.workspace.direct(user).id, "at last"))


async def test_a_file_that_slack_does_not_take_is_told(slack: FakeSlack) -> None:
    """Without the scope the answer comes all the same, with what to add."""
    user, url = slack.workspace.user("ann").id, slack.response_url()
    slack.scopes.discard("files:write")
    await of(slack).bring(To(user=user, url=url), Answer(text="rows", file=FILE))
    said = spoken(slack.responses[url].bodies[0])
    assert "rows.csv could not be sent: missing_scope (files:write): add the scope" in said


async def test_who_waits_is_told_so_once(slack: FakeSlack, monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes long is announced, and then answered."""
    monkeypatch.setattr(reply, "PATIENCE_S", 0.05)
    user, url = slack.workspace.user("ann").id, slack.response_url()
    told = asyncio.Event()

    async def work() -> Answer | None:
        await told.wait()
        return Answer(text="finished")

    bringing = asyncio.create_task(
        of(slack).after(To(user=user, url=url), asyncio.create_task(work()), "/systems sweep")
    )
    await slack.until(lambda: slack.responses[url].bodies)
    told.set()
    await bringing
    assert [body["text"] for body in slack.responses[url].bodies] == [
        "/systems sweep: this takes a moment, the answer follows",
        "finished",
    ]


async def test_an_answer_waits_as_long_as_slack_asks_for(slack: FakeSlack) -> None:
    """A direct message that is too much for now is offered again, and comes once."""
    user = slack.workspace.user("ann").id
    slack.scripts.append(Script("ratelimited", retry_after=0.01))
    await of(slack).bring(To(user=user), Answer(text="at last"))
    assert [call.answer for call in slack.of("chat.postMessage")] == ["ratelimited", "ok"]
    assert len(slack.messages(slack.workspace.direct(user).id)) == 1
