"""What a command answers: text for a notification, blocks, and what does not fit as a file. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from services.slack.desk import blocks as kit
from services.slack.desk.blocks import Block
from services.slack.markup import cut, escaped

#: Characters of the text that stands for the blocks in a notification.
_NOTE = 300


class File(msgspec.Struct, frozen=True, kw_only=True):
    """A file that comes with an answer."""

    name: str
    title: str
    content: bytes


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a person gets."""

    #: What notifications and screen readers say.
    text: str
    blocks: list[Block] = []
    file: File | None = None
    #: Everybody in the channel sees it: something was done.
    public: bool = False
    #: It is no refusal.
    ok: bool = True

    @property
    def whole(self) -> list[Block]:
        """The blocks as a message takes them; the text alone makes one."""
        made = self.blocks or [kit.section(escaped(self.text))]
        return kit.message(made, "the rest is in the file" if self.file is not None else "")


def said(sentence: str, *, public: bool = False) -> Answer:
    """One sentence; markup in it is shown as it stands."""
    return Answer(text=cut(escaped(sentence), _NOTE), blocks=[kit.section(escaped(sentence))], public=public)


def done(sentence: str, by: str) -> Answer:
    """Something was done by somebody, for everybody to see."""
    first, *rest = sentence.strip().splitlines() or ["done"]
    shown = (
        [kit.section(f":white_check_mark: {escaped(first)}"), *kit.mono(rest)]
        if rest
        else [kit.section(f":white_check_mark: {escaped(first)}")]
    )
    return Answer(text=cut(escaped(first), _NOTE), blocks=[*shown, kit.context(f"by {escaped(by)}")], public=True)


def refused(sentence: str) -> Answer:
    """A no: in one piece, to be read and pasted from."""
    first, *rest = sentence.strip().splitlines() or ["refused"]
    return Answer(
        text=cut(escaped(first), _NOTE),
        blocks=[kit.section(f":no_entry: {escaped(first)}"), *kit.mono(rest)],
        ok=False,
    )


def table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Sequence[str] = (),
    empty: str,
    name: str,
    below: Sequence[str] = (),
) -> Answer:
    """Rows as a table; more of them than a message shows well are a file as well.

    Args:
        title: of the message.
        columns: names, as shown.
        rows: cells, as many as columns.
        right: names of columns that are aligned to the right.
        empty: what is said of no rows.
        name: of the file.
        below: lines below it.
    """
    if not rows:
        return said(empty)
    lines = kit.table(columns, rows, right=right)
    shown = lines[: kit.LINES + 1]
    blocks = [kit.section(f"*{escaped(title)}*"), *kit.mono(shown)]
    file = None
    if len(shown) < len(lines) or any(line.endswith("…") for line in shown):
        from services.wording import aligned  # noqa: PLC0415

        whole = "\n".join(aligned(columns, rows, right=right)) + "\n"
        file = File(name=f"{name}.txt", title=title, content=whole.encode())
        count = f"{len(shown) - 1:,} of {len(rows):,} rows; " if len(shown) < len(lines) else ""
        blocks.append(kit.context(f"{count}the whole of it is in your direct messages"))
    if below:
        blocks.append(kit.context(*(escaped(line) for line in below)))
    return Answer(text=f"{escaped(title)}: {len(rows):,}", blocks=blocks, file=file)
