"""The commands against a running fleet: a real server, a real warden, a real runner."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import nats
import pytest
from nats.aio.client import Client

from bus import context
from bus.ids import new_id

pytestmark = pytest.mark.asyncio(loop_scope="module")

SYSTEMS = str(Path(sys.executable).parent / "systems")
#: Seconds that a command may take to end.
_INTERRUPT_S = 20.0


@asynccontextmanager
async def _client(fleet: Any) -> AsyncIterator[Client]:
    """A plain connection to the fleet's server."""
    connected = await nats.connect(context.load(fleet.home, None, None, {}).url)
    try:
        yield connected
    finally:
        await connected.close()


async def test_server_without_a_bus_says_so(bare: Any) -> None:
    """On a server that has none of the streams a command says how they are made."""
    for arguments in (["roles"], ["show", new_id()], ["dlq", "ls"], ["tail", "--since", "1m"]):
        done = await bare(*arguments)
        assert done.status == 69
        assert done.err == (
            "systems: expected a bus on this server, got: the server has none of its streams; make them with `systems apply`\n"
        )


async def test_plan_shows_what_apply_then_does(bare: Any) -> None:
    """On an empty server everything is to be made; after apply nothing differs, and CONTROL holds one event for each step."""
    file = str(bare.home.parent / "fleet.toml")
    planned = await bare("plan", "--fleet", file, "--output", "json")
    assert planned.status == 1
    assert {step["action"] for step in planned.json["steps"]} == {"create"}
    applied = await bare("apply", "--fleet", file, "--output", "json")
    assert applied.json == planned.json
    again = await bare("plan", "--fleet", file)
    assert (again.status, again.out) == (0, "no difference\n")
    names = {step["name"].replace("/", "-") for step in planned.json["steps"]}
    events = await bare(
        "tail", "ctl.topology.*.applied", "--since", "1", "--count", str(len(names)), "--output", "json"
    )
    assert {msgspec.json.decode(line)["subject"].split(".")[2] for line in events.out.splitlines()} == names


async def test_plan_shows_changed_fields_and_what_is_gone(bare: Any, tmp_path: Any) -> None:
    """A role that changed shows its fields before and after, one that is gone is a deletion, a stream's drift is an update."""
    file = tmp_path / "fleet.toml"
    text = (bare.home.parent / "fleet.toml").read_text()
    kept = text[: text.index("[projects.shop.roles.asker]")].replace("max_attempts = 2", "max_attempts = 5")
    file.write_text(kept)
    async with _client(bare) as client:
        body = {"name": "CONTROL", "subjects": ["ctl.>"], "max_msgs_per_subject": 7}
        info = msgspec.json.decode((await client.request("$JS.API.STREAM.INFO.CONTROL")).data)["config"]
        await client.request("$JS.API.STREAM.UPDATE.CONTROL", msgspec.json.encode(info | body))
        try:
            planned = await bare("plan", "--fleet", str(file))
        finally:
            await client.request("$JS.API.STREAM.UPDATE.CONTROL", msgspec.json.encode(info))
    lines = planned.out.splitlines()
    assert "- consumer INVOCATIONS/shop_asker" in lines
    assert "- registry roles.shop.asker" in lines
    assert "    ~ max_attempts 2 -> 5" in lines


@pytest.mark.slow
async def test_invoke_without_a_warden_says_who_is_missing(bare: Any) -> None:
    """When nobody takes requests nothing was asked: after some seconds the command says so, with 69."""
    done = await bare("invoke", "shop/echo", "--output", "json")
    assert (done.status, done.json["error"]["kind"]) == (69, "BusUnreachable")
    assert "expected somebody to answer on requests.shop.echo, got nobody for 5 s: the warden" in done.err


async def test_apply_does_not_thaw_a_frozen_bus(bare: Any) -> None:
    """While the kill switch is thrown INVOCATIONS is not brought back to its declared shape: refused for now, 75."""
    async with _client(bare) as client:
        info = msgspec.json.decode((await client.request("$JS.API.STREAM.INFO.INVOCATIONS")).data)["config"]
        frozen = info | {"discard": "new", "max_bytes": 1}
        await client.request("$JS.API.STREAM.UPDATE.INVOCATIONS", msgspec.json.encode(frozen))
        await client.jetstream().publish("$KV.flags.kill_switch", b"frozen")
        refused = await bare("apply")
        await client.jetstream().publish("$KV.flags.kill_switch", b"clear")
        assert refused.status == 75
        assert "kill switch" in refused.err
        asked = await bare("apply")
        assert asked.status == 1
        assert "expected a decision for a change of stream INVOCATIONS, got none" in asked.err
        decided = await bare(
            "decide", "Thaw it", "--context", "a test", "--decision", "as declared", "--consequences", "none"
        )
        assert (decided.status, decided.out) == (0, "decision 1: Thaw it\n")
        applied = await bare("apply", "--decision", "1", "--output", "json")
        fields = [change["field"] for change in applied.json["steps"][0]["changes"]]
        assert fields == ["discard", "max_bytes"]


async def test_invoke_waits_for_the_output(fleet: Any) -> None:
    """`invoke --wait` prints the output alone on stdout, and everything about it as JSON."""
    done = await fleet("invoke", "shop/echo", "--input", '{"order": 7}', "--wait")
    assert (done.status, done.out) == (0, '{"order":7}\n')
    told = (await fleet("invoke", "shop/echo", "--input", "-", "--wait", "--output", "json", stdin=b"[1, 2]")).json
    assert (told["status"], told["output"], told["role"]) == ("completed", [1, 2], "echo")
    assert told["duration_ms"] >= 0


async def test_invoke_prints_the_id(fleet: Any) -> None:
    """Without --wait the id is all that stdout holds, and `show` knows it, with the asking person's name."""
    done = await fleet("invoke", "shop/echo", "--input", "1")
    told = await fleet.ended(done.out.strip(), "completed")
    assert told["actor"] == "ann"
    assert [event["type"].rpartition(".")[2] for event in told["events"]] == ["requested", "claimed", "completed"]
    assert told["events"][1]["data"]["holder"] == told["events"][2]["data"]["holder"]
    assert told["events"][0]["specversion"] == "1.0"


async def test_invoke_with_a_key_gives_the_first(fleet: Any) -> None:
    """The same key gives the first invocation, and says so."""
    key = new_id()
    first = (await fleet("invoke", "shop/echo", "--key", key, "--output", "json")).json
    second = (await fleet("invoke", "shop/echo", "--key", key, "--wait", "--output", "json")).json
    assert (first["id"], first["deduplicated"]) == (second["id"], False)
    assert (second["deduplicated"], second["status"]) == (True, "completed")


async def test_invoke_of_a_failing_role_is_a_failure(fleet: Any) -> None:
    """Waiting for an invocation that is given up on ends with 2 and its error."""
    done = await fleet("invoke", "shop/hopeless", "--input", '"it"', "--wait", "--output", "json")
    assert done.status == 2
    assert done.json["status"] == "dead_lettered"
    assert done.json["error"]["message"] == "nobody can do it"
    assert done.json["reason"] == "permanent_error"


async def test_invoke_of_nobody_suggests_somebody(fleet: Any) -> None:
    """An unknown role is a usage error with the closest name."""
    done = await fleet("invoke", "shop/ecko", "--output", "json")
    assert (done.status, done.json["error"]["kind"]) == (64, "UnknownName")
    assert "did you mean 'shop/echo'?" in done.err


async def test_invoke_with_an_unfit_input_is_refused(fleet: Any) -> None:
    """An input that does not fit the role's schema is refused with 1."""
    done = await fleet("invoke", "shop/strict", "--input", "{}")
    assert done.status == 1
    assert "expected $ of the input to have the key 'order'" in done.err


async def test_invoke_takes_what_no_message_can_carry(fleet: Any, tmp_path: Any) -> None:
    """An input of 2 MB goes to the artifacts, and its output comes back from there."""
    file = tmp_path / "large.json"
    file.write_bytes(msgspec.json.encode("x" * 2_000_000))
    done = await fleet("invoke", "shop/echo", "--input", f"@{file}", "--wait")
    assert done.status == 0, done.err
    assert done.out.encode() == file.read_bytes() + b"\n"


async def test_invoke_gives_up_waiting(fleet: Any) -> None:
    """After --timeout the command ends with 75 while the work goes on; a running invocation can be cancelled."""
    done = await fleet("invoke", "shop/slow", "--wait", "--timeout", "0.5", "--output", "json")
    assert done.status == 75
    id_ = done.json["id"]
    cancelled = await fleet("cancel", id_, "--reason", "enough", "--output", "json")
    assert (cancelled.json["was"], cancelled.json["is"]) == ("running", "cancelled")
    last = (await fleet("show", id_, "--output", "json")).json["events"][-1]
    assert (last["actor"], last["data"]) == ("ann", {"reason": "enough"})
    again = await fleet("cancel", id_)
    assert (again.status, again.err) == (1, "systems: the invocation has ended: it is cancelled\n")


async def test_invoke_in_a_while_can_be_cancelled(fleet: Any) -> None:
    """A delayed request is scheduled on the server; cancelling it takes the schedule back."""
    id_ = (await fleet("invoke", "shop/echo", "--in", "1h")).out.strip()
    assert (await fleet("show", id_, "--output", "json")).json["status"] == "scheduled"
    async with _client(fleet) as client:
        subject = f"sched.delayed.shop.echo.{id_}"
        body = msgspec.json.encode({"last_by_subj": subject})
        before = msgspec.json.decode((await client.request("$JS.API.STREAM.MSG.GET.SCHEDULES", body)).data)
        assert "message" in before
        cancelled = await fleet("cancel", id_, "--output", "json")
        after = msgspec.json.decode((await client.request("$JS.API.STREAM.MSG.GET.SCHEDULES", body)).data)
    assert cancelled.json["was"] == "scheduled"
    assert after["error"]["err_code"] == 10037


async def test_invoke_at_a_time_runs_then(fleet: Any) -> None:
    """A request due in a moment is run when it is due."""
    done = await fleet("invoke", "shop/echo", "--in", "500ms", "--wait", "--output", "json")
    assert done.json["status"] == "completed"
    events = (await fleet("show", done.json["id"], "--output", "json")).json["events"]
    assert [event["type"].rpartition(".")[2] for event in events[:2]] == ["scheduled", "requested"]


async def test_why_draws_the_run_tree(fleet: Any) -> None:
    """From a leaf `why` goes up to the person, and down to everything that came of it."""
    top = (await fleet("invoke", "shop/parent", "--wait", "--output", "json")).json["id"]
    down = (await fleet("why", top, "--output", "json")).json
    leaves = [child["id"] for child in down["tree"]["children"]]
    assert len(leaves) == 2
    up = await fleet("why", leaves[0], "--output", "json")
    assert [link["ref"][2] for link in up.json["chain"]] == [leaves[0], top]
    assert (up.json["chain"][0]["by_event"], up.json["chain"][1]["actor"]) == ("claimed", "ann")
    text = (await fleet("why", leaves[1])).out
    assert "asked for by ann" in text
    assert f"└─ shop/echo {leaves[1]}" in text or f"├─ shop/echo {leaves[1]}" in text
    assert text.count("<- this one") == 1


async def test_child_process_asks_for_its_invocation(fleet: Any) -> None:
    """`systems invoke` inside an exec handler makes a child of the running invocation, in the name of its role."""
    top = (await fleet("invoke", "shop/asker", "--wait", "--output", "json")).json
    assert top["status"] == "completed", top
    (child,) = (await fleet("why", top["id"], "--output", "json")).json["tree"]["children"]
    told = await fleet.ended(child["id"], "completed")
    assert (told["parent"], told["root"], told["depth"], told["actor"]) == (top["id"], top["id"], 1, "shop/asker")


async def test_child_that_outlived_its_parent_is_refused(fleet: Any) -> None:
    """A request in the name of an invocation that does not run is refused."""
    done = await fleet("invoke", "shop/echo", env={"SYSTEMS_PARENT": new_id()})
    assert done.status == 1
    assert "expected Systems-Parent to name a running invocation" in done.err


async def test_show_tells_each_attempt(fleet: Any) -> None:
    """The timeline has a line for each event, with the errors; an id that nothing has is a usage error."""
    id_ = (await fleet("invoke", "shop/broken", "--wait", "--output", "json")).json["id"]
    text = (await fleet("show", id_)).out
    assert text.count("RuntimeError: the oven is cold") == 3  # in the head, and for each of two attempts
    assert "attempts spent after 2 errors and 0 crashes" in text
    unknown = await fleet("show", new_id())
    assert unknown.status == 64
    assert "unknown invocation" in unknown.err


async def test_tail_shows_events_as_they_happen(fleet: Any) -> None:
    """`tail` follows a subject, ends after --count, and --since begins in the past."""
    process = await fleet.start("tail", "inv.shop.echo.*.completed", "--count", "1", "--output", "json")
    reading = asyncio.create_task(process.stdout.readline())
    async with asyncio.timeout(30):
        while not reading.done():  # it is not known when the tail listens
            await fleet("invoke", "shop/echo", "--wait")
        line = await reading
        await process.communicate()
    event = msgspec.json.decode(line)
    assert event["type"] == "systems.invocation.completed"
    past = await fleet("tail", "inv.shop.echo.*.completed", "--since", str(event["seq"]), "--count", "1")
    assert event["subject"].split(".")[3] in past.out
    recent = await fleet("tail", "--since", "1h", "--count", "3", "--output", "json")
    times = [msgspec.json.decode(line)["time"] for line in recent.out.splitlines()]
    assert len(times) == 3
    assert times == sorted(times)


async def test_tail_shows_rubbish_as_rubbish(fleet: Any) -> None:
    """What is no event is shown as what it is, and the tail goes on."""
    subject = f"inv.shop.echo.{new_id()}.completed"
    async with _client(fleet) as client:
        ack = await client.jetstream().publish(subject, b"\xff rubbish")
    done = await fleet("tail", subject, "--since", str(ack.seq), "-n", "1")
    assert "no event of ours" in done.out


async def test_interrupt_ends_a_tail_quietly(fleet: Any) -> None:
    """Ctrl-C ends a command with 130 and says nothing."""
    process = await fleet.start("tail", "--since", "1h")
    await asyncio.wait_for(process.stdout.readline(), _INTERRUPT_S)
    process.send_signal(signal.SIGINT)
    _, err = await asyncio.wait_for(process.communicate(), _INTERRUPT_S)
    assert (process.returncode, err) == (130, b"")


async def test_roles_show_who_works(fleet: Any) -> None:
    """`roles` lists handler, limits and the consumer's facts; one role shows all of it."""
    listed = {view["role"]: view for view in (await fleet("roles", "--output", "json")).json["roles"]}
    assert listed["shop/asker"]["handler"] == "exec"
    assert listed["shop/broken"]["max_attempts"] == 2
    assert listed["shop/echo"]["work"]["waiting_pulls"] > 0
    one = await fleet("roles", "shop/strict", "--output", "json")
    assert one.json["registered"]["input_schema"]["required"] == ["order"]
    missing = await fleet("roles", "shop/asked")
    assert missing.status == 64
    assert "did you mean 'shop/asker'?" in missing.err


async def test_dlq_redrives_by_id(fleet: Any) -> None:
    """A redrive appends first, with who and why, and the invocation runs again with fresh attempts."""
    id_ = (await fleet("invoke", "shop/broken", "--wait", "--output", "json")).json["id"]
    await _kept(fleet, id_)
    whole = (await fleet("dlq", "show", id_, "--output", "json")).json
    assert [attempt["outcome"] for attempt in whole["attempts"]] == ["failed", "failed"]
    assert "the oven is cold" in (await fleet("dlq", "show", id_)).out
    done = await fleet("dlq", "redrive", id_, "--reason", "oven repaired", "--output", "json")
    assert (done.status, done.json["counts"]["redriven"]) == (0, 1)
    told = await fleet.ended(id_, "dead_lettered")
    redriven = next(event for event in told["events"] if event["type"].endswith("redriven"))
    assert (redriven["actor"], redriven["data"]["reason"]) == ("ann", "oven repaired")
    assert told["redrives"] == 1
    again = await _kept(fleet, id_, redrives=1)
    assert again["attempts"] == 4
    cancelled = await fleet("cancel", id_, "--output", "json")
    assert cancelled.json["was"] == "dead_lettered"
    assert (await fleet("dlq", "show", id_)).status == 64


async def test_dlq_discards_by_filter(fleet: Any) -> None:
    """A filter is counted first and needs --yes; a rate slows it down, Ctrl-C stops it with a count, doing it again goes on."""
    ids = [
        (await fleet("invoke", "shop/hopeless", "--input", f'"{n}"', "--wait", "--output", "json")).json["id"]
        for n in range(3)
    ]
    for id_ in ids:
        await _kept(fleet, id_)
    count = (await fleet("dlq", "ls", "--role", "shop/hopeless", "--output", "json")).json["count"]
    chosen = ("--role", "shop/hopeless", "--reason", "gone")
    asked = await fleet("dlq", "discard", *chosen)
    assert asked.status == 64
    assert f"{count} dead letters to discard" in asked.err
    assert "expected --yes, because nobody is there to ask" in asked.err
    process = await fleet.start("dlq", "discard", *chosen, "--yes", "--rate", "1/h", "--output", "json")
    await _gone(fleet, count - 1)
    process.send_signal(signal.SIGINT)
    out, _ = await asyncio.wait_for(process.communicate(), _INTERRUPT_S)
    stopped = msgspec.json.decode(out)
    assert (process.returncode, stopped["done"], stopped["interrupted"]) == (130, 1, True)
    rest = await fleet("dlq", "discard", *chosen, "--yes", "--output", "json")
    assert (rest.status, rest.json["counts"]["discarded"]) == (0, count - 1)
    assert (await fleet("show", ids[0], "--output", "json")).json["status"] == "discarded"


async def test_dlq_asks_at_a_terminal(fleet: Any) -> None:
    """At a terminal the filter's count is followed by a question, and anything but yes does nothing."""
    id_ = (await fleet("invoke", "shop/hopeless", "--wait", "--output", "json")).json["id"]
    fingerprint = (await _kept(fleet, id_))["fingerprint"]
    for answer, status in ((b"no\n", 64), (b"yes\n", 0)):
        leader, follower = pty.openpty()
        try:
            process = await asyncio.create_subprocess_exec(
                SYSTEMS, "dlq", "discard", "--fingerprint", fingerprint, "--role", "shop/*", "--reason", "gone",
                stdin=follower, stderr=follower, stdout=asyncio.subprocess.PIPE, env=fleet.environment,
            )  # fmt: skip
            os.write(leader, answer)
            await asyncio.wait_for(process.communicate(), _INTERRUPT_S)
            shown = os.read(leader, 65_536).decode()
        finally:
            os.close(leader)
            os.close(follower)
        assert process.returncode == status
        assert "type yes to discard them:" in shown


async def test_env_serves_the_plain_tools(fleet: Any, nats_cli: str) -> None:
    """After `eval "$(systems env)"` the real nats command works on the fleet."""
    script = (
        'eval "$(systems env)"; test -n "$SYSTEMS_DUCKDB" -a "$SYSTEMS_HOME" && '
        f"{nats_cli} stream ls -n && {nats_cli} micro ls && {nats_cli} req requests.shop.echo 5 --raw"
    )
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", script, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE, env=fleet.environment | {"HOME": str(fleet.home)},
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), _INTERRUPT_S)
    text = out.decode()
    assert process.returncode == 0, err
    assert "INVOCATIONS" in text
    assert "requests" in text
    assert '"project":"shop"' in text


async def _kept(fleet: Any, id_: str, *, redrives: int = 0) -> Any:
    """The list's line of a dead letter, once the warden has copied it."""
    async with asyncio.timeout(30):
        while True:
            letters = (await fleet("dlq", "ls", "--output", "json")).json["dead_letters"]
            for letter in letters:
                if letter["id"] == id_ and letter["redrives"] == redrives:
                    return letter


async def _gone(fleet: Any, left: int) -> None:
    async with asyncio.timeout(30):
        while (await fleet("dlq", "ls", "--role", "shop/hopeless", "--output", "json")).json["count"] > left:
            pass
