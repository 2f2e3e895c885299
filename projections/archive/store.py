"""Where copies of the archive's files are kept: a folder, or a bucket of any store that speaks S3.

One object for each Parquet file and one for its sidecar, under the same names as in ``HOME/archive``. A copy counts only when
its sidecar is there, and the sidecar is put only after the file was read back and has the right checksum. Objects are written
once: one that is there already and differs is a fault for a person, and is never written over.

Everything here blocks, for as long as the network takes; a store that does not answer is given up on after some seconds.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from datetime import timedelta
from io import BufferedReader
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import obstore
from obstore import exceptions
from obstore.store import LocalStore, S3Store

from bus.errors import BusError
from projections.archive import files, manifest
from projections.archive.manifest import Fault, Segment

#: Seconds until a connection is given up on, and one request, and the tries of one request together.
_CONNECT_S, _REQUEST_S, _RETRY_S = 5, 60, 15
_RETRIES = 2


class StoreAway(BusError):
    """The store does not answer, or does not let us in."""

    def __init__(self, url: str, why: str) -> None:
        self.url = url
        super().__init__(
            f"expected the archive's store {url} to answer, got: {why}; segments stay in the local folder, nothing is trimmed, "
            "and it is tried again"
        )


class BadStore(BusError):
    """A URL or a login that cannot be one of a store."""


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """How an S3 store is reached. Secrets are named by the environment variables that hold them."""

    url: str
    endpoint: str = ""
    region: str = "us-east-1"
    key_env: str = "AWS_ACCESS_KEY_ID"
    secret_env: str = "AWS_SECRET_ACCESS_KEY"  # noqa: S105 (the name of a variable)
    token_env: str = "AWS_SESSION_TOKEN"  # noqa: S105 (the name of a variable)


class Store:
    """Objects by name, below one URL."""

    def __init__(self, url: str, backend: LocalStore | S3Store, prefix: str = "") -> None:
        #: As in the fleet file; shown to people.
        self.url = url
        self._backend = backend
        self._prefix = f"{prefix}/" if prefix else ""

    def put(self, key: str, file: Path) -> None:
        """Store a file's bytes.

        Raises:
            StoreAway: not now.
        """
        with file.open("rb") as stream:
            self._put(key, stream)

    def put_bytes(self, key: str, content: bytes) -> None:
        """Store some bytes. Raises as :meth:`put`."""
        self._put(key, content)

    def _put(self, key: str, content: bytes | BufferedReader) -> None:
        try:
            with _translated(self.url):
                obstore.put(self._backend, self._prefix + key, content)
        except FileNotFoundError as exc:
            raise StoreAway(self.url, f"{_first_line(exc)} (is there such a bucket?)") from exc

    def read(self, key: str) -> bytes | None:
        """An object's bytes; None when there is none. Raises as :meth:`put`."""
        try:
            with _translated(self.url):
                return bytes(obstore.get(self._backend, self._prefix + key).bytes())
        except FileNotFoundError:
            return None

    def sha256(self, key: str) -> str | None:
        """An object's SHA-256, of its bytes as they come back; None when there is none. Raises as :meth:`put`."""
        digest = hashlib.sha256()
        try:
            with _translated(self.url):
                for chunk in obstore.get(self._backend, self._prefix + key):
                    digest.update(chunk)
        except FileNotFoundError:
            return None
        return digest.hexdigest()

    def fetch(self, key: str, file: Path) -> bool:
        """Bring an object into a file, whole or not at all; False when there is none. Raises as :meth:`put`."""
        draft = file.with_name(f"{file.name}.part")
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with _translated(self.url), draft.open("wb") as stream:
                for chunk in obstore.get(self._backend, self._prefix + key):
                    stream.write(chunk)
        except FileNotFoundError:
            draft.unlink()
            return False
        files.settle(draft, file)
        return True

    def keys(self, prefix: str = "") -> Iterator[str]:
        """The names of all objects that begin with whole parts of `prefix`. Raises as :meth:`put`."""
        with _translated(self.url):
            for page in obstore.list(self._backend, self._prefix + prefix):
                for item in page:
                    yield item["path"].removeprefix(self._prefix)


class _translated:  # noqa: N801 (reads as what it does)
    """The library's errors as ours. A missing object is a FileNotFoundError, which the library's own is."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, exc: BaseException | None, _trace: object) -> None:
        if isinstance(exc, FileNotFoundError) or exc is None:
            return
        if isinstance(exc, exceptions.BaseError | OSError):
            raise StoreAway(self._url, _first_line(exc)) from exc


def _first_line(exc: BaseException) -> str:
    text = str(exc).strip().split("\n", 1)[0]
    return text[:300] or type(exc).__name__


def open_store(access: Access, environ: Mapping[str, str] = os.environ) -> Store:
    """The store of a URL; nothing is asked of it yet.

    Raises:
        BadStore: the URL is neither ``s3://BUCKET/PREFIX`` nor ``file:///FOLDER``, or half of a login is set.
    """
    parts = urlsplit(access.url)
    if parts.scheme == "file" and not parts.netloc and parts.path.strip("/"):
        folder = Path(parts.path)
        try:
            return Store(access.url, LocalStore(folder, mkdir=True))
        except (exceptions.BaseError, OSError) as exc:
            raise StoreAway(access.url, _first_line(exc)) from exc
    if parts.scheme != "s3" or not parts.netloc:
        raise BadStore(f"expected the URL of a store, s3://BUCKET/PREFIX or file:///FOLDER, got: {access.url!r}")
    key, secret = environ.get(access.key_env, ""), environ.get(access.secret_env, "")
    if bool(key) != bool(secret):
        missing = access.secret_env if key else access.key_env
        raise BadStore(f"expected both {access.key_env} and {access.secret_env} in the environment, got: no {missing}")
    login: dict[str, str] = {"access_key_id": key, "secret_access_key": secret} if key else {}
    if login and environ.get(access.token_env):
        login["session_token"] = environ[access.token_env]
    if access.endpoint:
        login["endpoint"] = access.endpoint
    backend = S3Store(
        parts.netloc,
        region=access.region,
        virtual_hosted_style_request=False,
        client_options={
            "connect_timeout": timedelta(seconds=_CONNECT_S),
            "timeout": timedelta(seconds=_REQUEST_S),
            "allow_http": access.endpoint.startswith("http://"),
        },
        retry_config={
            "max_retries": _RETRIES,
            "retry_timeout": timedelta(seconds=_RETRY_S),
            "backoff": {
                "init_backoff": timedelta(milliseconds=100),
                "max_backoff": timedelta(seconds=2),
                "base": 2,
            },
        },
        **login,  # type: ignore[arg-type]  # names of the library's own settings
    )
    return Store(access.url, backend, parts.path.strip("/"))


def look(store: Store, segment: Segment) -> Fault | None:
    """Whether a store has a finished copy of a segment, as far as its sidecar tells; :func:`prove` reads all of it.

    Raises:
        StoreAway: it cannot tell now.
    """
    raw = store.read(segment.sidecar)
    if raw is None:
        return _fault(store, segment, "missing", "no copy")
    if raw != manifest.encode(segment):
        return _fault(store, segment, "unlike", "a copy of other content")
    return None


def prove(store: Store, segment: Segment) -> Fault | None:
    """Whether a store has a copy of a segment that reads back with the right checksum. Raises as :func:`look`."""
    found = look(store, segment)
    if found is not None:
        return found
    digest = store.sha256(segment.key)
    if digest == segment.sha256:
        return None
    return _fault(store, segment, "corrupt", "no object" if digest is None else f"SHA-256 {digest[:12]}…")


def keep(store: Store, root: Path, segment: Segment) -> Fault | None:
    """Have a verified copy of a local segment in a store. Doing it again changes nothing.

    Raises:
        StoreAway: not now.
    """
    found = look(store, segment)
    if found is None or found.kind != "missing":
        return found
    if store.sha256(segment.key) != segment.sha256:
        # Not there, or the half of an earlier try: what has no sidecar does not count yet.
        return replace(store, root, segment)
    store.put_bytes(segment.sidecar, manifest.encode(segment))
    return look(store, segment)


def replace(store: Store, root: Path, segment: Segment) -> Fault | None:
    """Put a segment over a copy that is proven to be broken. Raises as :func:`keep`."""
    store.put(segment.key, root / segment.key)
    digest = store.sha256(segment.key)
    if digest != segment.sha256:
        return _fault(store, segment, "corrupt", "no object" if digest is None else f"SHA-256 {digest[:12]}…")
    store.put_bytes(segment.sidecar, manifest.encode(segment))
    return look(store, segment)


def _fault(store: Store, segment: Segment, kind: str, got: str) -> Fault:
    return Fault(
        kind=kind,
        stream=segment.stream,
        first=segment.first,
        last=segment.last,
        where=f"{store.url}/{segment.key}",
        sentence=f"expected a copy of {segment} at {store.url}/{segment.key} with SHA-256 {segment.sha256[:12]}…, got: {got}"
        + ("; move the other one away" if kind == "unlike" else ""),
    )
