"""Contexts: which server is meant, and as whom."""

from __future__ import annotations

import base64
import importlib
import importlib.util
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import nats
import pytest

from bus import context, errors
from bus.context import Context
from bus.server import EmbeddedServer, Options

CREDS = (
    "-----BEGIN NATS USER JWT-----\njwt\n------END NATS USER JWT------\n"
    "-----BEGIN USER NKEY SEED-----\nSUAseed\n------END USER NKEY SEED------\n"
)
nkeys = pytest.mark.skipif(importlib.util.find_spec("nkeys") is None, reason="the nkeys package is not installed")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A state directory in which a fleet runs at port 1."""
    (tmp_path / "home/run").mkdir(parents=True)
    (tmp_path / "home/run/server.json").write_bytes(
        msgspec.json.encode(Context(url="nats://home:1", user="h", password="p"))
    )
    return tmp_path / "home"


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment with a folder of its own for nats contexts."""
    return {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "cfg"), "PATH": os.environ["PATH"]}


def write(environ: dict[str, str], name: str, **settings: Any) -> Path:
    """A context file as the nats command writes it."""
    file = Path(environ["XDG_CONFIG_HOME"]) / "nats/context" / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"description": "", "windows_ca_certs_match": None, **settings}))
    return file


def test_context_of_the_home_is_the_last_resort(home: Path) -> None:
    """Without anything else the fleet that runs in the state directory is meant."""
    assert context.load(home, None, None, {}) == Context(url="nats://home:1", user="h", password="p")


def test_context_of_the_environment_goes_over_the_home(home: Path) -> None:
    """NATS_URL names the server and the home's login does not go with it."""
    assert context.load(home, None, None, {"NATS_URL": "nats://env:2"}) == Context(url="nats://env:2")


def test_login_of_the_environment_replaces_the_whole_login(home: Path) -> None:
    """A login is taken from one place: a token from the environment drops the user of the home."""
    assert context.load(home, None, None, {"NATS_TOKEN": "t"}) == Context(url="nats://home:1", token="t")


def test_context_of_another_fleet_in_the_environment_is_passed_over(home: Path, tmp_path: Path) -> None:
    """An environment exported for one home does not lead the command of another home astray."""
    exported = {"NATS_URL": "nats://env:2", "NATS_CONTEXT": "x", "SYSTEMS_HOME": str(tmp_path / "other")}
    assert context.load(home, None, None, exported).url == "nats://home:1"
    assert context.load(home, None, None, {"NATS_URL": "nats://env:2", "SYSTEMS_HOME": str(home)}).url == "nats://env:2"


def test_server_argument_goes_over_everything(home: Path) -> None:
    """--server wins over NATS_URL and the home, and takes the login of the environment."""
    loaded = context.load(
        home, "nats://arg:3", None, {"NATS_URL": "nats://env:2", "NATS_USER": "u", "NATS_PASSWORD": "p"}
    )
    assert loaded == Context(url="nats://arg:3", user="u", password="p")


def test_context_argument_goes_over_the_environment(home: Path, environ: dict[str, str]) -> None:
    """--context is taken as it is, but for an address given beside it."""
    write(environ, "prod", url="nats://prod:4", token="t")
    environ["NATS_URL"] = "nats://env:2"
    assert context.load(home, None, "prod", environ) == Context(url="nats://prod:4", token="t")
    assert context.load(home, "nats://arg:3", "prod", environ) == Context(url="nats://arg:3", token="t")


def test_context_of_the_variable_is_read(environ: dict[str, str]) -> None:
    """NATS_CONTEXT names a context, and NATS_URL beside it replaces its address."""
    write(environ, "prod", url="nats://prod:4", token="t")
    environ["NATS_CONTEXT"] = "prod"
    assert context.load(None, None, None, environ) == Context(url="nats://prod:4", token="t")
    assert context.load(None, None, None, environ | {"NATS_URL": "nats://env:2"}).url == "nats://env:2"


def test_context_nowhere_is_said(tmp_path: Path) -> None:
    """Without any address the error says so and how to start a fleet."""
    with pytest.raises(errors.BusUnreachable, match=r"no fleet runs in this state directory.*systems up"):
        context.load(tmp_path, None, None, {})
    with pytest.raises(errors.BusUnreachable, match="NATS_URL"):
        context.load(None, None, None, {})


def test_context_file_that_is_rubbish_is_said(home: Path) -> None:
    """A damaged server.json is one sentence with its path."""
    (home / "run/server.json").write_text("{")
    with pytest.raises(errors.HomeUnusable, match=r"run/server\.json"):
        context.load(home, None, None, {})


def test_context_unknown_is_suggested(environ: dict[str, str]) -> None:
    """A misspelt context suggests the one that was meant."""
    write(environ, "production", url="nats://prod:4")
    with pytest.raises(errors.UnknownName, match="unknown NATS context 'prodution', did you mean 'production'"):
        context.load(None, None, "prodution", environ)
    with pytest.raises(errors.UnknownName, match="selected NATS context"):
        context.load(None, None, "", environ)


def test_context_that_needs_more_than_we_can_is_refused(environ: dict[str, str]) -> None:
    """A JetStream domain is refused instead of passed over: requests would go to another account's streams."""
    file = write(environ, "leaf", url="nats://leaf:4", jetstream_domain="hub")
    with pytest.raises(errors.Conflict, match="jetstream_domain = 'hub'"):
        context.load(None, None, str(file), environ)


def test_context_of_the_nats_command_is_read(nats_cli: str, environ: dict[str, str], tmp_path: Path) -> None:
    """What ``nats context save`` wrote is read, by name and as the selected one."""
    creds = tmp_path / "op.creds"
    creds.write_text(CREDS)
    save = [nats_cli, "context", "save", "--server", "nats://a:1,nats://b:2"]
    subprocess.run([*save, "first", "--user", "u", "--password", "p", "--select"], env=environ, check=True)
    subprocess.run([*save, "second", "--creds", str(creds)], env=environ, check=True)
    subprocess.run([*save, "third", "--creds", str(creds), "--embed"], env=environ, check=True)
    first = context.load(None, None, "", environ)
    assert first == Context(url="nats://a:1,nats://b:2", user="u", password="p")
    assert first.servers == ["nats://a:1", "nats://b:2"]
    assert first.connect_options() == {"user": "u", "password": "p"}
    second, third = (context.load(None, None, name, environ) for name in ("second", "third"))
    assert second.creds == str(creds)
    assert third.creds == "data:;base64," + base64.b64encode(CREDS.encode()).decode()


async def test_login_by_password_is_accepted_by_a_server(store_dir: Path) -> None:
    """The options that a context gives log in, and exports let the nats command's variables say the same."""
    authorization = {"authorization": {"users": [{"user": "op", "password": "s3cret"}]}}
    async with EmbeddedServer(Options(store_dir=store_dir, config=authorization)) as server:
        own = Context(url=server.url, user="op", password="s3cret")
        client = await nats.connect(own.servers, **own.connect_options())
        await client.flush()
        await client.close()
        assert context.load(None, None, None, context.exports(own, None)) == own


async def test_exports_log_the_nats_command_in(nats_cli: str, environ: dict[str, str], store_dir: Path) -> None:
    """The plain nats command reaches the fleet with the exported variables alone, whatever it was told before."""
    authorization = {"authorization": {"users": [{"user": "op", "password": "s3cret"}]}}
    async with EmbeddedServer(Options(store_dir=store_dir, config=authorization)) as server:
        own = Context(url=server.url, user="op", password="s3cret")
        stale = {"NATS_URL": "nats://127.0.0.1:1", "NATS_CREDS": "/nowhere", "NATS_CONTEXT": "old"}
        done = subprocess.run(  # noqa: ASYNC221 - the server is another process
            [nats_cli, "pub", "a", "b"],
            env=environ | stale | context.exports(own, None),
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr


def test_exports_name_the_home(home: Path) -> None:
    """SYSTEMS_HOME is exported as an absolute path."""
    assert context.exports(Context(url="nats://a:1"), home)["SYSTEMS_HOME"] == str(home.resolve())


def test_context_anchored_is_readable_from_anywhere(tmp_path: Path) -> None:
    """Relative paths become absolute, other references stay as they are."""
    relative = Context(url="nats://a:1", creds="op.creds", nkey="env://SEED", ca="/etc/ca.pem", cert="file://c.pem")
    assert relative.anchored(tmp_path) == Context(
        url="nats://a:1", creds=f"{tmp_path}/op.creds", nkey="env://SEED", ca="/etc/ca.pem", cert=f"{tmp_path}/c.pem"
    )


@nkeys
def test_credentials_by_path_stay_a_path_and_embedded_ones_are_read(tmp_path: Path) -> None:
    """A path is left to the driver, so that rotated credentials are picked up; data: is decoded."""
    file = tmp_path / "a.creds"
    file.write_text(CREDS)
    assert Context(url="nats://a:1", creds=f"file://{file}").connect_options() == {"user_credentials": str(file)}
    embedded = "data:;base64," + base64.b64encode(CREDS.encode()).decode()
    assert str(Context(url="nats://a:1", creds=embedded).connect_options()["user_credentials"]) == CREDS
    assert str(Context(url="a", creds="env://C").connect_options({"C": CREDS})["user_credentials"]) == CREDS


@nkeys
async def test_login_by_nkey_is_accepted_by_a_server(store_dir: Path, tmp_path: Path) -> None:
    """A seed in a file logs in."""
    library = importlib.import_module("nkeys")

    seed = library.encode_seed(b"0123456789abcdef0123456789abcdef", library.PREFIX_BYTE_USER)
    file = tmp_path / "user.nk"
    file.write_bytes(b"# operator\n" + seed + b"\n")
    users = {"authorization": {"users": [{"nkey": library.from_seed(bytearray(seed)).public_key.decode()}]}}
    async with EmbeddedServer(Options(store_dir=store_dir, config=users)) as server:
        own = Context(url=server.url, nkey=str(file))
        client = await nats.connect(own.servers, **own.connect_options())
        await client.close()


@pytest.mark.skipif(importlib.util.find_spec("nkeys") is not None, reason="the nkeys package is installed")
def test_login_without_its_library_is_said(tmp_path: Path) -> None:
    """Where the library for keys is missing, the error says what to install."""
    with pytest.raises(errors.BusUnreachable, match="pip install nkeys"):
        Context(url="nats://a:1", nkey=str(tmp_path / "x")).connect_options()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"password": "file:///nowhere", "user": "u"}, "password cannot be used: No such file"),
        ({"token": "env://NOT_THERE"}, "'NOT_THERE' is not set"),
        ({"token": "data:;base64,?"}, "cannot be decoded"),
        ({"token": "op://vault/item"}, "op:// is not supported"),
        ({"ca": "/nowhere.pem"}, "ca /nowhere.pem cannot be used: there is no such file"),
        ({"cert": __file__}, "needs both cert and key"),
        ({"ca": __file__}, "cannot be used"),
    ],
)
def test_login_that_cannot_be_used_is_said(fields: dict[str, str], said: str) -> None:
    """A login whose parts are missing or damaged names the part and the server, never a secret."""
    with pytest.raises(errors.BusUnreachable, match="nats://a:1") as caught:
        Context(url="nats://a:1", **fields).connect_options({})  # type: ignore[arg-type]
    assert said in str(caught.value)
