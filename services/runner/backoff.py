"""How long a retry waits."""

from __future__ import annotations

from services.fleet.spec import Backoff


def delay(backoff: Backoff, failures: int, chance: float) -> float:
    """Seconds before the next try.

    Exponential with jitter: of ``min(cap, base * factor**(failures-1))`` the last `jitter` part is random, so that work
    that failed together does not come back together
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).

    Args:
        backoff: the role's settings.
        failures: errors so far, from 1.
        chance: a random number in [0, 1).
    """
    # The exponent is bounded so that a huge count cannot overflow a float.
    full = min(backoff.cap, backoff.base * backoff.factor ** min(failures - 1, 64))
    return full * (1 - backoff.jitter * chance)
