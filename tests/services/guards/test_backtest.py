"""History run through the guards with other limits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bus.author import Author
from bus.errors import UnknownName
from bus.events import invocation as ev
from bus.spend import Calendar
from bus.store import Recorded
from bus.subjects import Ref
from services.fleet.spec import LoopLimits
from services.guards.backtest import Backtest, Wanted
from services.guards.settings import BadSetting, amount, parse

T0 = datetime(2026, 1, 31, 12, tzinfo=UTC)
AUTHOR = Author("/test", actor="tester")


def record(seq: int, id_: str, data: Any, *, root: str = "", at: datetime = T0) -> Recorded:
    """An event as it lies in the log."""
    ref = Ref("shop", "coder", id_)
    event = AUTHOR.invocation(ref, data, root=root or id_)
    return Recorded(seq, event.subject, at + timedelta(seconds=seq), event, data)


def work(id_: str, tokens: int, seq: int) -> list[Recorded]:
    """An invocation that was done."""
    usage = ev.Usage(input_tokens=tokens)
    return [
        record(seq, id_, ev.Requested(root=id_)),
        record(seq + 1, id_, ev.Claimed(holder="h", runner="r", delivery=1, attempt=1, reply="x")),
        record(seq + 2, id_, ev.Completed(holder="h", delivery=1, usage=usage)),
    ]


def run(wanted: Wanted, records: list[Recorded]) -> Backtest:
    """A backtest over the records."""
    test = Backtest(wanted, Calendar(), lambda usage: usage.input_tokens)
    for one in records:
        test.take(one)
    return test


def test_lower_cap_lists_what_it_would_have_saved_and_stopped() -> None:
    """With a cap of 25 over three times ten tokens the third is refused: ten saved, one honest invocation stopped."""
    history = [r for n in range(3) for r in work(f"i{n}", 10, 3 * n + 1)]
    (trial,) = run(Wanted(caps={("shop_coder", "tokens", "day"): 25}), history).trials
    assert (trial.guard, trial.scope, trial.saved_tokens, trial.stopped) == ("quota breaker", "shop/coder", 10, 1)
    assert [(done.id, done.role, done.tokens) for done in trial.work] == [("i2", "shop/coder", 10)]
    assert not run(Wanted(caps={("shop_coder", "tokens", "day"): 30}), history).trials


def test_next_window_begins_at_nothing() -> None:
    """What was refused yesterday is allowed today."""
    history = work("a", 20, 1) + [
        Recorded(r.seq, r.subject, r.stored_at + timedelta(days=1), r.event, r.data) for r in work("b", 20, 10)
    ]
    assert not run(Wanted(caps={("shop", "tokens", "day"): 20}), history).trials


def test_run_trees_are_capped_each_by_itself() -> None:
    """A cap over run trees trips the tree that passes it, and not another one that used as much together with it."""
    done = ev.Completed(holder="h", delivery=1, usage=ev.Usage(input_tokens=20))
    one = [*work("a", 20, 1), record(4, "a2", done, root="a")]
    (trial,) = run(Wanted(caps={("shop", "tokens", "tree"): 30}), [*one, *work("b", 20, 10)]).trials
    assert trial.key == "tree_a.tokens.all"
    assert [done.id for done in trial.work] == ["a2"]


def test_what_was_assumed_of_the_dead_counts_in_a_backtest() -> None:
    """A claim whose holder died cost its whole reservation then, and does so with other limits."""
    hold = ev.Hold(id="h", tokens=40)
    settled = ev.Settlement(hold=hold, tokens=40, assumed=True)
    swept = ev.Swept(holder="h", delivery=1, age_s=1, reason=ev.SweepReason.HOLDER_GONE, settled=settled)
    (trial,) = run(Wanted(caps={("shop", "tokens", "day"): 45}), [record(1, "d", swept), *work("i", 10, 2)]).trials
    assert "40 tokens of 45 tokens are used" in trial.why
    assert trial.stopped == 1


def test_fewer_attempts_would_have_given_up_on_work_that_succeeded() -> None:
    """An invocation that was done at its third attempt is honest work that a limit of two would have stopped."""
    error = ev.Error(kind="x", message="x", fingerprint="x")
    failed = [record(n, "i", ev.Failed(holder="h", delivery=n, attempt=n, error=error)) for n in (1, 2)]
    history = [*failed, record(3, "i", ev.Completed(holder="h", delivery=3))]
    (trial,) = run(Wanted(max_attempts={"shop/coder": 2}), history).trials
    assert (trial.guard, trial.stopped) == ("poison-message breaker", 1)


def test_lower_depth_stops_a_deep_tree() -> None:
    """A chain of five is stopped by a depth of two, and what was spent below counts as saved."""
    history: list[Recorded] = []
    for n in range(5):
        request = ev.Requested(root="r0", parent=f"r{n - 1}" if n else "", depth=n)
        history.append(record(len(history) + 1, f"r{n}", request, root="r0"))
    done = ev.Completed(holder="h", delivery=1, usage=ev.Usage(input_tokens=7))
    history += [record(10 + n, f"r{n}", done, root="r0") for n in range(5)]
    (trial,) = run(Wanted(loop=LoopLimits(depth=2)), history).trials
    assert trial.guard == "loop breaker"
    assert trial.saved_tokens == 35


@pytest.mark.parametrize(
    ("setting", "error", "said"),
    [
        ("shop/codr.cap=2M", UnknownName, "did you mean 'shop/coder'"),
        ("shop/coder.cap", BadSetting, "expected SCOPE.LIMIT=NUMBER"),
        ("shop/coder.cap=much", BadSetting, "expected SCOPE.LIMIT=NUMBER"),
        ("shop/coder.cap.dya=2", BadSetting, "did you mean 'day'"),
        ("loop.dept=2", BadSetting, "did you mean 'depth'"),
        ("shop.max_attempts=2", BadSetting, "unknown limit"),
    ],
)
def test_setting_that_is_none_says_what_was_expected(setting: str, error: type[Exception], said: str) -> None:
    """An unknown scope, limit, window or number is named, with what it might have been."""
    with pytest.raises(error, match=said.replace("(", r"\(")):
        parse([setting], Wanted(), ["shop/coder"], ["shop"])


def test_settings_go_over_the_present_limits() -> None:
    """What is set replaces its limit and nothing else."""
    base = Wanted(caps={("shop", "tokens", "day"): 5}, loop=LoopLimits())
    wanted = parse(
        ["shop/coder.cap.usd.month=2.50", "loop.depth=3", "shop/coder.max_crashes=1"], base, ["shop/coder"], ["shop"]
    )
    assert wanted.caps == {("shop", "tokens", "day"): 5, ("shop_coder", "usd", "month"): 2_500_000}
    assert wanted.loop is not None
    assert wanted.loop.depth == 3
    assert wanted.max_crashes == {"shop/coder": 1}
    assert amount("2M") == 2_000_000
