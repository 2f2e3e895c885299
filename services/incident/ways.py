"""The ways by which the warden calls people: apprise addresses, each under a name, and where their secret part lies.

An address is looked up when it is needed, in ``ways.env`` of the state directory and then in the warden's environment, and
never leaves this module: errors are shown without it. Apprise is loaded with the first call, in a thread of its own, because
it takes half a second and 40 MB that a fleet without calls need not pay.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import re
import stat
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from bus import errors
from services.fleet.duty import Person

#: Name of the file with addresses.
FILE = "ways.env"
#: Characters of an error that are kept.
_SHOWN = 300
#: Characters from which a part of an address is taken for a secret.
_SECRET = 5


class WayUnusable(errors.BusError):
    """A way that cannot be used as it is set up."""


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """What a person is told."""

    title: str
    body: str
    #: How urgent a service shows it: ``failure`` for a call, ``info`` for news.
    kind: Literal["failure", "info"] = "info"


def address(person: str, way: str, known: Person, home: Path, environ: Mapping[str, str] = os.environ) -> str:
    """The apprise address of a person's way.

    Raises:
        WayUnusable: there is none, or others may read the file that it stands in.
    """
    variable = known.ways.get(way)
    if variable is None:
        hint = errors.did_you_mean(way, known.ways)
        raise WayUnusable(f"unknown way {way!r} of {person}{hint}; add it to ways of [people.{person}]")
    return held(variable, f"{person} by {way}", home, environ)


def held(variable: str, whose: str, home: Path, environ: Mapping[str, str] = os.environ) -> str:
    """The apprise address that a variable holds; `whose` it is, for the sentence.

    Raises:
        WayUnusable: it holds none, or others may read the file that it stands in.
    """
    found = _in_file(home / FILE).get(variable) or environ.get(variable, "")
    if not found:
        raise WayUnusable(
            f"expected the address of {whose} in {variable}, got nothing; "
            f"put {variable}=ADDRESS into {home / FILE} (mode 0600), or into the warden's environment"
        )
    return found


def _in_file(file: Path) -> dict[str, str]:
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
        if mode & 0o077:
            raise WayUnusable(f"expected {file} to be for its owner alone, got mode {mode:04o}; run: chmod 600 {file}")
        text = file.read_text()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as exc:
        raise WayUnusable(f"expected a file that can be read, got: {file}: {exc}") from exc
    pairs = (line.partition("=") for line in text.splitlines() if line.strip() and not line.startswith("#"))
    return {name.strip(): value.strip().strip("'\"") for name, _, value in pairs}


class Apprise:
    """A way through apprise."""

    def __init__(self, url: str, limit_s: float) -> None:
        """Make it.

        Args:
            url: the address, which stays here.
            limit_s: seconds that a call may take.
        """
        self._url = url
        self._limit_s = limit_s

    async def send(self, page: Page) -> str:
        """Call: why it failed, or empty when the way's service has taken it."""
        try:
            async with asyncio.timeout(self._limit_s):
                return await _in_thread(lambda: self._notify(page))
        except TimeoutError:
            return f"no answer within {self._limit_s:g} s"
        except Exception as exc:  # noqa: BLE001 (a plugin of somebody else may raise anything, and that is its answer)
            return self._shown(f"{type(exc).__name__}: {exc}")

    def _notify(self, page: Page) -> str:
        apprise: Any = importlib.import_module("apprise")
        one = apprise.Apprise()
        if not one.add(self._url):
            return (
                f"expected an apprise address, as ntfy://TOPIC or json://HOST/PATH, got one of scheme {self._scheme!r}"
            )
        said: list[str] = []
        sent = one.notify(
            title=page.title,
            body=page.body,
            notify_type=page.kind,
            body_format="text",
            timeout=self._limit_s,
            log_callback=lambda entry, _plugin: said.append(str(entry.message)),
        )
        return "" if sent else self._shown(said[-1] if said else "the service has not taken it")

    @property
    def _scheme(self) -> str:
        return self._url.partition("://")[0][:20] if "://" in self._url else ""

    def _shown(self, error: str) -> str:
        """An error without what is secret in the address: all of it but the scheme and the host."""
        host = urlsplit(self._url).hostname or ""
        words = {self._url, *re.split(r"[/:@?&=]+", self._url)} - {host}
        for word in sorted(words, key=len, reverse=True):
            if len(word) > _SECRET:
                error = error.replace(word, "…")
        return error[:_SHOWN]


async def _in_thread(work: Callable[[], str]) -> str:
    """Run what blocks in a thread that nobody waits for at the end: a call that hangs keeps no daemon from stopping."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[str] = loop.create_future()

    def tell(set_: Callable[[Any], None], value: object) -> None:
        if not answer.done():
            set_(value)

    def run() -> None:
        try:
            result = work()
        except Exception as exc:  # noqa: BLE001 (handed to whoever waits)
            post(answer.set_exception, exc)
        else:
            post(answer.set_result, result)

    def post(set_: Callable[[Any], None], value: object) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(tell, set_, value)

    threading.Thread(target=run, name="way", daemon=True).start()
    return await answer
