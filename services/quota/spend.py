"""What was spent and what is held, folded from the log: by counter, which is scope, unit and window.

Pure: fed with the records of INVOCATIONS, asked for totals. The counters in the server are a cache of it, the panel shows
it, and the breaker decides by it; so what is enforced, what is shown and what can be rebuilt are one number.

A claim's hold counts on the counters that it names, from the claim to the event that ends the claim. What was then used
counts in the windows of the claim's time, on every scope that covers the role, whether a cap is there or not: a cap that is
set at noon knows of the morning. An event that ends no open claim counts nothing, so what comes twice or late counts once.

It remembers the claims in flight, the windows that are not over, and the :data:`TREES` run trees that spent last.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import msgspec

from bus.events import invocation as ev
from bus.store import Recorded
from bus.subjects import parse_event

#: Counters of run trees that are remembered; the ones that have not moved for the longest go first.
TREES = 50_000
#: Minutes over which the burn rate is taken.
BURN_MINUTES = 10
#: Scope tokens of run trees begin so, and their one window has this id.
TREE, ALWAYS = "tree_", "all"

#: Window ids at a time, one for each kind; a kind's ids sort by time.
Windows = Callable[[datetime], tuple[str, ...]]
#: Millionths of a US dollar that a use costs at present prices: for claims that were not held.
Price = Callable[[ev.Usage], int]


class Total(msgspec.Struct):
    """One counter. Tokens, or millionths of a US dollar."""

    #: Used by what has ended.
    settled: int = 0
    #: Reserved by what has not.
    held: int = 0
    #: The part of `settled` that nobody measured: holds of holders that died.
    assumed: int = 0

    @property
    def total(self) -> int:
        """What the counter in the server says above its base."""
        return self.settled + self.held


class Claim(msgspec.Struct, frozen=True):
    """A claim in flight."""

    at: datetime
    project: str
    role: str
    root: str
    hold: ev.Hold | None = None


def scopes(project: str, role: str) -> tuple[str, str, str]:
    """Tokens of the scopes that cover a role, but for its run tree; the smallest first."""
    return f"{project}_{role}", project, "system"


class Spend:
    """The fold."""

    def __init__(self, windows: Windows, price: Price = lambda _usage: 0, *, forget: bool = True) -> None:
        self._windows = windows
        self._price = price
        #: False keeps the windows that are over: for a look at history.
        self._forget = forget
        #: Sequence of the last record folded.
        self.position = 0
        #: By counter key: ``<scope>.<unit>.<window id>``.
        self.totals: dict[str, Total] = {}
        self.trees: dict[str, Total] = {}
        #: By invocation id.
        self.claims: dict[str, Claim] = {}
        #: Keys that moved since somebody last looked and cleared it.
        self.moved: set[str] = set()
        #: By ``<scope>.<unit>``: minute since the epoch -> settled in it.
        self.minutes: dict[str, dict[int, int]] = {}
        self._now: tuple[str, ...] = ()

    def get(self, key: str) -> Total:
        """A counter; zeros for one that nothing was counted on."""
        return self.totals.get(key) or self.trees.get(key) or Total()

    def burn(self, scope: str, unit: str, now: datetime) -> float:
        """What a scope has settled in the last minutes, per minute."""
        first = int(now.timestamp()) // 60 - BURN_MINUTES
        minutes = self.minutes.get(f"{scope}.{unit}", {})
        return sum(amount for minute, amount in minutes.items() if minute > first) / BURN_MINUTES

    def take(self, record: Recorded) -> None:
        """Fold one record; rubbish counts nothing."""
        self.position = record.seq
        match record.data:
            case ev.Claimed() as claimed:
                self._claim(record, claimed)
            case ev.Completed() | ev.Failed() as end:
                self._end(record, end.settled, end.usage)
            case ev.Swept() | ev.Released() | ev.Cancelled() | ev.DeadLettered() as end:
                self._end(record, end.settled, None)
            case _:
                pass

    def _claim(self, record: Recorded, claimed: ev.Claimed) -> None:
        assert record.event is not None
        ref, _ = parse_event(record.subject)
        # A claim over a claim has no settlement in between: what the first one had is lost, and so counts.
        self._end(record, None, None)
        root = record.event.correlationid or ref.id
        self.claims[ref.id] = Claim(record.stored_at, ref.project, ref.role, root, claimed.hold)
        if claimed.hold is not None:
            self._hold(claimed.hold, 1)
        self._roll(record.stored_at)

    def _hold(self, hold: ev.Hold, sign: int) -> None:
        for key in hold.keys:
            self._at(key).held += sign * _amount(key, hold.tokens, hold.usd_micros)

    def _end(self, record: Recorded, settled: ev.Settlement | None, usage: ev.Usage | None) -> None:
        ref, _ = parse_event(record.subject)
        claim = self.claims.pop(ref.id, None)
        if claim is None:
            return
        hold = claim.hold
        if hold is not None:
            self._hold(hold, -1)
        tokens = usd = 0
        assumed = False
        if settled is not None:
            tokens, usd, assumed = settled.tokens, settled.usd_micros, settled.assumed
        elif usage is not None:
            tokens, usd = usage.input_tokens + usage.output_tokens, self._price(usage)
        elif hold is not None:
            tokens, usd, assumed = hold.tokens, hold.usd_micros, True
        self._settle(claim, max(0, tokens), max(0, usd), record.stored_at, assumed=assumed)
        self._roll(record.stored_at)

    def _settle(self, claim: Claim, tokens: int, usd: int, at: datetime, *, assumed: bool) -> None:
        windows = self._windows(claim.at)
        named = dict.fromkeys(key.rpartition(".")[2] for key in claim.hold.keys) if claim.hold is not None else ()
        # The holder's clock may have been on the other side of an edge: the windows that it reserved in are the claim's.
        kinds = {_kind(window): window for window in windows} | {_kind(window): window for window in named}
        kinds.pop(ALWAYS, None)
        minute = int(at.timestamp()) // 60
        for unit, amount in (("tokens", tokens), ("usd", usd)):
            if not amount:
                continue
            for scope in scopes(claim.project, claim.role):
                for window in kinds.values():
                    self._add(f"{scope}.{unit}.{window}", amount, assumed=assumed)
                minutes = self.minutes.setdefault(f"{scope}.{unit}", {})
                minutes[minute] = minutes.get(minute, 0) + amount
                if len(minutes) > 2 * BURN_MINUTES:
                    for old in sorted(minutes)[:-BURN_MINUTES]:
                        del minutes[old]
            self._add(f"{TREE}{claim.root}.{unit}.{ALWAYS}", amount, assumed=assumed)

    def _add(self, key: str, amount: int, *, assumed: bool) -> None:
        total = self._at(key)
        total.settled += amount
        if assumed:
            total.assumed += amount

    def _at(self, key: str) -> Total:
        """A counter that is about to move."""
        self.moved.add(key)
        if not key.startswith(TREE):
            return self.totals.setdefault(key, Total())
        total = self.trees.pop(key, None) or Total()
        self.trees[key] = total
        if len(self.trees) > TREES:
            for old, idle in list(self.trees.items())[: TREES // 10]:
                if not idle.held:
                    del self.trees[old]
        return total

    def _roll(self, at: datetime) -> None:
        """Forget the windows that were over before the last ones, once nothing is held on them.

        The last ones stay: the clock of whoever asks may be behind the server's.
        """
        windows = self._windows(at)
        if windows == self._now or not self._forget:
            return
        last, self._now = self._now or windows, windows
        present = {_kind(window): window for window in min(last, windows)}
        for key, total in list(self.totals.items()):
            window = key.rpartition(".")[2]
            if not total.held and window < present.get(_kind(window), ""):
                del self.totals[key]


def _kind(window: str) -> str:
    return window.partition("_")[0]


def _amount(key: str, tokens: int, usd_micros: int) -> int:
    return max(0, tokens if ".tokens." in key else usd_micros)
