"""Stores of copies: one contract, kept by a folder and by a real S3 server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from projections import fold
from projections.archive import files, manifest, segment
from projections.archive import store as stores
from projections.archive.manifest import Segment
from projections.archive.store import Access, Store

#: Seconds until the S3 server answers, at most.
LIMIT_S = 60.0
_ENVIRON = {"HISTORY_KEY": "archivist", "HISTORY_SECRET": "written-once"}


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on, and so are the ones 10,000 above, which the server takes for itself."""
    found: list[int] = []
    while len(found) < count:
        with socket.socket() as probe, socket.socket() as above:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
            try:
                above.bind(("127.0.0.1", port + 10_000))
            except (OSError, OverflowError):
                continue
            if port not in found:
                found.append(port)
    return found


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A SeaweedFS server with one login and one bucket, `history`: its endpoint."""
    folder = tmp_path_factory.mktemp("weed")
    master, volume, filer, port = free_ports(4)
    login = {"accessKey": _ENVIRON["HISTORY_KEY"], "secretKey": _ENVIRON["HISTORY_SECRET"]}
    identity = {"name": "archivist", "credentials": [login], "actions": ["Admin", "Read", "Write", "List"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    command = [
        str(Path(sys.executable).with_name("weed")),
        "server",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-master.port={master}",
        f"-volume.port={volume}",
        "-volume.max=8",
        "-master.volumeSizeLimitMB=64",
        f"-filer.port={filer}",
        "-s3",
        f"-s3.port={port}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        f"-s3.config={folder}/s3.json",
        "-s3.iam=false",
        "-master.telemetry=false",
        "-debug=false",
    ]
    with (folder / "weed.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True)
    try:
        asyncio.run(_ready(f"http://127.0.0.1:{port}", process, folder / "weed.log"))
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


async def _ready(endpoint: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until an object can be put: S3 answers before its volumes do."""
    target = stores.open_store(access(endpoint), _ENVIRON)
    async with asyncio.timeout(LIMIT_S):
        while True:
            assert process.poll() is None, log.read_text()[-2000:]
            try:
                await asyncio.to_thread(target.put_bytes, "ready", b"yes")
            except stores.StoreAway:
                await asyncio.sleep(0.2)
            else:
                return


def access(endpoint: str, prefix: str = "") -> Access:
    """How the server is reached."""
    url = f"s3://history/{prefix}" if prefix else "s3://history"
    return Access(url=url, endpoint=endpoint, key_env="HISTORY_KEY", secret_env="HISTORY_SECRET")


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each kind."""
    if request.param == "folder":
        return stores.open_store(Access(url=f"file://{tmp_path}/copies"))
    endpoint = request.getfixturevalue("s3")
    return stores.open_store(access(endpoint, f"fleet/{tmp_path.name}"), _ENVIRON)


@pytest.fixture
def local(tmp_path: Path) -> tuple[Path, Segment]:
    """An archive of one file."""
    root = tmp_path / "archive"
    with duckdb.connect() as connection:
        fold.create(connection)
        connection.execute(
            "INSERT INTO hot.log BY NAME SELECT 'INVOCATIONS' AS stream, range::UBIGINT AS seq, "
            "TIMESTAMP '2026-11-25 10:00:00' AS stored_at, 'inv.a.b.c.d' AS subject, 'x'::BLOB AS raw FROM range(1, 2000)"
        )
        one = segment.write(connection, root, stream="INVOCATIONS", created="2026-11-25T09:00:00Z", first=1, last=1999)
    return root, one


@pytest.mark.slow
def test_what_is_put_comes_back(store: Store, tmp_path: Path) -> None:
    """Bytes come back as they were put, are listed under their names, and have the checksum of the file."""
    file = tmp_path / "some"
    file.write_bytes(os.urandom(3_000_000))
    store.put("a/day=1/x.parquet", file)
    store.put_bytes("a/day=1/x.json", b"{}")
    assert store.read("a/day=1/x.json") == b"{}"
    assert store.sha256("a/day=1/x.parquet") == files.sha256(file)
    assert sorted(store.keys("a")) == ["a/day=1/x.json", "a/day=1/x.parquet"]
    assert store.fetch("a/day=1/x.parquet", tmp_path / "back" / "x")
    assert (tmp_path / "back" / "x").read_bytes() == file.read_bytes()


@pytest.mark.slow
def test_what_is_not_there_is_nothing_and_no_error(store: Store, tmp_path: Path) -> None:
    """A name without an object reads as None, has no checksum, and leaves no file behind."""
    assert store.read("none") is None
    assert store.sha256("none") is None
    assert not store.fetch("none", tmp_path / "none")
    assert list(tmp_path.glob("none*")) == []


@pytest.mark.slow
def test_copy_counts_when_it_was_read_back(store: Store, local: tuple[Path, Segment]) -> None:
    """A kept segment is proven by its bytes; keeping it again changes nothing; half of one is finished."""
    root, one = local
    store.put_bytes(one.key, b"half of it")
    assert stores.look(store, one) is not None
    assert stores.keep(store, root, one) is None
    assert stores.prove(store, one) is None
    assert stores.keep(store, root, one) is None


@pytest.mark.slow
def test_rotten_copy_is_found_and_another_one_is_never_written_over(store: Store, local: tuple[Path, Segment]) -> None:
    """A copy whose bytes changed is named corrupt; one of other content is left alone and named."""
    root, one = local
    assert stores.keep(store, root, one) is None
    store.put_bytes(one.key, b"rotten")
    found = stores.prove(store, one)
    assert found is not None
    assert found.kind == "corrupt"
    assert store.url in found.sentence
    store.put_bytes(one.sidecar, manifest.encode(one).replace(one.sha256.encode(), b"0" * 64))
    other = stores.keep(store, root, one)
    assert other is not None
    assert other.kind == "unlike"
    assert store.read(one.key) == b"rotten"


@pytest.mark.slow
def test_wrong_login_and_nobody_there_are_one_sentence(s3: str) -> None:
    """A refused login, and an address where nobody listens, are errors that name the store and say what happens now."""
    with pytest.raises(stores.StoreAway, match=r"s3://history .*403.*nothing is trimmed"):
        stores.open_store(access(s3), {"HISTORY_KEY": "archivist", "HISTORY_SECRET": "wrong"}).read("x")
    with pytest.raises(stores.StoreAway, match="s3://history"):
        stores.open_store(access("http://127.0.0.1:9"), _ENVIRON).put_bytes("x", b"")


@pytest.mark.parametrize(
    ("url", "environ"),
    [("ftp://x/y", {}), ("s3:///x", {}), ("file://host/x", {}), ("s3://history", {"AWS_ACCESS_KEY_ID": "half"})],
)
def test_impossible_store_is_refused_with_what_was_expected(url: str, environ: dict[str, str]) -> None:
    """A URL of no store, and half a login, are refused before anything is asked."""
    with pytest.raises(stores.BadStore, match="expected"):
        stores.open_store(Access(url=url), environ)
