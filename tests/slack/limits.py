"""Slack's documented limits of messages and views, as faults in words: an empty list is a message that Slack would take.

From the reference of Block Kit, chat.postMessage and views.open (docs.slack.dev).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

#: Characters of a message's text that Slack keeps, and bytes of its metadata.
TEXT_LIMIT, METADATA_LIMIT = 40_000, 8_000
MESSAGE_BLOCKS, VIEW_BLOCKS = 50, 100
#: Blocks that each kind of surface takes.
_ANYWHERE = {"actions", "context", "divider", "header", "image", "rich_text", "section", "video"}
_KINDS = {
    "message": _ANYWHERE | {"file", "markdown", "table"},
    "modal": _ANYWHERE | {"input"},
    "home": _ANYWHERE | {"input"},
}
#: Elements of an actions block, and accessories of a section.
_INTERACTIVE = {
    "button", "checkboxes", "channels_select", "conversations_select", "datepicker", "datetimepicker", "external_select",
    "multi_channels_select", "multi_conversations_select", "multi_external_select", "multi_static_select",
    "multi_users_select", "overflow", "radio_buttons", "static_select", "timepicker", "users_select", "workflow_button",
}  # fmt: skip
_INPUTS = (_INTERACTIVE - {"button", "overflow", "workflow_button"}) | {
    "email_text_input", "file_input", "number_input", "plain_text_input", "rich_text_input", "url_text_input",
}  # fmt: skip


def message(args: dict[str, Any]) -> list[str]:
    """What is wrong with the arguments of chat.postMessage, chat.update and the like."""
    found = []
    text, blocks = args.get("text", ""), args.get("blocks")
    if not text and not blocks and not args.get("attachments"):
        found.append("no_text: neither text nor blocks")
    if blocks and not text:
        found.append("blocks without text: notifications and screen readers have nothing to show")
    if len(text) > TEXT_LIMIT:
        found.append(f"text of {len(text)} characters, over {TEXT_LIMIT}")
    metadata = args.get("metadata")
    if metadata is not None:
        if set(metadata) != {"event_type", "event_payload"} or not isinstance(metadata["event_payload"], dict):
            found.append(f"metadata is not event_type and event_payload: {metadata!r}")
        if len(repr(metadata)) > METADATA_LIMIT:
            found.append(f"metadata of {len(repr(metadata))} bytes, over {METADATA_LIMIT}")
    return found + _blocks(blocks or [], "message", MESSAGE_BLOCKS)


def view(value: dict[str, Any]) -> list[str]:
    """What is wrong with a modal or a home tab."""
    kind = value.get("type")
    if kind not in ("modal", "home"):
        return [f"a view of type {kind!r}"]
    found = []
    if kind == "modal":
        found += _text(value.get("title"), 24, "view.title", plain=True)
        for name in ("submit", "close"):
            if name in value:
                found += _text(value[name], 24, f"view.{name}", plain=True)
        if any(block.get("type") == "input" for block in value.get("blocks", [])) and "submit" not in value:
            found.append("a modal with inputs needs submit")
    found += _at_most(value, "callback_id", 255) + _at_most(value, "private_metadata", 3000)
    found += _at_most(value, "external_id", 255)
    return found + _blocks(value.get("blocks", []), kind, VIEW_BLOCKS)


def _blocks(blocks: Any, surface: str, limit: int) -> list[str]:
    if not isinstance(blocks, list):
        return [f"blocks are no list: {blocks!r}"]
    found = [] if len(blocks) <= limit else [f"{len(blocks)} blocks, over {limit}"]
    ids = [block["block_id"] for block in blocks if "block_id" in block]
    if len(ids) != len(set(ids)):
        found.append(f"block_id used twice: {ids}")
    if sum(block.get("type") == "table" for block in blocks) > 1:
        found.append("two tables in one message")
    for number, block in enumerate(blocks):
        kind = block.get("type")
        where = f"blocks[{number}] {kind}"
        if kind not in _KINDS[surface]:
            found.append(f"{where}: not in a {surface}")
            continue
        found += [f"{where}: {fault}" for fault in [*_at_most(block, "block_id", 255), *_block(kind, block)]]
    return found


def _block(kind: str, block: dict[str, Any]) -> Iterator[str]:
    match kind:
        case "section":
            return _section(block)
        case "header":
            return iter(_text(block.get("text"), 150, "text", plain=True))
        case "context":
            return _context(block)
        case "actions":
            return _actions(block)
        case "image":
            return _image(block)
        case "input":
            return _input(block)
        case "markdown":
            length = len(block.get("text", ""))
            return iter([] if 0 < length <= 12_000 else [f"text of {length} characters, not 1 to 12,000"])
        case "table":
            return _table(block)
        case _:
            return iter(())


def _context(block: dict[str, Any]) -> Iterator[str]:
    yield from _count(block, "elements", 1, 10)
    for element in block.get("elements", []):
        if element.get("type") == "image":
            yield from _image(element)
        else:
            yield from _text(element, 3000, "elements")


def _actions(block: dict[str, Any]) -> Iterator[str]:
    yield from _count(block, "elements", 1, 25)
    for element in block.get("elements", []):
        yield from _element(element, _INTERACTIVE)
    yield from _twice(block.get("elements", []))


def _input(block: dict[str, Any]) -> Iterator[str]:
    yield from _text(block.get("label"), 2000, "label", plain=True)
    if "hint" in block:
        yield from _text(block["hint"], 2000, "hint", plain=True)
    yield from _element(block.get("element") or {}, _INPUTS)


def _section(block: dict[str, Any]) -> Iterator[str]:
    if "text" not in block and not block.get("fields"):
        yield "neither text nor fields"
    if "text" in block:
        yield from _text(block["text"], 3000, "text")
    if "fields" in block:
        yield from _count(block, "fields", 1, 10)
        for field in block["fields"]:
            yield from _text(field, 2000, "fields")
    if "accessory" in block:
        if block["accessory"].get("type") == "image":
            yield from _image(block["accessory"])
        else:
            yield from _element(block["accessory"], _INTERACTIVE)


def _table(block: dict[str, Any]) -> Iterator[str]:
    yield from _count(block, "rows", 1, 100)
    for row in block.get("rows", []):
        if not 1 <= len(row) <= 20:
            yield f"a row of {len(row)} cells, not 1 to 20"
        for cell in row:
            if cell.get("type") not in ("raw_text", "rich_text", "raw_number"):
                yield f"a cell of type {cell.get('type')!r}"
            if cell.get("type") == "raw_text" and not cell.get("text"):
                yield "a cell without text"
    if len(block.get("column_settings", [])) > 20:
        yield "more than 20 column_settings"


def _element(element: dict[str, Any], allowed: set[str]) -> Iterator[str]:
    kind = element.get("type")
    if kind not in allowed:
        yield f"an element of type {kind!r}"
        return
    yield from _at_most(element, "action_id", 255)
    if "placeholder" in element:
        yield from _text(element["placeholder"], 150, "placeholder", plain=True)
    if "confirm" in element:
        confirm = element["confirm"]
        for name, limit in (("title", 100), ("confirm", 30), ("deny", 30)):
            if name in confirm:
                yield from _text(confirm[name], limit, f"confirm.{name}", plain=True)
        yield from _text(confirm.get("text"), 300, "confirm.text")
    if kind == "button":
        yield from _text(element.get("text"), 75, "text", plain=True)
        yield from _at_most(element, "value", 2000)
        yield from _at_most(element, "url", 3000)
        if element.get("style", "primary") not in ("primary", "danger"):
            yield f"style {element['style']!r}"
    if kind == "plain_text_input":
        yield from _at_most(element, "initial_value", 3000)
        if element.get("max_length", 1) > 3000:
            yield "max_length over 3,000"
    yield from _options(kind, element)


def _options(kind: str, element: dict[str, Any]) -> Iterator[str]:
    limits = {"static_select": 100, "multi_static_select": 100, "overflow": 5, "checkboxes": 10, "radio_buttons": 10}
    if kind not in limits:
        return
    groups = element.get("option_groups")
    if groups is None:
        yield from _count(element, "options", 1, limits[kind])
    elif not 1 <= len(groups) <= 100:
        yield f"{len(groups)} option_groups, not 1 to 100"
    for group in groups or []:
        yield from _text(group.get("label"), 75, "label", plain=True)
        yield from _count(group, "options", 1, 100)
    listed = [*element.get("options", []), *(option for group in groups or [] for option in group["options"])]
    for option in listed:
        yield from _text(option.get("text"), 75, "option.text", plain="select" in kind or kind == "overflow")
        if not 0 < len(option.get("value", "")) <= 150:
            yield f"an option's value of {len(option.get('value', ''))} characters, not 1 to 150"
        if "description" in option:
            yield from _text(option["description"], 75, "option.description")
    first = element.get("initial_option")
    if first is not None and first not in listed:
        yield f"initial_option is none of the options: {first!r}"


def _image(value: dict[str, Any]) -> Iterator[str]:
    if not ("image_url" in value or "slack_file" in value):
        yield "an image without image_url or slack_file"
    yield from _at_most(value, "image_url", 3000)
    if not 0 < len(value.get("alt_text", "")) <= 2000:
        yield "an image needs an alt_text of 1 to 2,000 characters"
    if "title" in value:
        yield from _text(value["title"], 2000, "title", plain=True)


def _text(value: Any, limit: int, where: str, *, plain: bool = False) -> list[str]:
    if not isinstance(value, dict) or value.get("type") not in ("plain_text", "mrkdwn"):
        return [f"{where}: no text object: {value!r}"]
    found = []
    if plain and value["type"] != "plain_text":
        found.append(f"{where}: expected plain_text")
    if not isinstance(value.get("text"), str) or not 1 <= len(value["text"]) <= limit:
        found.append(f"{where}: text of {len(value.get('text') or '')} characters, not 1 to {limit}")
    return found


def _count(block: dict[str, Any], name: str, least: int, most: int) -> list[str]:
    count = len(block.get(name) or [])
    return [] if least <= count <= most else [f"{count} {name}, not {least} to {most}"]


def _at_most(block: dict[str, Any], name: str, limit: int) -> list[str]:
    length = len(block.get(name) or "")
    return [] if length <= limit else [f"{name} of {length} characters, over {limit}"]


def _twice(elements: list[dict[str, Any]]) -> Iterator[str]:
    ids = [element["action_id"] for element in elements if "action_id" in element]
    if len(ids) != len(set(ids)):
        yield f"action_id used twice: {ids}"
