"""What is read of the machine and the server: memory, clocks, copies, and the certificate that a real server shows."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bus.connection import Connection, connect
from bus.server import EmbeddedServer, Options
from services.monitor import machine

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Trusting:
    """A login at one address that trusts one certificate."""

    def __init__(self, url: str, certificate: Path) -> None:
        self.url = url
        self.servers = [url]
        self._certificate = certificate

    def connect_options(self) -> dict[str, Any]:
        """TLS with that certificate."""
        return {"tls": ssl.create_default_context(cafile=str(self._certificate)), "tls_hostname": "localhost"}


@pytest.mark.skipif(shutil.which("openssl") is None, reason="the openssl command is not there")
async def test_certificate_ends_when_the_server_says_so(tmp_path: Path) -> None:
    """Over TLS the end of the server's certificate is known; without TLS there is none."""
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    making = await asyncio.create_subprocess_exec(
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "9", "-subj", "/CN=localhost"),
        *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)),
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert await making.wait() == 0
    plain = Options(store_dir=tmp_path / "plain")
    async with EmbeddedServer(plain) as server:
        connection = await _connect(server.url)
        assert connection.certificate_ends is None
        await connection.close()
    guarded = Options(
        store_dir=tmp_path / "tls",
        config={"tls": {"cert_file": str(certificate), "key_file": str(key)}},
    )
    async with EmbeddedServer(guarded) as server:
        address = server.url.replace("nats://", "tls://").replace("127.0.0.1", "localhost")
        connection = await connect(Trusting(address, certificate), "test")
        ends = connection.certificate_ends
        await connection.close()
    assert ends is not None
    assert timedelta(days=8) < ends - datetime.now(UTC) <= timedelta(days=9)


async def _connect(url: str) -> Connection:
    from bus.context import Context  # noqa: PLC0415 (one line of one test)

    return await connect(Context(url=url), "test")


@pytest.mark.parametrize(("there_s", "skew"), [(0.0, 0.0), (0.1, 0.0), (0.2, 0.0), (3.2, 3.0), (-3.0, -3.0)])
def test_skew_is_what_the_requests_own_time_cannot_explain(there_s: float, skew: float) -> None:
    """A server's time within the request's own is no skew; outside of it, the distance to its nearer end is."""
    there = (NOW + timedelta(seconds=there_s)).isoformat()
    found = machine._skew(NOW, there, NOW + timedelta(seconds=0.2))
    assert found == pytest.approx(skew)


def test_copies_that_are_away_are_named() -> None:
    """A replica that is offline, not current or far behind counts as away; one that keeps up does not."""
    replicas = [
        {"name": "n1", "current": True},
        {"name": "n2", "current": True, "offline": True},
        {"name": "n3", "current": False},
        {"name": "n4", "current": True, "lag": 20_000},
    ]
    info = {
        "config": {"name": "CONTROL"},
        "state": {"last_seq": 1, "messages": 1, "bytes": 1},
        "cluster": {"replicas": replicas},
    }
    assert machine._stream(info).away == ("n2", "n3", "n4")


def test_memory_is_read_where_the_system_says_it(tmp_path: Path) -> None:
    """The part of the memory that is free for use is told; a system without that file has none to tell."""
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       1000 kB\nMemFree:  1 kB\nMemAvailable:    250 kB\n")
    assert machine._memory_left(meminfo) == 0.25
    assert machine._memory_left(tmp_path / "absent") is None
