"""Messages into rows: every event as `bus.store.read` has it, everything else with the reason why not."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from bus import envelope as ce
from bus import errors, events, store, upcasters
from bus.author import Author
from bus.events import invocation as ev
from bus.events import schedule
from bus.store import CONTROL, INVOCATIONS
from bus.subjects import Ref, type_of
from bus.topology import ADVISORIES
from bus.wire import Delivery
from projections.decode import decode
from projections.log import LOG
from tests.projections.histories import START, Stream, guards, life, rubbish, soup

REF = Ref("shop", "coder", "a")


def message(subject: str, body: bytes, seq: int = 1) -> Delivery:
    """A message as a consumer hands it out."""
    return Delivery(subject, body, "", seq, 1, seq, 1_700_000_000_123_456_789, 0)


def row(stream: str, subject: str, body: bytes) -> dict[str, Any]:
    """One message's row."""
    found: list[dict[str, Any]] = decode(stream, [message(subject, body)]).to_pylist()
    assert len(found) == 1
    return found[0]


def test_columns_are_the_logs() -> None:
    """Whatever is decoded, and if it is nothing, has the columns of the log in their order."""
    stream = Stream(INVOCATIONS, random.Random(1))
    life(stream, 40)
    soup(stream, 40)
    assert decode(INVOCATIONS, stream.deliveries).schema == LOG
    assert decode(INVOCATIONS, []).schema == LOG


def test_what_is_an_event_the_bus_says() -> None:
    """A message is good here exactly if the daemons read it as an event, and rubbish has their reason and its bytes."""
    chance = random.Random(2)
    stream, control = Stream(INVOCATIONS, chance), Stream(CONTROL, chance)
    for _ in range(300):
        stream.put(*rubbish(chance))
    soup(stream, 300)
    guards(control, 100)
    for name, deliveries in ((INVOCATIONS, stream.deliveries), (CONTROL, control.deliveries)):
        found = {line["seq"]: line for line in decode(name, deliveries).to_pylist()}
        assert len(found) == len(deliveries)
        for delivery in deliveries:
            record = store.read(delivery.seq, delivery.subject, START, delivery.data)
            line = found[delivery.seq]
            assert line["raw"] == delivery.data
            assert line["problem"] == (record.problem or None)
            if record.event is None:
                assert (line["id"], line["noun"]) == (None, None)
            else:
                told = (record.event.id, record.event.type, record.event.time.replace(tzinfo=None))
                assert (line["id"], line["type"], line["time"]) == told
                assert f"systems.{line['noun']}.{line['event']}" == type_of(delivery.subject)


@pytest.mark.parametrize(
    ("subject", "body", "why"),
    [
        (REF.event("claimed"), b"{", "truncated"),
        (REF.event("claimed"), b'{"id":"\xff"}', "utf-8"),
        (REF.event("exploded"), b"good", "unknown event type 'systems.invocation.exploded'"),
        (REF.event("discarded"), b"good", "expected type 'systems.invocation.discarded'"),
        (Ref("shop", "coder", "b").event("claimed"), b"good", "expected an event of"),
        (REF.event("claimed"), b"fields", "missing required field `holder`"),
        (REF.event("claimed"), b"future", "of version 1 or older, got: 7"),
    ],
)
def test_reasons(subject: str, body: bytes, why: str) -> None:
    """Broken JSON, bytes that are no text, unknown types, foreign subjects, missing fields and future versions are named."""
    claimed = ev.Claimed(holder="r", runner="r", delivery=1, attempt=1, reply="x")
    good = msgspec.json.decode(ce.encode(Author("/test/boot").invocation(REF, claimed)))
    match body:
        case b"good":
            kind = "systems.invocation.exploded" if "exploded" in subject else good["type"]
            body = msgspec.json.encode(good | {"type": kind})
        case b"fields":
            body = msgspec.json.encode(good | {"data": {"runner": "r"}})
        case b"future":
            body = msgspec.json.encode(good | {"dataversion": 7})
    line = row(INVOCATIONS, subject, body)
    assert why in line["problem"].lower() or why in line["problem"]
    assert (line["raw"], line["subject"], line["seq"]) == (body, subject, 1)
    assert line["stored_at"] == datetime(2023, 11, 14, 22, 13, 20, 123456)  # noqa: DTZ001 (tables say UTC without a zone)


def test_a_bad_number_costs_one_row() -> None:
    """An event with a number that no column holds is rejected alone; its neighbours of the same type are not."""
    stream = Stream(INVOCATIONS, random.Random(3))
    for number in range(9):
        usage = ev.Usage(input_tokens=2**70 if number == 4 else number)
        stream.event(REF, ev.Completed(holder="r", delivery=1, usage=usage))
    table = decode(INVOCATIONS, stream.deliveries)
    good = sorted(line["input_tokens"] for line in table.to_pylist() if line["problem"] is None)
    assert good == [0, 1, 2, 3, 5, 6, 7, 8]
    bad = [line for line in table.to_pylist() if line["problem"] is not None]
    assert [line["raw"] for line in bad] == [stream.deliveries[4].data]


def test_old_shapes_are_lifted(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event of an older version lies in the row as today's, under the version that it was written in."""
    monkeypatch.setitem(upcasters.CURRENT, "systems.invocation.discarded", 2)
    lift = {("systems.invocation.discarded", 1): lambda data: {"reason": data["why"]}}
    for key, upcaster in lift.items():
        monkeypatch.setitem(upcasters.UPCASTERS, key, upcaster)
    good = msgspec.json.decode(ce.encode(Author("/test/boot").invocation(REF, ev.Discarded())))
    old = row(INVOCATIONS, REF.event("discarded"), msgspec.json.encode(good | {"data": {"why": "old"}}))
    new = row(
        INVOCATIONS, REF.event("discarded"), msgspec.json.encode(good | {"dataversion": 2, "data": {"reason": "new"}})
    )
    assert [(line["reason"], line["version"], line["problem"]) for line in (old, new)] == [
        ("old", 1, None),
        ("new", 2, None),
    ]


def test_every_type_of_the_catalogue() -> None:
    """Every type that the catalogue names becomes a row of its noun and event; none is forgotten here."""
    for type_ in events.CATALOGUE:
        _, noun, event = type_.split(".")
        subject = {"invocation": f"inv.shop.coder.a.{event}", "deadletter": "dlq.shop.coder.a"}.get(
            noun, f"ctl.{noun}.token.{event}"
        )
        envelope = {"specversion": "1.0", "id": "i", "source": "/s", "type": type_, "subject": subject}
        body = msgspec.json.encode(envelope | {"time": "2026-01-01T00:00:00Z", "data": _sample(type_)})
        line = row(INVOCATIONS, subject, body)
        assert (line["problem"], line["noun"], line["event"]) == (None, noun, event), type_
        assert line["key"] == ("a" if noun in ("invocation", "deadletter") else "token")


def _sample(type_: str) -> Any:
    """The least data that a type takes, found by doing what its errors ask for."""
    error = {"kind": "E", "message": "m", "fingerprint": "f"}
    least = {"str": "permanent_error", "int": 1, "float": 1.0, "object": {}, "array": [], "bool": True}
    data: dict[str, Any] = {}
    enums = {"stage": "freeze", "reason": None, "request": {}, "error": error}
    for _ in range(30):
        try:
            upcasters.read(type_, upcasters.CURRENT.get(type_, 1), msgspec.json.encode(data), "here")
        except errors.BadEvent as exc:
            why = exc.why
            if "missing required field" in why:
                name = why.split("`")[1]
                data[name] = enums.get(name) or "2026-01-01T00:00:00Z"
                continue
            path = why.rpartition("$.")[2].rstrip("`").split("[")[0]
            wanted = why.split("`")[1].split(" ")[0]
            if "Invalid enum value" in why:
                hints = {field.name: field.type for field in msgspec.structs.fields(events.CATALOGUE[type_])}
                data[path] = next(iter(hints[path])).value
            else:
                data[path] = least[wanted]
        else:
            return data
    raise AssertionError(f"no sample of {type_}: {data}")


def test_whom_control_events_concern() -> None:
    """An event on CONTROL that names a role, in one field or two, has project and role in its row."""
    stream = Stream(CONTROL, random.Random(4))
    missed = schedule.Missed(
        schedule="steady", project="shop", role="coder", due=START, reason=schedule.MissReason.OVERLAP
    )
    stream.control("shop_coder_steady", missed)
    guards(stream, 60)
    for line in decode(CONTROL, stream.deliveries).to_pylist():
        if line["noun"] == "schedule":
            assert (line["project"], line["role"], line["schedule"]) == ("shop", "coder", "steady")
            assert (line["reason"], line["due"]) == ("overlap", START.astimezone(UTC).replace(tzinfo=None))
        elif line["event"] in ("paused", "resumed"):
            assert f"{line['project']}/{line['role']}" in ("shop/coder", "ledger/clerk")


def test_advisories() -> None:
    """The server's advisories are rows of the noun advisory, with the role whose consumer they are about."""
    body = {
        "type": "io.nats.jetstream.advisory.v1.max_deliver",
        "id": "x1",
        "timestamp": "2026-01-01T00:00:00.5Z",
        "stream": INVOCATIONS,
        "consumer": "shop_coder",
        "stream_seq": 9,
        "deliveries": 7,
    }
    subject = "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.INVOCATIONS.shop_coder"
    line = row(ADVISORIES, subject, msgspec.json.encode(body))
    assert (line["noun"], line["event"], line["project"], line["role"]) == ("advisory", "max_deliver", "shop", "coder")
    assert (line["key"], line["delivery"], line["id"]) == ("INVOCATIONS.shop_coder", 7, "x1")
    assert row(ADVISORIES, subject, b"{}")["problem"].startswith("expected an advisory of the server")
    assert row(ADVISORIES, subject, msgspec.json.encode(body | {"deliveries": 2**40}))["problem"]


def test_no_deliveries_share_a_row_order_of_types() -> None:
    """Rows of one type come in the order of their sequences, so the last of a type is its newest."""
    stream = Stream(INVOCATIONS, random.Random(5))
    soup(stream, 200)
    table: pa.Table = decode(INVOCATIONS, stream.deliveries)
    newest: dict[str | None, int] = {}
    for line in table.to_pylist():
        assert line["seq"] > newest.get(line["type"], 0)
        newest[line["type"]] = line["seq"]
