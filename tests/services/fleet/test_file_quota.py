"""Caps, prices and loop limits in the fleet file, and what is said about their faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.fleet.file import FleetFileError, load
from services.fleet.spec import Cap, LoopLimits, Price, Unit, Window

TRACE = '[projects.shop.roles.coder]\nhandler = { kind = "trace" }\n'
FUNCTION = '[projects.shop.roles.a]\nhandler = { kind = "function", target = "h:f" }\n'
LLM = '[projects.shop.roles.a]\nhandler = { kind = "llm", model = "gpt-x" }\n'


def write(folder: Path, text: str) -> Path:
    """A fleet file with this content."""
    path = folder / "fleet.toml"
    path.write_text(text)
    return path


def test_file_holds_caps_prices_and_loop_limits(tmp_path: Path) -> None:
    """All of it arrives as data; a model may have any name."""
    text = """
[quota]
time_zone = "Europe/Paris"
caps = [{ cap = 100, unit = "usd", window = "month" }]
[quota.prices]
"gpt-4o-mini" = { input = 0.15, output = 0.60 }
"vendor/Model:v1.5" = { input = 0, output = 1 }
[loop]
depth = 3
[projects.shop]
caps = [{ cap = 5_000_000, window = "day" }, { cap = 1_000, window = "tree" }]
"""
    fleet = load(write(tmp_path, text)).fleet
    assert fleet.quota.caps == (Cap(cap=100, unit=Unit.USD, window=Window.MONTH),)
    assert fleet.quota.prices["vendor/Model:v1.5"] == Price(input=0, output=1)
    assert fleet.loop == LoopLimits(depth=3)
    assert [cap.window for cap in fleet.projects["shop"].caps] == [Window.DAY, Window.TREE]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            '[quota]\ncaps = [{ cap = -1, window = "day" }]',
            "2: quota.caps[0].cap: expected a number of at least 0.0, got: -1",
        ),
        (
            '[quota]\ncaps = [{ cap = "2M", window = "day" }]',
            "expected a number, got: '2M'; write it out, as 2_000_000",
        ),
        ('[quota]\ncaps = [{ cap = 2.5, window = "day" }]', "whole tokens, got: 2.5; for US dollars add unit = 'usd'"),
        ('[quota]\ncaps = [{ cap = 1, window = "dy" }]', "unknown window 'dy', did you mean 'day'?"),
        ('[quota]\ncaps = [{ cap = 1, window = "day", unit = "eur" }]', "unknown unit 'eur'"),
        ("[quota]\ncaps = [{ cap = 1 }]", "expected the key 'window', got none"),
        ("[quota]\ncaps = 5", "expected an array of caps, as [{ cap = 2_000_000, window = 'day' }], got: 5"),
        (
            '[projects.shop]\ncaps = [{ cap = 1, window = "day" },\n{ cap = 2, window = "day" }]',
            "3: projects.shop.caps[1]: expected one cap on tokens for each window, got a second one for 'day'",
        ),
        ('[quota]\ntime_zone = "Mars/Base"', "2: quota.time_zone: unknown time zone 'Mars/Base'"),
        ("[quota.prices.m]\ninput = -1\noutput = 1", "expected a number of at least 0.0, got: -1; it is US dollars"),
        ("[quota.prices.m]\ninput = 1", "expected the key 'output', got none"),
        ("[loop]\ndeepth = 3", "unknown key 'deepth', did you mean 'depth'?"),
        (FUNCTION + 'caps = [{ cap = 9, window = "day" }]', "1: projects.shop.roles.a: a token cap covers shop/a"),
        (FUNCTION + '[quota]\ncaps = [{ cap = 9, unit = "usd", window = "day" }]', "set max_usd in the role's table"),
        (LLM + '[quota]\ncaps = [{ cap = 9, unit = "usd", window = "day" }]', "its model 'gpt-x' has no price"),
        ('[projects.system]\nowners = ["ann"]', "expected a project name other than system and tree"),
    ],
)
def test_file_with_a_fault_of_its_caps_is_one_sentence(tmp_path: Path, text: str, fault: str) -> None:
    """Each fault names its place, what came and the remedy."""
    with pytest.raises(FleetFileError) as caught:
        load(write(tmp_path, text))
    assert len(caught.value.problems) == 1
    assert fault in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        TRACE + 'caps = [{ cap = 9, window = "day" }]',
        FUNCTION + 'max_tokens = 5\ncaps = [{ cap = 9, window = "day" }]',
        LLM + 'caps = [{ cap = 9, window = "day" }]',
        LLM + 'max_usd = 0.5\ncaps = [{ cap = 9, unit = "usd", window = "day" }]',
    ],
)
def test_file_takes_caps_over_roles_that_can_be_counted(tmp_path: Path, text: str) -> None:
    """Declared, or told by the handler, is enough."""
    assert load(write(tmp_path, text)).fleet.projects["shop"] is not None
