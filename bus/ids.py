"""Identifiers: random where a thing is new, derived where the same cause must give the same id.

All are UUIDs in their usual text form, which is a legal NATS subject token. ``new_id`` is UUIDv7 (RFC 9562, 5.7):
sortable by creation time. ``due_id`` is shaped like UUIDv7 from a due time and a name, so a schedule's tick that is
handled twice asks for the same invocation twice, and the fence lets only one in. ``key_id`` is UUIDv8 (RFC 9562, 5.8).
"""

from __future__ import annotations

import hashlib
import os
import random
import time
from datetime import UTC, datetime

_VERSION_7 = 0x7 << 76
_VERSION_8 = 0x8 << 76
_VARIANT = 0x2 << 62
_RANDOM_MASK = ~((0xF << 76) | (0x3 << 62)) & ((1 << 128) - 1)

#: Our own, seeded by the operating system, because code that we run may seed the module's. Ids must not repeat; that they
#: cannot be guessed is not promised, and would cost a system call for each.
_random = random.Random()
os.register_at_fork(after_in_child=_random.seed)


def _text(value: int) -> str:
    h = value.to_bytes(16, "big").hex()  # the fastest way there is, on the path of every event
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


def new_id() -> str:
    """A new UUIDv7: 48 bits of Unix milliseconds, 74 random bits."""
    value = (time.time_ns() // 1_000_000) << 80 | _random.getrandbits(80)
    return _text(value & _RANDOM_MASK | _VERSION_7 | _VARIANT)


def due_id(name: str, due: datetime) -> str:
    """The id of what `name` asks for at `due`: always the same one, and sorted by its due time."""
    digest = hashlib.sha256(f"{name}\0{due.astimezone(UTC).isoformat()}".encode()).digest()
    value = int(due.timestamp() * 1000) << 80 | int.from_bytes(digest[:10], "big")
    return _text(value & _RANDOM_MASK | _VERSION_7 | _VARIANT)


def key_id(scope: str, key: str) -> str:
    """The id that an idempotency key stands for within a scope: always the same one. Not sortable by time."""
    digest = hashlib.sha256(f"{scope}\0{key}".encode()).digest()
    return _text(int.from_bytes(digest[:16], "big") & _RANDOM_MASK | _VERSION_8 | _VARIANT)
