"""``systems decide`` and ``systems decisions``: why the bus and the fleet are as they are, recorded and exported."""

from __future__ import annotations

from pathlib import Path

from bus.events.decision import Recorded
from services import decisions as kept
from services.cli import output
from services.cli.common import DEFAULTS, Common
from services.cli.exits import Exit, UsageError
from services.cli.session import operator


async def decide(
    title: str,
    /,
    *,
    context: str,
    decision: str,
    consequences: str,
    supersedes: int = 0,
    common: Common = DEFAULTS,
) -> int:
    """Record a decision: its number is what plan, apply and changes of policy ask for.

    Args:
        title: The decision in one line.
        context: What the matter is.
        decision: What is decided.
        consequences: What follows from it.
        supersedes: Number of the decision that it takes the place of.
        common: Which fleet, and how to print.
    """
    texts = {"TITLE": title, "--context": context, "--decision": decision, "--consequences": consequences}
    for name, text in texts.items():
        if not text.strip():
            raise UsageError(f"expected {name} to say something, got: {text!r}")
    if "\n" in title:
        raise UsageError(f"expected TITLE to be one line, got: {title!r}")
    async with operator(common) as session:
        recorded = await kept.record(
            session.bus,
            Recorded(
                number=0,
                title=title.strip(),
                by=session.actor,
                context=context,
                decision=decision,
                consequences=consequences,
                supersedes=supersedes,
            ),
        )
    if common.json:
        output.json(recorded)
    else:
        print(f"decision {recorded.number}: {recorded.title}")
    return Exit.DONE


async def decisions(*, export: Path | None = None, common: Common = DEFAULTS) -> int:
    """List the decisions, or write each as an ADR in Markdown.

    Args:
        export: Folder for the files, made if need be; files of the same names are replaced.
        common: Which fleet, and how to print.
    """
    async with operator(common) as session:
        found = [one for _, one in sorted((await kept.all_of(session.bus)).items())]
    if export is not None:
        files = []
        export.mkdir(parents=True, exist_ok=True)
        for one in found:
            file = export / kept.file_name(one.recorded)
            file.write_text(kept.markdown(one))
            files.append(str(file))
        if common.json:
            output.json({"files": files})
        else:
            print("\n".join(files) if files else "no decision was recorded yet")
        return Exit.DONE
    if common.json:
        output.json({"decisions": found})
        return Exit.DONE
    if not found:
        print("no decision was recorded yet: systems decide")
        return Exit.DONE
    output.table(
        ["number", "date", "by", "decision", "status"],
        [
            [
                str(one.recorded.number),
                f"{one.at:%Y-%m-%d}",
                one.recorded.by,
                one.recorded.title,
                f"superseded by {one.superseded_by}" if one.superseded_by else "accepted",
            ]
            for one in found
        ],
        right=["number"],
    )
    return Exit.DONE
