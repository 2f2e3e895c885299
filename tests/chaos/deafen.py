"""Makes a process deaf: its main thread is stopped in its tracks, and every other thread of it goes on.

That is what a blocking call on the event loop comes to, for any daemon, without a line of test code inside it: the tracer of
Linux (``ptrace(2)``) stops one thread. A tracer is a thread too, and its tracee is reported to nobody else: the one here seizes,
waits, and lets go.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

_SEIZE, _INTERRUPT, _DETACH = 0x4206, 0x4207, 17
#: Wait for a thread that is no child of ours: ``__WALL``.
_WALL = 0x40000000
_LIMIT_S = 30.0


class _Tracer(threading.Thread):
    """Stops the main thread of a process until it is told to let go, or the process is gone."""

    def __init__(self, pid: int) -> None:
        super().__init__(name="tracer", daemon=True)
        self.pid = pid
        self.error = ""
        self.stopped = threading.Event()
        self.let_go = threading.Event()
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]

    def _ptrace(self, request: int) -> bool:
        if self._libc.ptrace(request, self.pid, None, None) == 0:
            return True
        self.error = f"ptrace({request:#x}, {self.pid}): {os.strerror(ctypes.get_errno())}"
        return False

    def run(self) -> None:
        if self._ptrace(_SEIZE) and self._ptrace(_INTERRUPT):
            os.waitpid(self.pid, _WALL)
            self.stopped.set()
            while not self.let_go.wait(0.02):
                # Its death must not lie here unseen: whoever supervises it hears of it only after its tracer.
                found, status = os.waitpid(self.pid, _WALL | os.WNOHANG)
                if found and (os.WIFEXITED(status) or os.WIFSIGNALED(status)):
                    return
            self._ptrace(_DETACH)
        self.stopped.set()


@contextmanager
def deafened(pid: int) -> Iterator[None]:
    """A process whose main thread stands still; it goes on afterwards, unless it was killed meanwhile."""
    tracer = _Tracer(pid)
    tracer.start()
    assert tracer.stopped.wait(_LIMIT_S), f"pid {pid} was not stopped"
    if tracer.error:
        pytest.skip(f"no thread of another process can be stopped here: {tracer.error}")
    try:
        yield
    finally:
        tracer.let_go.set()
        tracer.join(_LIMIT_S)
        assert not tracer.is_alive(), f"pid {pid} was not let go"
