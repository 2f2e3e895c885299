"""The home tab and the panel in blocks: within the limits on any day, and with the buttons of whoever looks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from bus import flags
from services.freezes import Freeze
from services.guards.proofs import GuardLine
from services.health.daemons import DaemonLine, State
from services.health.panel import ErrorLine, Panel, RoleLine, Verdict
from services.monitor.status import Open, Status
from services.ops.deciding import Proposal
from services.quota.lines import QuotaLine
from services.slack.desk import home, panel
from services.slack.desk.permission import Permission, Who
from tests.services.slack.desk.test_forms import incident
from tests.slack import limits
from tests.slack.fake import spoken

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
_WILD = st.text(st.sampled_from("ab <!channel>&`*\n\u00e9"), max_size=400)


def day(text: str, count: int) -> Panel:
    """A bad day: so many of everything, with this text wherever somebody else writes."""
    return Panel(
        at=NOW,
        verdict=Verdict.ULTRA,
        reasons=(text,) * count,
        daemons=(DaemonLine(name="warden", state=State.DOWN, daemon="warden", note=text),) * count,
        roles=(RoleLine(role="shop/coder", backlog=5),) * count,
        dead_letters=count,
        oldest_in_flight_s=3.0,
        oldest_in_flight="id",
        last_errors=(ErrorLine(at=NOW, role="shop/coder", invocation="i", kind="E", message=text),) * min(count, 5),
        kill_switch=Freeze(mode=flags.Mode.SOFT, reason=text),
        guards=(GuardLine(name="kill switch", armed=True),),
        quota=(
            QuotaLine(
                key="k", scope="shop", unit="tokens", window="day", used=9, held=0, assumed=0, cap=9, percent=100, burn=1,
                tripped=True, problem=text,
            ),
        ) * count,
        monitor=Status(
            last=None,
            next_at=None,
            findings=(Open(fingerprint="f", kind="raised", severity="ultra", title=text, subject="s", since=NOW),) * count,
        ),
    )  # fmt: skip


def facts(text: str = "x", count: int = 3) -> home.Facts:
    """What a tab shows on such a day."""
    meant = Proposal(fingerprint="f1", invocation="i1", place=0)
    return home.Facts(
        panel=day(text, count), incidents=(incident(text or "x"),) * count, proposals=((meant, text),) * count
    )


def presses(view: dict[str, Any]) -> set[str]:
    """The actions of all buttons."""
    found = set()
    for block in view["blocks"]:
        for element in block.get("elements", [block.get("accessory") or {}]):
            found.add(element.get("action_id", "").partition(":")[0])
    return found - {""}


@given(_WILD, st.integers(0, 60))
def test_any_day_is_a_tab_and_a_message(text: str, count: int) -> None:
    """However much is wrong, and whatever agents have written, Slack takes it and nothing is a mention."""
    view = home.view(facts(text, count), lambda _: True)
    assert not limits.view(view)
    assert not limits.message({"text": "x", "blocks": panel.status(day(text, count)).whole})
    assert "<!channel>" not in spoken(view)


def test_a_tab_has_the_buttons_of_its_viewer() -> None:
    """Who may only look sees everything and can press nothing that acts."""
    looks = presses(home.view(facts(), lambda needs: needs is Permission.VIEW))
    assert looks == {"home_refresh", "sweep", "chart"}
    acts = presses(home.view(facts(), lambda _: True))
    assert acts >= {
        "thaw",
        "incident_acknowledge",
        "incident_close",
        "proposal_approve",
        "proposal_reject",
        "cap_raise",
    }


def test_a_tab_is_shown_again_for_news_and_not_for_ages() -> None:
    """A second later nothing that people look for has changed; a dead letter more is news."""
    now = facts()
    later = msgspec.structs.replace(now, panel=msgspec.structs.replace(now.panel, at=NOW + timedelta(seconds=1)))
    more = msgspec.structs.replace(now, panel=msgspec.structs.replace(now.panel, dead_letters=9))
    assert home.mark(now) == home.mark(later)
    assert home.mark(now) != home.mark(more)


def test_the_tab_of_somebody_who_may_not_look_says_what_would_change_it() -> None:
    """Nothing of the fleet is in it."""
    view = home.refused(Who(id="U1", name="<!here>"))
    assert not limits.view(view)
    assert "slack:U1 (&lt;!here&gt;) is refused" in spoken(view)
    assert 'add "U1" to view' in spoken(view)
