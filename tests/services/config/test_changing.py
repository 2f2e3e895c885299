"""Changes of the settings on a real server: whole, fenced, recorded, and brought back."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from bus import errors
from services.config import changing, history, tables
from services.config.changing import ChangeSettings, Present
from services.ops.performing import ActionRefused, perform
from tests.services.rig import Rig


async def echo(input: Any) -> Any:
    """A handler that gives back what it gets."""
    return input


async def change(rig: Rig, seen: Present, **settings: Any) -> int:
    """Put settings over what was seen: the revision."""
    wanted = copy.deepcopy(seen.tables)
    for path, value in settings.items():
        tables.put(wanted, tables.path(path.replace("__", ".")), value)
    action = ChangeSettings(rig.bus, "config", changing.prepare(seen, wanted), "ann", "a test")
    await perform(rig.bus, action, who="ann", why="a test")
    return (await changing.read(rig.bus)).revision


async def test_change_over_settings_that_have_changed_is_refused(rig: Rig) -> None:
    """Whoever prepared a change before somebody else put a key is refused by revision, and nothing of it is written."""
    await rig.role("shop/coder", echo)
    seen = await changing.read(rig.bus)
    await rig.bucket("registry").put("prompts.rules", b"be brief")
    with pytest.raises(
        ActionRefused, match=f"expected the settings to be at revision {seen.revision}, got: {seen.revision + 1}"
    ):
        await change(rig, seen, reload__watch=True)
    edit = changing.prepare(seen, {**seen.tables, "reload": {"watch": True}})
    with pytest.raises(errors.Conflict, match="somebody has changed them since"):
        await changing.write(rig.bus, edit, {})
    now = await changing.read(rig.bus)
    assert now.revision == seen.revision + 1
    assert "reload" not in now.tables


async def test_change_of_what_is_needed_before_the_bus_is_refused(rig: Rig) -> None:
    """The server's port is read before there is a bus: a change of it is refused with what to do."""
    seen = await changing.read(rig.bus)
    with pytest.raises(ActionRefused, match=r"got: server\.port.*change it in the fleet file"):
        await change(rig, seen, server__port=4222)


async def test_history_knows_who_put_what_and_how_it_stood(rig: Rig) -> None:
    """Changes by command and by hand are in the history with their fields; the settings of any revision can be made again."""
    await rig.warden()
    await rig.role("shop/coder", echo)
    first = await change(rig, await changing.read(rig.bus), projects__shop__roles__coder__concurrency=9)
    text = b'"quoted"\n'
    await rig.bucket("registry").put("prompts.rules", text)
    second = await change(rig, await changing.read(rig.bus), projects__shop__roles__coder__timeout=60.0)
    bad = await rig.bucket("registry").put("roles.shop.coder", b"{}")
    await rig.control.subject(lambda r: r.subject == "ctl.registry.roles_shop_coder.refused")
    known = await history.revisions(rig.bus)
    steps = {step.revision: step for step in history.steps(known)}
    (fields,) = (step.changes for step in steps.values() if step.revision == second)
    assert [(c.field, c.before, c.after) for c in fields] == [("projects.shop.roles.coder.timeout", "null", "60.0")]
    assert (steps[second].who, steps[second].why, bool(steps[second].operation)) == ("ann", "a test", True)
    assert steps[second - 1].who == ""
    assert "expected the key 'handler'" in steps[bad].refused
    assert history.value_of(known, "prompts.rules", second) == text
    then = history.tables_at(known, first)
    assert "prompts" not in then
    assert then["projects"]["shop"]["roles"]["coder"]["concurrency"] == 9
    assert history.tables_at(known, bad) == (await changing.read(rig.bus)).tables
    with pytest.raises(errors.UnknownName, match="unknown revision '0'"):
        history.tables_at(known, 0)
