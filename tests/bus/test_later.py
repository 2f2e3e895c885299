"""What is imported later: the driver's websockets."""

from __future__ import annotations

import subprocess
import sys


def _said(script: str) -> str:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout


def test_bus_does_not_run_aiohttp() -> None:
    """The driver is imported without running aiohttp, which only websockets need."""
    assert _said("import sys, bus.driver; print('aiohttp.client' in sys.modules)") == "False\n"


def test_aiohttp_is_whole_when_it_is_used() -> None:
    """Whoever uses aiohttp afterwards has all of it, by any way of importing it, and the driver still knows it."""
    script = (
        "import bus.driver\nimport aiohttp\nfrom aiohttp import web, ClientSession\nimport aiohttp.client\n"
        "from nats.aio import transport\n"
        "print(ClientSession.__name__, aiohttp.client.ClientSession is ClientSession, transport.aiohttp is aiohttp, web.__name__)"
    )
    assert _said(script) == "ClientSession True True aiohttp.web\n"


def test_absent_package_stays_absent() -> None:
    """A package that is to be imported later and is not installed is an ImportError, as ever."""
    script = (
        "from bus import later\nlater.LATER = frozenset({'no_such_package'})\n"
        "try:\n    import no_such_package\nexcept ImportError as exc:\n    print(exc)"
    )
    assert _said(script) == "No module named 'no_such_package'\n"
