"""Files that are there whole or not at all, also after a power failure. Everything here blocks."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

#: Bytes read at a time.
_CHUNK = 1 << 20


def settle(draft: Path, file: Path) -> None:
    """Give a finished draft its name: what it holds is on the disk before the name is, and the name before this returns."""
    with draft.open("rb") as stream:
        os.fsync(stream.fileno())
    draft.replace(file)
    flush_folder(file.parent)


def write(file: Path, content: bytes) -> None:
    """Write a small file in one piece, over the one that may be there."""
    draft = file.with_name(f"{file.name}.part")
    draft.write_bytes(content)
    settle(draft, file)


def flush_folder(folder: Path) -> None:
    """Put a folder's names on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(file: Path) -> str:
    """A file's SHA-256 in hexadecimal digits."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
