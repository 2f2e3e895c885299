"""TCP ports of this machine: a free one, and who holds a taken one.

A port that was free may be taken a moment later: whoever binds it next must still expect a refusal.
"""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

from bus import errors

#: State of a listening socket in /proc/net/tcp.
_LISTENING = "0A"


class PortTaken(errors.Conflict):
    """Somebody else listens there."""

    def __init__(self, port: int, holder: str) -> None:
        self.port, self.holder = port, holder
        super().__init__(
            f"expected port {port} of 127.0.0.1 to be free, got: it is taken by {holder or 'another process'}; "
            "stop that process, or choose another port (port 0 picks a free one)"
        )


def free(port: int = 0) -> int:
    """A port of 127.0.0.1 that nobody listens on: `port`, or any for 0.

    Raises:
        PortTaken: `port` is not free.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Connections that ended a minute ago still hold the port, and a server may listen on it in spite of them.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError as exc:
            raise PortTaken(port, holder(port)) from exc
        return int(probe.getsockname()[1])


def holder(port: int) -> str:
    """Who listens on `port`, as ``name (pid N)``; empty where it cannot be found out (not Linux, another user's)."""
    inodes = _inodes(port)
    if not inodes:
        return ""
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            # A process may end while it is looked at, and those of other users are closed to us.
            with contextlib.suppress(OSError):
                if any(str(link.readlink()) in inodes for link in (process / "fd").iterdir()):
                    return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
    return ""


def _inodes(port: int) -> set[str]:
    """Sockets that listen on `port`, as the links in /proc/PID/fd name them."""
    found = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        with contextlib.suppress(OSError):  # no Linux, or no IPv6
            for line in table.read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    found.add(f"socket:[{fields[9]}]")
    return found
