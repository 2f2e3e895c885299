"""The orders that a child process writes on stdout, and what became of them. The format is in :mod:`services.runner.handlers.exec`.

The first order that cannot be followed ends it: :attr:`ChildLines.error` is set and nothing more is taken. A line over
:data:`LINE_LIMIT`, and one that is no order, is log, unless it begins like a result: that would be lost without a word.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import msgspec

from bus import subjects
from bus.errors import BadSubject
from bus.events.invocation import EMPTY
from services.runner.failure import HandlerError
from services.runner.handler import FOLLOW_UP_LIMIT, Context, FollowUp
from services.runner.handlers import output

#: Bytes of one line.
LINE_LIMIT = 1024 * 1024
#: Bytes of one artifact: it is held in memory while it is stored.
ARTIFACT_LIMIT = 64 * 1024 * 1024
_RESULT = re.compile(rb'\s*\{\s*"result"\s*:')
_ABSENT = msgspec.Raw(b"")


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    progress: msgspec.Raw = _ABSENT
    usage: msgspec.Raw = _ABSENT
    artifact: msgspec.Raw = _ABSENT
    request: msgspec.Raw = _ABSENT
    result: msgspec.Raw = _ABSENT


class _Artifact(msgspec.Struct, frozen=True):
    path: str
    name: str = ""
    media_type: str = "application/octet-stream"


class _Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    role: str
    input: msgspec.Raw = EMPTY
    key: str = ""


_line = msgspec.json.Decoder(_Line)


class ChildLines:
    """Cuts a stream into lines and follows the orders among them."""

    def __init__(self, context: Context, folder: Path) -> None:
        self._context, self._folder = context, folder
        self._rest = bytearray()
        self._skipping = False
        self.result = EMPTY
        self.follow_ups: list[FollowUp] = []
        #: Why the child must not go on.
        self.error: Exception | None = None

    async def take(self, chunk: bytes) -> bool:
        """Follow what the chunk completes; False once an order could not be followed."""
        self._context.progress()
        *complete, rest = chunk.split(b"\n")
        try:
            for part in complete:
                self._add(part)
                if self._skipping:
                    self._skipping = False
                else:
                    await self._obey(bytes(self._rest))
                self._rest.clear()
            self._add(rest)
        except Exception as exc:  # noqa: BLE001 - the reader must go on; the error is raised when the child has ended
            self.error = exc
        return self.error is None

    async def end(self) -> None:
        """Follow a last line that has no newline."""
        await self.take(b"\n")

    def _add(self, part: bytes) -> None:
        if self._skipping:
            return
        self._rest += part
        if len(self._rest) > LINE_LIMIT:
            if _RESULT.match(self._rest):
                raise HandlerError(
                    "result_too_large",
                    f"expected the line of the result to be at most {LINE_LIMIT:,} bytes; put the bulk into an artifact",
                    permanent=True,
                )
            self._rest.clear()
            self._skipping = True

    async def _obey(self, text: bytes) -> None:
        if text.lstrip()[:1] != b"{":
            return
        try:
            line = _line.decode(text)
        except output.INVALID as exc:
            if _RESULT.match(text):
                raise _refused("result", '{"result": …}', text, exc) from exc
            return  # log
        if line.progress is not _ABSENT:
            self._progress(line.progress)
        if line.usage is not _ABSENT:
            self._context.meter(output.usage(line.usage, "on stdout"))
        if line.artifact is not _ABSENT:
            await self._artifact(line.artifact)
        if line.request is not _ABSENT:
            self._follow_up(line.request)
        if line.result is not _ABSENT:
            self.result = output.encode(msgspec.Raw(bytes(line.result)), "the result on stdout")

    def _progress(self, raw: msgspec.Raw) -> None:
        note = msgspec.json.decode(raw)
        if isinstance(note, str):
            self._context.progress(note)

    def _follow_up(self, raw: msgspec.Raw) -> None:
        if len(self.follow_ups) == FOLLOW_UP_LIMIT:
            raise HandlerError(
                "bad_request",
                f"expected at most {FOLLOW_UP_LIMIT} requests from one command, got more; let one of them ask for the rest",
                permanent=True,
            )
        self.follow_ups.append(_follow_up(raw))

    async def _artifact(self, raw: msgspec.Raw) -> None:
        try:
            wanted = msgspec.json.decode(raw, type=_Artifact)
        except output.INVALID as exc:
            raise _refused("artifact", '{"name": "…", "path": "…"}', raw, exc) from exc
        path = self._folder / wanted.path
        content = await asyncio.to_thread(_read, path)
        await self._context.artifact(wanted.name or path.name, content, wanted.media_type)


def _read(path: Path) -> bytes:
    """Content of an artifact; blocks."""
    if not path.is_file():
        raise HandlerError("bad_artifact", f"expected an artifact to be a file, found none at {path}")
    with path.open("rb") as file:
        content = file.read(ARTIFACT_LIMIT + 1)
    if len(content) > ARTIFACT_LIMIT:
        raise HandlerError(
            "bad_artifact",
            f"expected an artifact of at most {ARTIFACT_LIMIT:,} bytes, got more at {path}",
            permanent=True,
        )
    return content


def _follow_up(raw: msgspec.Raw) -> FollowUp:
    try:
        wanted = msgspec.json.decode(raw, type=_Request)
        subjects.parse_role(wanted.role)
    except (*output.INVALID, BadSubject) as exc:
        raise _refused("request", '{"role": "project/role", "input": …}', raw, exc) from exc
    return FollowUp(role=wanted.role, input=msgspec.Raw(bytes(wanted.input)), idempotency_key=wanted.key)


def _refused(order: str, shape: str, raw: bytes, exc: Exception) -> HandlerError:
    head = bytes(raw)[:100].decode(errors="replace")
    return HandlerError(
        f"bad_{order}", f"expected the {order} on stdout to be {shape}, got: {head} ({exc})", permanent=True
    )
