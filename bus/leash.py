"""A leash between a process tree and the process that wants it: when the wanting process dies, by whatever means, so does the tree.

Run as a program, ``python -I -S leash.py LIFELINE REPORT GRACE PROGRAM [ARGUMENT ...]``, by :func:`bus.leashed.start`.
It imports as little as it can (it starts in about 12 ms and holds about 9 MB), starts the program in a session of its
own, and stays until the whole tree is gone.

``LIFELINE``  the read end of a pipe. End of file (the parent is gone, even by kill -9) and ``T`` mean *stop*, ``K``
              means *kill now*. SIGTERM, SIGINT and SIGHUP to the leash also mean *stop*.
``REPORT``    the write end of a pipe, one line per fact: ``pid N``, then ``exit STATUS`` as in ``subprocess`` (negative is
              a signal), or ``error ERRNO`` if the program could not be started. A leash that ends without ``exit`` was
              itself killed.
``GRACE``     seconds.

*Stop* is SIGTERM to the program's process group, then SIGKILL to the whole tree after `GRACE` seconds. When the program
exits by itself, whatever it left behind gets SIGTERM and at most :data:`LINGER_S` seconds (less if `GRACE` is less). The leash
ends as the program did: with its exit code, or by its signal.

On Linux the leash is the tree's subreaper, so the tree includes what daemonised itself, and the program is killed by the
kernel if the leash is. Elsewhere the tree is the process group only, and killing the leash with -9 is seen by its parent alone.
Not promised: the end of a process in uninterruptible sleep (the leash waits for it), of one in another PID namespace, and of
one that runs as a user whom the leash may not signal.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
else:
    import _signal as signal  # the public module imports enum: 6 ms of a 12 ms start

#: Seconds that leftovers of a finished program get: enough to flush a log, too short to be waited for.
LINGER_S = 1.0
#: Seconds between two rounds of SIGKILL: the first against a tree that still forks, the last against what cannot be killed.
_ROUND_S, _LAST_ROUND_S = 0.02, 1.0
_LINUX = sys.platform == "linux"
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main(argv: list[str]) -> int:
    """Hold the leash until the tree is gone: the exit status of the program, as in ``subprocess``."""
    lifeline, report, grace, command = int(argv[1]), int(argv[2]), float(argv[3]), argv[4:]
    os.set_inheritable(lifeline, False)
    os.set_inheritable(report, False)
    leash = _Leash(lifeline, report, grace)
    if not leash.start(command):
        return 127
    return leash.hold()


class _Leash:
    """One program and everything that descends from it."""

    def __init__(self, lifeline: int, report: int, grace: float) -> None:
        self.lifeline, self.report, self.grace = lifeline, report, grace
        self.pid = 0
        self.status: int | None = None
        self.stop_asked = self.kill_asked = False
        #: When SIGKILL comes; None while the program runs unasked.
        self.deadline: float | None = None
        self.wake, wake_write = os.pipe()
        os.set_blocking(self.wake, False)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write)

    def start(self, command: list[str]) -> bool:
        """Start the program; False if it could not be, and the reason is on the report."""
        prctl = _prctl()
        if prctl is not None:
            prctl(_PR_SET_CHILD_SUBREAPER, 1)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in _STOP_SIGNALS:
            signal.signal(number, self._on_stop)
        failed, failed_write = os.pipe()
        parent = os.getpid()
        # A signal between fork and exec would run our handler in the child and be lost to the program.
        before = signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
        self.pid = os.fork()
        if self.pid == 0:
            _become(command, failed_write, parent, prctl)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(failed_write)
        _let_go()
        error = os.read(failed, 16)
        os.close(failed)
        if error:
            os.waitpid(self.pid, 0)
            self._say(f"error {error.decode()}")
            return False
        self._say(f"pid {self.pid}")
        return True

    def hold(self) -> int:
        """Wait for the program or the order to stop it, and see the tree off."""
        watched = [self.lifeline, self.wake]
        pause = _ROUND_S
        while self._remains():
            timeout = None if self.deadline is None else max(self.deadline - time.monotonic(), 0.0)
            if self.kill_asked or timeout == 0.0:
                self._signal_tree(signal.SIGKILL)
                timeout = pause = min(2 * pause, _LAST_ROUND_S)
            elif not _LINUX and self.status is not None:
                timeout = _ROUND_S  # nobody tells us of the end of a group that we are no parent of
            ready = select.select(watched, [], [], timeout)[0]
            if self.wake in ready:
                os.read(self.wake, 4096)
            if self.lifeline in ready and not self._obey(os.read(self.lifeline, 64)):
                watched.remove(self.lifeline)
            if self.stop_asked and self.deadline is None:
                self.deadline = time.monotonic() + self.grace
                self._signal_group(signal.SIGTERM)
        assert self.status is not None  # nothing remains, the program included
        return self.status

    def _on_stop(self, *_: object) -> None:
        self.stop_asked = True

    def _obey(self, orders: bytes) -> bool:
        """Follow what came on the lifeline; False at its end."""
        self.kill_asked = self.kill_asked or b"K" in orders
        self.stop_asked = self.stop_asked or not orders or b"T" in orders
        return bool(orders)

    def _remains(self) -> bool:
        """Whether anything of the tree is left; takes note of the program's end and reaps orphans."""
        try:
            while True:
                pid, wait_status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return True
                if pid == self.pid:
                    self._ended(os.waitstatus_to_exitcode(wait_status))
        except ChildProcessError:
            return not _LINUX and self._signal_group(0)

    def _ended(self, status: int) -> None:
        self.status = status
        self._say(f"exit {status}")
        soon = time.monotonic() + min(self.grace, LINGER_S)
        self.deadline = soon if self.deadline is None else min(self.deadline, soon)
        self._signal_tree(signal.SIGTERM)

    def _signal_group(self, number: int) -> bool:
        """Signal the program's process group; False if it has no member left.

        On Linux only while the program is unreaped: afterwards its number may name somebody else's group.
        """
        if _LINUX and self.status is not None:
            return False
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):  # the second is what macOS says of a group of zombies
            return False
        return True

    def _signal_tree(self, number: int) -> None:
        self._signal_group(number)
        for pid in _descendants(os.getpid()) if _LINUX else ():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)

    def _say(self, line: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # nobody is left to be told
            os.write(self.report, f"{line}\n".encode())


def _prctl() -> Callable[[int, int], None] | None:
    """Linux's prctl for two integers; None elsewhere."""
    if not _LINUX:
        return None
    import ctypes  # noqa: PLC0415 - 3 ms that only Linux needs to pay

    function = ctypes.CDLL(None, use_errno=True).prctl
    function.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong]

    def call(option: int, value: int) -> None:
        if function(option, value, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), f"prctl({option}, {value}) failed")

    return call


def _become(command: list[str], failed: int, parent: int, prctl: Callable[[int, int], None] | None) -> None:
    """In the new process: turn into the program. Never returns."""
    try:
        os.setsid()
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # it died before the kernel knew that we care
                os._exit(127)
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD, *_STOP_SIGNALS):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execvp(command[0], command)  # noqa: S606 - no shell is the point
    except OSError as error:
        os.write(failed, str(error.errno or 0).encode())
    finally:
        os._exit(127)


def _let_go() -> None:
    """Hold nothing of the program's: its pipes must end when it does, its folder must be removable."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)
    os.chdir("/")


def _descendants(root: int) -> list[int]:
    """Pids below `root`, parents first, by one look at /proc. What is forked meanwhile is found by the next look."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - pathlib costs 5 ms
        if name.isdigit():
            # The program's name stands in parentheses and may hold any byte; state and parent follow the last one.
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as stat:  # noqa: PTH123 - as above
                children.setdefault(int(stat.read().rpartition(b")")[2].split()[1]), []).append(int(name))
    found = list(children.get(root, ()))
    for pid in found:
        found += children.get(pid, ())
    return found


def _end_as(status: int) -> None:
    """Exit with the program's code, or die by its signal (without a core dump of our own)."""
    if status < 0:
        import resource  # noqa: PLC0415 - only for this case

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with contextlib.suppress(OSError):  # SIGKILL has no handler to reset
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
        status = 128 - status  # what shells say of a signal, if it could not end us
    os._exit(status)


if __name__ == "__main__":
    _end_as(main(sys.argv))
