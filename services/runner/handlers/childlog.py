"""What a child process writes: its end in memory, the whole in a file, both bounded.

Writing blocks the loop only as long as the page cache takes a few kilobytes. Beyond :data:`WHOLE_LIMIT` bytes the middle is lost:
the file keeps the beginning and says where it was cut, the tail keeps the end.
"""

from __future__ import annotations

import tempfile
from typing import Self

#: Bytes of one stream that are kept in its artifact: a day of a talkative agent, and what one read of it may cost in memory.
WHOLE_LIMIT = 32 * 1024 * 1024
#: Bytes in memory before a file is made: most children never write that much.
_IN_MEMORY = 64 * 1024


class ChildLog:
    """One output stream of a child."""

    def __init__(self, name: str, tail: int) -> None:
        #: ``stdout.log`` or ``stderr.log``.
        self.name = name
        #: Bytes seen so far.
        self.size = 0
        self._tail_limit = tail
        self._tail = bytearray()
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 - closed by __exit__

    def write(self, chunk: bytes) -> None:
        """Take note of what was written."""
        room = WHOLE_LIMIT - self.size
        if room > 0:
            self._file.write(chunk[:room])
        self.size += len(chunk)
        self._tail += chunk
        del self._tail[: -4 * self._tail_limit]  # a character is at most 4 bytes

    @property
    def tail(self) -> str:
        """The last characters that were written; bytes that are no UTF-8 are replaced."""
        return self._tail.decode(errors="replace")[-self._tail_limit :]

    @property
    def is_cut(self) -> bool:
        """Whether :attr:`tail` is not the whole."""
        return self.size > len(self._tail) or len(self._tail.decode(errors="replace")) > self._tail_limit

    def whole(self) -> bytes:
        """Everything up to the limit, with a last line that says what is missing."""
        self._file.seek(0)
        content = self._file.read()
        if self.size > WHOLE_LIMIT:
            content += f"\n[cut: {self.size:,} bytes were written, the first {WHOLE_LIMIT:,} are kept]\n".encode()
        return content

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
