"""What the kill switch's flags mean."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus import flags
from bus.bucket import Bucket, Entry
from bus.connection import Connection
from bus.flags import REAL, KillSwitch, Mode
from bus.publisher import Publisher
from bus.store import Store

T0 = datetime(2026, 1, 31, 12, tzinfo=UTC)


def entry(key: str, value: bytes, revision: int, *, gone: bool = False) -> Entry:
    """A value of a flag."""
    return Entry(key=key, value=value, revision=revision, created=T0 + timedelta(seconds=revision), gone=gone)


@pytest.mark.parametrize(
    "value", ["clear", "CLEAR", " clear\n", "off", "false", "0", '"clear"', '{"mode":"clear"}', "thaw"]
)
def test_words_for_clear_are_clear(value: str) -> None:
    """Every usual word for clear, plain or as JSON, clears without a problem."""
    flag = flags.parse(value.encode())
    assert not flag.frozen
    assert not flag.problem


@pytest.mark.parametrize(
    "value", ["frozen", "FREEZE", "true", "1", "on", "hard", '"frozen"', '{"mode":"frozen"}', '{"reason":"x"}', "{}"]
)
def test_words_for_frozen_are_frozen(value: str) -> None:
    """Every usual word for frozen, plain or as JSON, freezes without a problem."""
    flag = flags.parse(value.encode())
    assert flag.frozen
    assert not flag.problem


@pytest.mark.parametrize(
    "value",
    [
        b"frozne",
        b"\xff\xfe",
        b"[1,2]",
        b'{"mode":"maybe"}',
        b'{"mode":',
        b'{"until":"tomorrow"}',
        b"",
        b" ",
        b"null",
        b'{"mode":""}',
    ],
)
def test_what_is_not_understood_freezes_and_says_so(value: bytes) -> None:
    """Rubbish in a flag stops the fleet, and names what was expected and what came."""
    flag = flags.parse(value)
    assert flag.frozen
    assert "expected" in flag.problem


@given(st.binary(max_size=300))
def test_no_value_breaks_the_reader(value: bytes) -> None:
    """Any bytes are a flag; only words for clear let writes through."""
    flag = flags.parse(value)
    assert flag.frozen or not flag.problem


def test_a_put_value_is_read_back() -> None:
    """What a command puts is what every client reads."""
    until = T0 + timedelta(minutes=30)
    assert flags.parse(flags.frozen(reason="leak", by="ann", until=until)) == flags.Flag(
        frozen=True, reason="leak", by="ann", until=until
    )
    assert flags.parse(flags.clear(reason="done", by="ann", ramp=5)) == flags.Flag(
        frozen=False, reason="done", by="ann", ramp=5
    )


def test_hard_wins_over_soft() -> None:
    """With both flags thrown the mode is hard, and clearing the soft one changes nothing."""
    entries = [entry("kill_switch", b"frozen", 1), entry("kill_switch_hard", b"frozen", 2)]
    assert flags.evolve(KillSwitch(), REAL, entries).mode is Mode.HARD
    assert flags.evolve(KillSwitch(), REAL, [*entries, entry("kill_switch", b"clear", 3)]).mode is Mode.HARD
    both = [*entries, entry("kill_switch", b"clear", 3), entry("kill_switch_hard", b"clear", 4)]
    assert flags.evolve(KillSwitch(), REAL, both).mode is Mode.CLEAR


def test_a_freeze_keeps_its_id_while_it_stands() -> None:
    """A freeze that is put again, or made hard, is the same freeze; one after a thaw is another."""
    first = [entry("kill_switch", b"frozen", 1), entry("kill_switch", b'{"mode":"frozen","reason":"x"}', 2)]
    assert flags.evolve(KillSwitch(), REAL, first).id == "r1"
    assert flags.evolve(KillSwitch(), REAL, [*first, entry("kill_switch_hard", b"frozen", 3)]).id == "r1"
    again = [*first, entry("kill_switch", b"clear", 4), entry("kill_switch", b"frozen", 5)]
    assert flags.evolve(KillSwitch(), REAL, again).id == "r5"


def test_a_deleted_flag_keeps_its_mode_and_is_reported() -> None:
    """Deleting a flag neither freezes nor thaws; it leaves the last mode and a problem."""
    frozen = [entry("kill_switch", b"frozen", 1), entry("kill_switch", b"", 2, gone=True)]
    state = flags.evolve(KillSwitch(), REAL, frozen)
    assert (state.mode, state.id) == (Mode.SOFT, "r1")
    assert "deleted" in state.problem
    clear = [entry("kill_switch", b"clear", 1), entry("kill_switch", b"", 2, gone=True)]
    assert flags.evolve(KillSwitch(), REAL, clear).mode is Mode.CLEAR


def test_a_purged_flag_keeps_what_was_known() -> None:
    """A purge takes the history away, and the mode that was known before stands."""
    known = KillSwitch(mode=Mode.SOFT, id="r1")
    state = flags.evolve(known, REAL, [entry("kill_switch", b"", 2, gone=True)])
    assert (state.mode, state.id) == (Mode.SOFT, "r1")
    assert state.problem


def test_a_purged_flag_stays_frozen_beside_another_that_is_clear() -> None:
    """Purging a thrown flag does not thaw it, however old or new the other flag's clear is."""
    known = KillSwitch(mode=Mode.SOFT, id="r2")
    purged = entry("kill_switch", b"", 3, gone=True)
    for revision in (1, 4):
        state = flags.evolve(known, REAL, [entry("kill_switch_hard", b"clear", revision), purged])
        assert (state.mode, state.id) == (Mode.SOFT, "r2")
    assert flags.evolve(known, REAL, [purged, entry("kill_switch", b"clear", 5)]).mode is Mode.CLEAR


def test_a_deleted_flag_of_a_clear_switch_stays_clear_after_a_thaw() -> None:
    """What a flag said last counts, not what it once said."""
    values = [
        entry("kill_switch", b"frozen", 1),
        entry("kill_switch", b"clear", 2),
        entry("kill_switch", b"", 3, gone=True),
    ]
    state = flags.evolve(KillSwitch(mode=Mode.SOFT, id="r1"), REAL, values)
    assert (state.mode, bool(state.problem)) == (Mode.CLEAR, True)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["kill_switch", "kill_switch_hard"]), st.sampled_from([b"frozen", b"clear", b"?", None])
        )
    )
)
def test_a_mark_never_changes_the_mode(values: list[tuple[str, bytes | None]]) -> None:
    """With the history kept, deletions make no difference to mode and id."""
    entries = [entry(key, value or b"", place + 1, gone=value is None) for place, (key, value) in enumerate(values)]
    said = [item for item in entries if not item.gone]
    state, without = (flags.evolve(KillSwitch(), REAL, each) for each in (entries, said))
    assert (state.mode, state.id) == (without.mode, without.id)


async def test_flags_are_read_from_the_bucket(connection: Connection, publisher: Publisher, store: Store) -> None:
    """The switch is what lies in the bucket, with who put it and why."""
    bucket = Bucket("flags", connection, publisher, store)
    assert await flags.kill_switch(bucket) == KillSwitch()
    revision = await bucket.put("kill_switch", flags.frozen(reason="leak", by="ann"))
    found = await flags.kill_switch(bucket)
    assert (found.mode, found.reason, found.by, found.id) == (Mode.SOFT, "leak", "ann", f"r{revision}")
    await bucket.delete("kill_switch")
    assert (await flags.kill_switch(bucket)).mode is Mode.SOFT
