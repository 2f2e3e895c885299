"""The micro services, asked with the real nats command and with plain NATS."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import msgspec
import nats
import pytest
from nats.aio.msg import Msg

from bus.refusal import Reason, Refusal
from services.micro import No
from services.requests.service import DUE, KEY, PARENT
from tests.services.rig import Rig, until


async def echo(input: Any) -> Any:
    """A handler that gives back what it gets."""
    return input


async def command(cli: str, rig: Rig, *arguments: str) -> str:
    """What the nats command prints, when it succeeds."""
    process = await asyncio.create_subprocess_exec(
        cli, "--server", rig.url, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(30):
        out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()
    return out.decode()


async def request(rig: Rig, subject: str, body: bytes = b"", **headers: str) -> Msg:
    """Ask a service as any NATS client does."""
    client = await nats.connect(rig.url)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await client.request(subject, body, timeout=5, headers=named or None)
    finally:
        await client.close()


@pytest.fixture
async def shop(rig: Rig) -> Rig:
    """A warden that answers, and roles to ask for."""
    await rig.role("shop/coder", echo, input_schema={"type": ["object", "string"]})
    await rig.role("ledger/books", echo)
    await rig.warden()
    return rig


@pytest.mark.slow
async def test_services_are_seen_by_the_nats_command(shop: Rig, nats_cli: str) -> None:
    """`nats micro ls`, `info` and `stats` show the services with their endpoints and counts."""
    accepted = msgspec.json.decode(await command(nats_cli, shop, "req", "requests.shop.coder", '{"a":1}', "--raw"))
    await shop.story.event(accepted["id"], "requested")
    listed = await command(nats_cli, shop, "micro", "ls")
    assert "requests" in listed
    assert "fleet" in listed
    info = await command(nats_cli, shop, "micro", "info", "requests")
    assert "requests.*.*" in info
    stats = msgspec.json.decode(await command(nats_cli, shop, "micro", "stats", "requests", "--json"))
    (service,) = stats if isinstance(stats, list) else [stats]
    assert [(e["name"], e["num_requests"], e["num_errors"]) for e in service["endpoints"]] == [("ask", 1, 0)]


@pytest.mark.parametrize(
    ("subject", "body", "kind", "sentence"),
    [
        ("requests.shop.codr", b"{}", "UnknownName", "did you mean 'shop/coder'"),
        ("requests.Shop.X", b"{}", "BadSubject", "PROJECT/ROLE"),
        ("requests.shop.coder", b"{not json", "NotJson", "expected the input to be JSON"),
        ("requests.shop.coder", b"\xff\xfe", "NotJson", "expected the input to be JSON"),
        ("requests.shop.coder", b"\xc3\x28\n\r\n", "NotJson", "expected the input to be JSON"),
        ("requests.shop.coder", b"7", "InputMismatch", "expected $ of the input"),
        ("requests.shop.coder", b"[" * 100_000, "NotJson", "expected the input to be JSON"),
        ("fleet.cancel.nobody", b"", "UnknownName", "unknown invocation 'nobody'"),
        ("fleet.cancel.a$b", b"", "BadSubject", "an invocation id"),
    ],
)
async def test_services_refuse_in_a_sentence(shop: Rig, subject: str, body: bytes, kind: str, sentence: str) -> None:
    """A refusal has the service API's error headers, and a body with its kind and the whole sentence."""
    answer = await request(shop, subject, body)
    refusal = msgspec.json.decode(answer.data)
    assert refusal["refused"] == kind
    assert sentence in refusal["reason"]
    assert answer.headers is not None
    assert answer.headers["Nats-Service-Error-Code"] == "400"
    assert answer.headers["Nats-Service-Error"]


@pytest.mark.parametrize(
    "due", ["tomorrow", "+soon", "+nan", "+1e400", "2026-01-01T00:00:00", "+", "99999-01-01T00:00:00Z"]
)
async def test_services_refuse_a_due_time_that_is_none(shop: Rig, due: str) -> None:
    """A Systems-Due that says no time is refused with the two forms that do."""
    answer = await request(shop, "requests.shop.coder", b"{}", **{DUE: due})
    refusal = msgspec.json.decode(answer.data)
    assert refusal["refused"] == "RequestRefused"
    assert DUE in refusal["reason"]


async def test_services_take_a_key_and_a_delay(shop: Rig) -> None:
    """Systems-Key gives the first invocation; Systems-Due puts the request off by so many seconds."""
    await shop.runner()
    headers = {KEY: "order 7 ü", DUE: "+1"}
    asked = shop.bus.author.now()
    first = msgspec.json.decode((await request(shop, "requests.shop.coder", b"{}", **headers)).data)
    again = msgspec.json.decode((await request(shop, "requests.shop.coder", b"{}", **headers)).data)
    assert (again["id"], again["deduplicated"]) == (first["id"], True)
    scheduled = await shop.story.event(first["id"], "scheduled")
    requested = await shop.story.event(first["id"], "requested")
    assert asked + timedelta(seconds=1) <= scheduled.data.due <= requested.stored_at
    await shop.story.event(first["id"], "completed")


async def test_services_hold_a_child_to_its_parent(shop: Rig) -> None:
    """A request on behalf of an invocation is checked against its role, belongs to its tree, and needs it to be running."""
    go = asyncio.Event()

    async def wait(_input: Any) -> None:
        await go.wait()

    await shop.role("shop/boss", wait)
    await shop.runner()
    boss = await shop.ask("shop/boss")
    await shop.story.event(boss.id, "claimed")
    child = msgspec.json.decode((await request(shop, "requests.shop.coder", b"{}", **{PARENT: boss.id})).data)
    requested = (await shop.story.event(child["id"], "requested")).data
    assert (requested.parent, requested.root, requested.depth) == (boss.id, boss.id, 1)
    refused = msgspec.json.decode((await request(shop, "requests.ledger.books", b"{}", **{PARENT: boss.id})).data)
    assert "shop/boss may not ask ledger/books" in refused["reason"]
    go.set()
    await shop.story.event(boss.id, "completed")
    late = msgspec.json.decode((await request(shop, "requests.shop.coder", b"{}", **{PARENT: boss.id})).data)
    assert "it is completed" in late["reason"]
    for nobody in ("no-such-id", "a b", "*", ">"):
        unknown = msgspec.json.decode((await request(shop, "requests.shop.coder", b"{}", **{PARENT: nobody})).data)
        assert unknown["refused"] in ("GuardRefused", "BadSubject"), unknown


async def test_services_cancel(shop: Rig) -> None:
    """fleet.cancel.<id> calls an invocation off, with the body as the reason; a second time it is refused."""
    accepted = await shop.ask("shop/coder", {})
    answer = msgspec.json.decode((await request(shop, f"fleet.cancel.{accepted.id}", b"not needed")).data)
    assert answer == {"id": accepted.id, "was": "queued", "is": "cancelled"}
    assert (await shop.story.event(accepted.id, "cancelled")).data.reason == "not needed"
    again = msgspec.json.decode((await request(shop, f"fleet.cancel.{accepted.id}")).data)
    assert again["refused"] == "Refused"
    assert "has ended" in again["reason"]


async def test_services_answer_many_at_once(shop: Rig) -> None:
    """Hundreds of requests at the same moment are all answered, each with an id of its own."""
    client = await nats.connect(shop.url)
    answers = await asyncio.gather(*(client.request("requests.shop.coder", b"{}", timeout=20) for _ in range(600)))
    await client.close()
    assert len({msgspec.json.decode(answer.data)["id"] for answer in answers}) == 600


async def test_services_tell_the_status_of_the_fleet(shop: Rig) -> None:
    """fleet.status answers with the fold's facts: unfinished work by role, claims in flight, last errors."""

    async def fail(_input: Any) -> None:
        raise ValueError("broken")

    await shop.role("shop/bad", fail, max_attempts=1)
    await shop.runner()
    bad = await shop.ask("shop/bad")
    dead = await shop.story.event(bad.id, "dead_lettered")
    async with asyncio.timeout(30):
        while True:
            facts = msgspec.json.decode((await request(shop, "fleet.status")).data)
            if facts["position"] >= dead.seq:
                break
    assert facts["lag"] == 0
    assert facts["last_errors"][0]["invocation"] == bad.id
    role = next(r for r in facts["roles"] if r["role"] == "shop/bad")
    assert role["events"]["dead_lettered"] == 1
    assert role["unfinished"] == {}


async def test_gate_check_answers_with_the_one_refusal(shop: Rig) -> None:
    """Who asks the gate over NATS hears that it is open, or the whole refusal with its command; rubbish is refused with what was expected."""
    assert (await request(shop, "gate.check", b"")).data == b'{"allowed":true}'
    trip = Refusal(reason=Reason.PAUSED, scope="shop/coder", command="systems resume shop/coder --reason TEXT")
    await shop.bus.trips.put("pause.shop.coder", trip)
    await until(lambda: shop.bus.gate.trips)
    refused = await request(shop, "gate.check", b'{"role":"shop/coder"}')
    assert msgspec.json.decode(refused.data, type=No).refusal == trip
    assert (refused.headers or {})["Nats-Service-Error-Code"] == "503"
    assert (await request(shop, "gate.check", b'{"role":"shop/boss"}')).data == b'{"allowed":true}'
    assert "expected nothing, or JSON" in (await request(shop, "gate.check", b"{")).data.decode()


async def test_request_of_a_stopped_tree_is_refused(shop: Rig) -> None:
    """An invocation whose run tree was stopped may ask nobody, and is told how a person clears it."""
    go = asyncio.Event()

    async def wait(_input: Any) -> None:
        await go.wait()

    await shop.role("shop/boss", wait)
    await shop.runner()
    boss = await shop.ask("shop/boss")
    await shop.story.event(boss.id, "claimed")
    trip = Refusal(reason=Reason.LOOP, scope=f"tree {boss.id}", command=f"systems loop clear {boss.id} --reason TEXT")
    await shop.bus.trips.put(f"tree.{boss.id}", trip)
    await until(lambda: shop.bus.gate.trips)
    refused = msgspec.json.decode(
        (await request(shop, "requests.shop.coder", b"{}", **{PARENT: boss.id})).data, type=No
    )
    assert refused.refusal == trip
    go.set()
    await shop.story.event(boss.id, "completed")
