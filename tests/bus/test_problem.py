"""A refusal as an HTTP answer, and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus import problem
from bus.refusal import Reason, Refusal

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
MOMENTS = st.none() | st.datetimes(datetime(2020, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 (hypothesis wants bounds without a zone)
REFUSALS = st.builds(
    Refusal,
    reason=st.sampled_from(Reason),
    scope=st.text(max_size=20),
    because=st.text(max_size=50),
    since=MOMENTS,
    until=MOMENTS,
    clears=st.text(max_size=20),
    command=st.text(max_size=20),
    allowed=st.text(max_size=20),
)


@given(REFUSALS)
def test_every_refusal_comes_back_as_it_was(refusal: Refusal) -> None:
    """What one side writes the other reads, field by field, and the usual fields of problem details are there as well."""
    body = problem.body(refusal)
    assert problem.read("Application/Problem+JSON; charset=utf-8", body) == refusal
    fields = msgspec.json.decode(body)
    assert fields["type"] == f"urn:systems:refusal:{refusal.reason}"
    assert fields["detail"] == refusal.sentence
    assert fields["status"] == problem.status(refusal)


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        ("application/json", problem.body(Refusal(reason=Reason.FROZEN, scope="system"))),
        (problem.MEDIA_TYPE, b'{"type": "about:blank", "reason": "frozen", "scope": "system"}'),
        (problem.MEDIA_TYPE, b'{"type": "urn:systems:refusal:bored", "reason": "bored", "scope": "system"}'),
        (problem.MEDIA_TYPE, b"not JSON"),
        (problem.MEDIA_TYPE, b"\xff"),
        ("", b""),
    ],
)
def test_other_answers_are_no_refusal(media_type: str, body: bytes) -> None:
    """Only our own type of problem, with a reason that exists, is a refusal of ours."""
    assert problem.read(media_type, body) is None


def test_headers_name_the_end_where_one_is_known() -> None:
    """Retry-After is the whole seconds until the refusal ends, rounded up, and is left out where nobody knows."""
    capped = Refusal(reason=Reason.CAPPED, scope="shop", until=NOW + timedelta(seconds=1.5))
    assert problem.headers(capped, NOW)["Retry-After"] == "2"
    assert problem.headers(capped, NOW + timedelta(hours=1))["Retry-After"] == "0"
    assert "Retry-After" not in problem.headers(Refusal(reason=Reason.FROZEN, scope="system"), NOW)
