"""The ladder that tests climb: store_dir → server → client → js. Always real processes on free ports of 127.0.0.1."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import nats
import pytest
from hypothesis import settings
from nats.aio.client import Client
from nats.js import JetStreamContext

from bus.server import EmbeddedServer, Options

# A shell that starts the suite in the background has its processes ignore Ctrl-C, which the tests' own would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# An example's deadline is a timed assertion, which a loaded machine fails. All else is as it was, also what CI adds.
settings.register_profile("untimed", settings.default, deadline=None)
settings.load_profile("untimed")


@pytest.fixture
def store_dir(tmp_path: Path) -> Path:
    """Where a server keeps its store."""
    return tmp_path / "store"


@pytest.fixture
async def server(store_dir: Path) -> AsyncIterator[EmbeddedServer]:
    """A running server, stopped afterwards."""
    async with EmbeddedServer(Options(store_dir=store_dir)) as running:
        yield running


@pytest.fixture
async def client(server: EmbeddedServer) -> AsyncIterator[Client]:
    """A plain connection to the server."""
    connected = await nats.connect(server.url)
    yield connected
    await connected.close()


@pytest.fixture
def js(client: Client) -> JetStreamContext:
    """The driver's JetStream on that connection."""
    return client.jetstream()


@pytest.fixture(scope="session")
def nats_cli() -> str:
    """Path of the real nats command; without it the test is skipped."""
    candidates = [
        os.environ.get("NATS_CLI"),
        shutil.which("nats"),
        str(Path.home() / "go/bin/nats"),
        str(Path(__file__).parent.parent / ".tools/bin/nats"),
    ]
    for candidate in filter(None, candidates):
        if os.access(candidate, os.X_OK):
            return candidate
    pytest.skip(
        "the nats command is not there: go install github.com/nats-io/natscli/nats@latest, or set NATS_CLI to its path"
    )
