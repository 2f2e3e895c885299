"""The parser with sinks: what the server sends arrives whole, in order and once, however the network cuts it."""

from __future__ import annotations

from typing import Any

import nats.errors
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.driver import Driver

#: Number of the subscription that has a sink, and of one that has none.
SUNK, OTHER = 7, 8

_tokens = st.text("abcXYZ019_-$*>", min_size=1, max_size=8)
_subjects = st.lists(_tokens, min_size=1, max_size=4).map(".".join)
_payloads = st.binary(max_size=40) | st.just(b"MSG a 7 3\r\nabc\r\n") | st.just(b"x" * 70_000)
_headers = st.just(b"") | st.just(b"NATS/1.0\r\nA: b\r\n\r\n") | st.just(b"NATS/1.0 404 No Messages\r\n\r\n")
_messages = st.tuples(st.sampled_from([SUNK, OTHER]), _subjects, st.just("") | _subjects, _payloads, _headers)


def wire_form(message: tuple[int, str, str, bytes, bytes]) -> bytes:
    """A message as the server writes it."""
    sid, subject, reply, payload, headers = message
    target = " ".join(filter(None, [subject, str(sid), reply]))
    if headers:
        return b"HMSG %b %d %d\r\n%b%b\r\n" % (
            target.encode(),
            len(headers),
            len(headers) + len(payload),
            headers,
            payload,
        )
    return b"MSG %b %d\r\n%b\r\n" % (target.encode(), len(payload), payload)


class Recorder(Driver):
    """A client without a connection that notes what it is given, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.got: list[tuple[int, str, str, bytes, bytes]] = []
        self.pings = 0
        self._sinks[SUNK] = self.receive

    def receive(self, subject: str, reply: str, payload: bytes, block: bytes | None) -> None:
        """The sink."""
        self.got.append((SUNK, subject, reply, payload, block or b""))

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        self.got.append((sid, subject.decode(), reply.decode(), data, headers or b""))

    async def _process_ping(self) -> None:
        self.pings += 1


@given(messages=st.lists(_messages, max_size=12), pings=st.sets(st.integers(0, 12)), data=st.data())
async def test_parser_gives_every_message_once_however_it_is_cut(
    messages: list[tuple[int, str, str, bytes, bytes]], pings: set[int], data: Any
) -> None:
    """Messages for sinks and for others, between pings and cut anywhere, arrive whole and in the order they were sent."""
    parts = [wire_form(message) for message in messages]
    stream = b"".join((b"PING\r\n" if n in pings else b"") + part for n, part in enumerate(parts))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    client = Recorder()
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        if end > begin:
            await client._ps.parse(stream[begin:end])
    assert client.got == messages
    assert client.pings == sum(n < len(messages) for n in pings)
    sunk = [payload for sid, _, _, payload, _ in messages if sid == SUNK]
    assert client.stats["in_msgs"] == len(sunk)
    assert client.stats["in_bytes"] == sum(map(len, sunk))


async def test_parser_forgets_half_a_message_with_its_connection() -> None:
    """What a connection that broke left behind does not spoil the next one."""
    client = Recorder()
    whole = wire_form((SUNK, "s", "", b"abc", b""))
    await client._ps.parse(whole[:-3])
    client._ps.reset()
    await client._ps.parse(whole)
    assert client.got == [(SUNK, "s", "", b"abc", b"")]


@pytest.mark.parametrize("line", [b"MSG a\r\n", b"MSG a b c\r\n", b"HMSG a 7 x 3\r\n", b"HELLO\r\n", b"\r\n"])
async def test_parser_refuses_what_no_server_sends(line: bytes) -> None:
    """Rubbish from the network is a protocol error, which the driver answers with a new connection."""
    with pytest.raises(nats.errors.ProtocolError):
        await Recorder()._ps.parse(line)


async def test_parser_goes_on_after_a_sink_that_fails() -> None:
    """A sink that raises loses its own message and no other, and the reading goes on."""
    client = Recorder()

    def picky(_subject: str, _reply: str, payload: bytes, _block: bytes | None) -> None:
        if payload == b"bad":
            raise ValueError("bad")
        client.receive("s", "", payload, None)

    client._sinks[SUNK] = picky
    await client._ps.parse(b"".join(wire_form((SUNK, "s", "", p, b"")) for p in (b"1", b"bad", b"2")))
    assert [payload for _, _, _, payload, _ in client.got] == [b"1", b"2"]
