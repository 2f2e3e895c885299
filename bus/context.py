"""Which server is meant, and as whom: the answer to every ``--server``, ``--context``, ``NATS_*`` and state directory.

Files are small and read at once. Secrets given as a path are read again by the driver at every reconnection, so that rotated
credentials are picked up; those given as ``data:`` or ``env://`` are read once.
Not supported, and refused instead of passed over: contexts that need a SOCKS proxy, another JetStream domain or API prefix,
1Password (``op://``) or ``nsc``.
"""

from __future__ import annotations

import base64
import importlib.util
import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from nats.aio.client import RawCredentials

from bus import errors

T = TypeVar("T")

#: Where a running fleet leaves its address, below its state directory.
SERVER_FILE = Path("run/server.json")
#: Fields that say as whom; given from one place together, never mixed.
_LOGIN = ("creds", "nkey", "user", "password", "token", "user_jwt", "user_seed")
_TLS = ("ca", "cert", "key")
#: Variable of the nats command -> field.
VARIABLES = {
    "NATS_URL": "url",
    "NATS_CREDS": "creds",
    "NATS_NKEY": "nkey",
    "NATS_USER": "user",
    "NATS_PASSWORD": "password",
    "NATS_TOKEN": "token",
    "NATS_JWT": "user_jwt",
    "NATS_SEED": "user_seed",
    "NATS_CA": "ca",
    "NATS_CERT": "cert",
    "NATS_KEY": "key",
}
#: Settings of a nats context that would change where requests go, or how.
_UNSUPPORTED = ("socks_proxy", "nsc", "jetstream_domain", "jetstream_api_prefix", "windows_cert_store")


class Context(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A server and a login, with the field names of a nats context file."""

    #: ``nats://host:port``; several are separated by commas.
    url: str
    #: A path, ``file://PATH``, ``env://NAME`` or ``data:;base64,...``.
    creds: str = ""
    nkey: str = ""
    user: str = ""
    password: str = ""
    token: str = ""
    user_jwt: str = ""
    user_seed: str = ""
    #: Paths of PEM files: the authority that the server is checked against, and the client's own certificate and key.
    ca: str = ""
    cert: str = ""
    key: str = ""
    tls_first: bool = False
    inbox_prefix: str = ""

    @property
    def servers(self) -> list[str]:
        """The servers of `url`, each with its scheme, as ``nats.connect`` takes them."""
        urls = filter(None, (url.strip() for url in self.url.split(",")))
        return [url if "://" in url else f"nats://{url}" for url in urls]

    def anchored(self, folder: Path) -> Context:
        """The same with relative paths taken from `folder`, so that it can be read from anywhere."""
        paths = {field: _path(value) for field in ("creds", "nkey", *_TLS) if (value := getattr(self, field))}
        return msgspec.structs.replace(self, **{field: str(folder / path) for field, path in paths.items() if path})

    def connect_options(self, environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
        """Keyword arguments for ``nats.connect``, but for the servers.

        Raises:
            BusUnreachable: a file of the login or of TLS cannot be used.
        """
        options: dict[str, Any] = {}
        if self.user:
            options |= {"user": self.user, "password": self._secret("password", environ)}
        elif self.creds:
            self._needs_nkeys("creds")
            options["user_credentials"] = self._credentials(environ)
        elif self.nkey:
            self._needs_nkeys("nkey")
            options["nkeys_seed_str"] = self._seed(self._secret("nkey", environ, path=True))
        elif self.user_jwt:
            self._needs_nkeys("user_jwt")
            jwt, seed = (self._secret(field, environ, path=True).strip() for field in ("user_jwt", "user_seed"))
            options["user_credentials"] = RawCredentials(
                f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n"
                f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
            )
        if self.token:
            options["token"] = self._secret("token", environ)
        if any(getattr(self, field) for field in _TLS) or any(url.startswith("tls:") for url in self.servers):
            options["tls"] = self._tls()
        if self.tls_first:
            options["tls_handshake_first"] = True
        if self.inbox_prefix:
            options["inbox_prefix"] = self.inbox_prefix
        return options

    def _credentials(self, environ: Mapping[str, str]) -> str | RawCredentials:
        text = self._secret("creds", environ, path=True)  # proves that it can be read
        if "BEGIN NATS USER JWT" not in text or "BEGIN USER NKEY SEED" not in text:
            raise self._bad("creds", "it is no credentials file (a JWT and a seed between their BEGIN lines)")
        path = _path(self.creds)
        return RawCredentials(text) if path is None else str(path)

    def _seed(self, text: str) -> str:
        for line in map(str.strip, text.splitlines()):
            if line.startswith("SU"):
                return line
        raise self._bad("nkey", "it holds no user seed (a line that begins with SU)")

    def _secret(self, field: str, environ: Mapping[str, str], *, path: bool = False) -> str:
        """The value of a field, after its scheme; a bare value is a path for some fields and itself for the others."""
        value: str = getattr(self, field)
        scheme, _, rest = value.partition(":")
        try:
            if scheme == "data" and "," in rest:
                return base64.b64decode(rest.partition(",")[2], validate=True).decode()
            if value.startswith("env://"):
                return environ[value.removeprefix("env://")]
            if value.startswith(("op://", "nsc://")):
                raise self._bad(field, f"{scheme}:// is not supported")
            file = _path(value)
            literal = not value.startswith("file://") and (not path or field.startswith("user_"))
            return value if literal or file is None else file.read_text()
        except OSError as exc:
            raise self._bad(field, exc.strerror or str(exc)) from exc
        except KeyError as exc:
            raise self._bad(field, f"the environment variable {exc} is not set") from exc
        except ValueError as exc:
            raise self._bad(field, f"it cannot be decoded ({exc})") from exc

    def _tls(self) -> ssl.SSLContext:
        for field in _TLS:
            path = getattr(self, field)
            if path and not Path(path).expanduser().is_file():
                raise self._bad(field, "there is no such file")
        if bool(self.cert) != bool(self.key):
            raise self._bad("cert" if self.cert else "key", "a client certificate needs both cert and key")
        try:
            context = ssl.create_default_context(cafile=str(Path(self.ca).expanduser()) if self.ca else None)
            if self.cert:
                context.load_cert_chain(Path(self.cert).expanduser(), Path(self.key).expanduser())
        except OSError as exc:  # ssl.SSLError is one
            raise self._bad("cert" if self.cert else "ca", str(exc)) from exc
        return context

    def _needs_nkeys(self, field: str) -> None:
        if importlib.util.find_spec("nkeys") is None:
            raise self._bad(field, "it takes the nkeys package; install it with `pip install nkeys`")

    def _bad(self, field: str, why: str) -> errors.BusUnreachable:
        value = getattr(self, field)
        shown = f" {value}" if field in {"creds", "nkey", *_TLS} and not value.startswith("data:") else ""
        return errors.BusUnreachable(self.url, f"the login's {field}{shown} cannot be used: {why}", "check the context")


def load(home: Path | None, server: str | None, context: str | None, environ: Mapping[str, str]) -> Context:
    """Find out which server is meant, and as whom.

    What is given first wins: `context` (whose address `server` replaces), `server`, the environment (``NATS_CONTEXT``, ``NATS_URL``
    and the login beside them), the fleet that runs in `home`. A login in the environment goes with `server` and with `home` too.
    The environment counts for nothing if it was exported for another fleet: its ``SYSTEMS_HOME`` is not `home`.

    Args:
        home: state directory of the fleet.
        server: URL, or several with commas.
        context: name or file of a nats context; the empty string is the one selected with ``nats context select``.
        environ: the environment.

    Raises:
        UnknownName: there is no such context.
        Conflict: the context asks for what is not supported.
        HomeUnusable: a context file or ``run/server.json`` cannot be read.
        BusUnreachable: nothing says where the server is.
    """
    if context is not None:
        found = read_nats_context(context, environ)
        return msgspec.structs.replace(found, url=server) if server else found
    elsewhere = (
        home is not None and environ.get("SYSTEMS_HOME") and Path(environ["SYSTEMS_HOME"]).resolve() != home.resolve()
    )
    variables = {} if elsewhere else {VARIABLES[name]: environ[name] for name in VARIABLES if environ.get(name)}
    if server:
        base = Context(url=server)
    elif environ.get("NATS_CONTEXT") and not elsewhere:
        base = read_nats_context(environ["NATS_CONTEXT"], environ)
    elif "url" in variables:
        base = Context(url=variables["url"])
    else:
        base = _of_home(home)
    changes = {field: value for field, value in variables.items() if field in _TLS}
    if not server and "url" in variables:
        changes["url"] = variables["url"]
    if any(field in variables for field in _LOGIN):
        changes |= {field: variables.get(field, "") for field in _LOGIN}
    return msgspec.structs.replace(base, **changes)


def exports(context: Context, home: Path | None) -> dict[str, str]:
    """Environment for the plain tools: everything that :func:`load` and the nats command read, unquoted.

    Variables that `context` does not use are there and empty: a shell that spoke to another fleet forgets its login.
    """
    variables = {name: getattr(context, field) for name, field in VARIABLES.items()}
    variables["NATS_CONTEXT"] = ""
    if home is not None:
        variables["SYSTEMS_HOME"] = str(home.resolve())
    return variables


def read_nats_context(name: str, environ: Mapping[str, str]) -> Context:
    """A context of the nats command: by name, by the path of its file, or the selected one for an empty name.

    Raises:
        UnknownName: there is no such context, or none is selected.
        HomeUnusable: its file is no context.
        Conflict: it asks for what is not supported.
    """
    configured = environ.get("XDG_CONFIG_HOME")
    folder = (Path(configured) if configured else Path(environ.get("HOME") or Path.home()) / ".config") / "nats"
    known = sorted(path.stem for path in (folder / "context").glob("*.json"))
    if not name:
        selected = folder / "context.txt"
        name = selected.read_text().strip() if selected.is_file() else ""
        if not name:
            raise errors.UnknownName("selected NATS context in", str(selected), known)
    file = Path(name).expanduser() if name.endswith(".json") or os.sep in name else folder / "context" / f"{name}.json"
    if not file.is_file():
        raise errors.UnknownName("NATS context", name, known)
    settings = _json(file, dict[str, Any])
    for field in _UNSUPPORTED:
        if settings.get(field):
            raise errors.Conflict(
                f"expected a NATS context without {field}, got: {field} = {settings[field]!r} in {file}; "
                "name the server and the login themselves"
            )
    fields = {field: settings[field] for field in Context.__struct_fields__ if settings.get(field)}
    try:
        return msgspec.convert({"url": "nats://127.0.0.1:4222"} | fields, Context)
    except msgspec.ValidationError as exc:
        raise _unreadable(file, exc) from exc


def _of_home(home: Path | None) -> Context:
    if home is None:
        raise errors.BusUnreachable("(no server named)", "neither NATS_URL nor a state directory says where it is")
    file = home / SERVER_FILE
    if not file.is_file():
        raise errors.BusUnreachable(str(home), "no fleet runs in this state directory")
    return _json(file, Context)


def _json(file: Path, type_: type[T]) -> T:
    try:
        return msgspec.json.decode(file.read_bytes(), type=type_)
    except (OSError, msgspec.DecodeError) as exc:
        raise _unreadable(file, exc) from exc


def _unreadable(file: Path, exc: Exception) -> errors.HomeUnusable:
    return errors.HomeUnusable(
        f"expected the address of a server in {file}, got: {exc}; remove the file, or write it again"
    )


def _path(value: str) -> Path | None:
    """The file that a reference names; None for one with another scheme."""
    if value.startswith("file://"):
        value = value.removeprefix("file://")
    elif "://" in value or value.startswith("data:"):
        return None
    return Path(value).expanduser()
