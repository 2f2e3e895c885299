"""``systems prompts``: the texts that roles share, and their revisions."""

from __future__ import annotations

from cyclopts import App

from bus import errors
from services.cli import output, revisions
from services.cli.common import DEFAULTS, Common
from services.cli.exits import Exit
from services.cli.session import Session, operator
from services.fleet.entries import prompt_key

app = App(
    name="prompts",
    help="Show the prompts, and bring one back to an earlier revision.",
    help_format="plaintext",
)


@app.default
async def prompts(name: str = "", /, *, common: Common = DEFAULTS) -> int:
    """List the prompts, or print the text of one.

    Args:
        name: A prompt; all of them if left out.
        common: Which fleet, and how to print.
    """
    async with operator(common) as session:
        registry = await session.registry()
    users: dict[str, list[str]] = {}
    for one in registry.roles.values():
        if one.role.prompt:
            users.setdefault(one.role.prompt, []).append(one.path)
    if name:
        found = registry.prompts.get(name)
        if found is None:
            raise errors.UnknownName("prompt", name, registry.prompts)
        if common.json:
            output.json({"prompt": name, "roles": users.get(name, []), "registered": found})
        else:
            print(found.text)
        return Exit.DONE
    if common.json:
        output.json({"prompts": registry.prompts})
        return Exit.DONE
    output.table(
        ["prompt", "revision", "bytes", "digest", "roles"],
        [
            [
                key,
                str(one.revision),
                f"{len(one.text.encode()):,}",
                one.digest[:20],
                ", ".join(users.get(key, [])) or "none",
            ]
            for key, one in sorted(registry.prompts.items())
        ],
        right=["revision", "bytes"],
    )
    return Exit.DONE


@app.command(name="history")
async def history_(name: str, /, *, common: Common = DEFAULTS) -> int:
    """Show who changed a prompt and why, the newest first.

    Args:
        name: The prompt.
        common: Which fleet, and how to print.
    """
    async with operator(common) as session:
        return await revisions.show_history(session, await _key(session, name), common)


@app.command
async def diff(name: str, first: str = "", second: str = "", /, *, common: Common = DEFAULTS) -> int:
    """Show what differs between two revisions of a prompt, line by line. Exit status 1 for a difference.

    Args:
        name: The prompt.
        first: A revision; the last but one if left out.
        second: Another revision; the last if left out.
        common: Which fleet, and how to print.
    """
    async with operator(common) as session:
        return await revisions.show_diff(session, await _key(session, name), first, second, common)


@app.command
async def rollback(name: str, /, *, to: int, reason: str, common: Common = DEFAULTS) -> int:
    """Bring a prompt back to what it was at a revision. That makes a new revision; what runs finishes as it began.

    Args:
        name: The prompt.
        to: The revision.
        reason: Why; it goes into the record, with your name.
        common: Which fleet, and how to print.
    """
    async with operator(common) as session:
        return await revisions.roll_back(session, await _key(session, name), to, reason, 0, common)


async def _key(session: Session, name: str) -> str:
    """The registry key of a prompt that is there, or that was."""
    registry = await session.registry()
    if name not in registry.prompts and not await session.bus.bucket("registry").history(prompt_key(name)):
        raise errors.UnknownName("prompt", name, registry.prompts)
    return prompt_key(name)
