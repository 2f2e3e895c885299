"""What the tests of the bus stand on: a real server, a connection, a publisher, a store, and the declared topology."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any, get_type_hints

import msgspec
import pytest
from hypothesis import strategies as st

from bus import events, plan
from bus.author import Author
from bus.connection import Connection, connect
from bus.publisher import Publisher
from bus.server import EmbeddedServer
from bus.store import Store
from bus.topology import Topology, streams

#: Seconds after which a test that waits for an event fails.
LIMIT_S = 30.0


class Address(msgspec.Struct, frozen=True):
    """A server without a login."""

    url: str

    @property
    def servers(self) -> list[str]:
        """The one server."""
        return [self.url]

    def connect_options(self) -> dict[str, Any]:
        """Nothing: the embedded server of a test takes everybody."""
        return {}


def _any_events() -> None:
    """Teach hypothesis what an event may hold, so that ``st.from_type`` makes any of the catalogue."""
    integers = st.integers(-(2**63), 2**63 - 1)
    values = st.recursive(
        st.none() | st.booleans() | integers | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=10),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=6,
    )
    st.register_type_strategy(int, integers)
    st.register_type_strategy(float, st.floats(allow_nan=False, allow_infinity=False))
    st.register_type_strategy(datetime, st.datetimes(timezones=st.just(UTC)))
    st.register_type_strategy(msgspec.Raw, values.map(lambda value: msgspec.Raw(msgspec.json.encode(value))))
    modules = [getattr(events, noun) for noun in events.NOUNS]
    for struct in {v for module in modules for v in vars(module).values() if isinstance(v, type)}:
        if issubclass(struct, msgspec.Struct):
            fields = {name: st.from_type(hint) for name, hint in get_type_hints(struct).items()}
            st.register_type_strategy(struct, st.builds(struct, **fields))


_any_events()


@pytest.fixture
async def connection(server: EmbeddedServer) -> AsyncIterator[Connection]:
    """A connection of ours to the server."""
    connected = await connect(Address(server.url), "test")
    yield connected
    await connected.close()


@pytest.fixture
async def topology(connection: Connection) -> Topology:
    """All streams and buckets, made on the server."""
    declared = Topology(streams=streams())
    await plan.apply(connection, declared, await plan.plan(connection, declared))
    return declared


@pytest.fixture
async def publisher(connection: Connection) -> AsyncIterator[Publisher]:
    """An open publisher."""
    opened = Publisher(connection)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def store(connection: Connection, publisher: Publisher, topology: Topology) -> Store:
    """The log, with its streams in place."""
    return Store(connection, publisher)


@pytest.fixture
def author() -> Author:
    """A pen for events."""
    return Author("/test/boot", actor="tester")


@pytest.fixture
def until() -> Callable[..., Any]:
    """Wait until a condition holds that no event announces: the test fails after :data:`LIMIT_S`."""

    async def wait(condition: Callable[[], object]) -> None:
        async with asyncio.timeout(LIMIT_S):
            while not condition():
                await asyncio.sleep(0.005)

    return wait
