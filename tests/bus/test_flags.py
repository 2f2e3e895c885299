"""The kill switch's flags: whoever wanted to stop something has stopped it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus import flags
from bus.bucket import Bucket
from bus.connection import Connection
from bus.flags import KILL_SWITCH, KILL_SWITCH_HARD, KillSwitch, Mode
from bus.publisher import Publisher
from bus.store import Store


@pytest.mark.parametrize(
    "value",
    [
        b"", b"  ", b"clear", b"CLEAR\n", b" off ", b"false", b"False", b"no", b"0", b"thaw", b"thawed", b"null",
        b'"clear"', b'"off"', b'{"mode": "clear"}', b'{"mode": " Off "}', b'{"mode": false}', b'{"mode": 0}',
    ],
)  # fmt: skip
def test_flag_words_for_clear(value: bytes) -> None:
    """These words, as they are or as JSON, mean that nothing is stopped."""
    assert not flags.is_set(value)


@pytest.mark.parametrize(
    "value",
    [
        b"frozen", b"true", b"True", b"1", b"on", b"freeze", b"stop!", b"clera", b"clear now", b"{}", b"[]", b'{"mode"',
        b'{"mode": "frozen"}', b'{"mode": true}', b'{"mode": null}', b'{"reason": "clear"}', b"2", b"-1", b'""x',
        b"\xff\xfe", b"[" * 50_000,
    ],
)  # fmt: skip
def test_flag_everything_else_is_frozen(value: bytes) -> None:
    """A value that is not understood stops: its writer wanted to stop something."""
    assert flags.is_set(value)


@given(st.binary(max_size=40))
def test_flag_any_bytes_are_read(value: bytes) -> None:
    """No value raises."""
    assert isinstance(flags.is_set(value), bool)


async def test_kill_switch_reads_both_flags(connection: Connection, publisher: Publisher, store: Store) -> None:
    """Nothing put is clear, either flag freezes, hard wins, and what was put is quoted with its time."""
    bucket = Bucket("flags", connection, publisher, store)
    assert await flags.kill_switch(bucket) == KillSwitch()
    await bucket.put(KILL_SWITCH, b"frozen by ann")
    soft = await flags.kill_switch(bucket)
    assert (soft.mode, soft.text) == (Mode.SOFT, "frozen by ann")
    assert soft.since is not None
    await bucket.put(KILL_SWITCH_HARD, b"1")
    assert (await flags.kill_switch(bucket)).mode is Mode.HARD
    await bucket.put(KILL_SWITCH_HARD, b"off")
    assert (await flags.kill_switch(bucket)).mode is Mode.SOFT
    await bucket.put(KILL_SWITCH, b'{"mode": "clear"}')
    assert (await flags.kill_switch(bucket)).mode is Mode.CLEAR
