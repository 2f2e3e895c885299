"""The methods of the Web API that an app of ours may call, and the scopes that each asks for (any one of them)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.slack.workspace import APP, BOT, BOT_USER, TEAM, Refused

if TYPE_CHECKING:
    from tests.slack.fake import FakeSlack

Method = Callable[["FakeSlack", dict[str, Any]], dict[str, Any]]

#: Scopes by method: one of them is enough.
SCOPES: dict[str, tuple[str, ...]] = {
    "chat.postMessage": ("chat:write",),
    "chat.postEphemeral": ("chat:write",),
    "chat.update": ("chat:write",),
    "chat.delete": ("chat:write",),
    "conversations.history": ("channels:history", "groups:history", "im:history"),
    "conversations.replies": ("channels:history", "groups:history", "im:history"),
    "conversations.info": ("channels:read", "groups:read", "im:read"),
    "conversations.list": ("channels:read", "groups:read", "im:read"),
    "conversations.members": ("channels:read", "groups:read", "im:read"),
    "conversations.open": ("im:write",),
    "conversations.join": ("channels:join",),
    "users.info": ("users:read",),
    "usergroups.users.list": ("usergroups:read",),
    "files.getUploadURLExternal": ("files:write",),
    "files.completeUploadExternal": ("files:write",),
}


def _auth_test(slack: FakeSlack, _: dict[str, Any]) -> dict[str, Any]:
    return {
        "url": "https://fake.slack.com/",
        "team": "Fake",
        "user": "systems",
        "team_id": TEAM,
        "user_id": BOT_USER,
        "bot_id": BOT,
        "is_enterprise_install": False,
    }


def _open_connection(slack: FakeSlack, _: dict[str, Any]) -> dict[str, Any]:
    ticket = slack.sockets.ticket()
    return {"url": f"{slack.url.replace('http', 'ws', 1)}/link?ticket={ticket}&app_id={APP}"}


def _post(slack: FakeSlack, args: dict[str, Any]) -> dict[str, Any]:
    channel, message = slack.workspace.post(args)
    return {"channel": channel.id, "ts": message["ts"], "message": message}


def _post_ephemeral(slack: FakeSlack, args: dict[str, Any]) -> dict[str, Any]:
    slack.workspace.target(args.get("channel", ""))
    if args.get("user") not in slack.workspace.users:
        raise Refused("user_not_in_channel")
    return {"message_ts": slack.workspace.ts()}


def _update(slack: FakeSlack, args: dict[str, Any]) -> dict[str, Any]:
    channel, message = slack.workspace.update(args)
    return {"channel": channel.id, "ts": message["ts"], "text": message["text"], "message": message}


def _delete(slack: FakeSlack, args: dict[str, Any]) -> dict[str, Any]:
    channel = slack.workspace.known(args.get("channel", ""))
    channel.messages.remove(channel.find(args.get("ts", "")))
    return {"channel": channel.id, "ts": args["ts"]}


def _history(slack: FakeSlack, args: dict[str, Any]) -> dict[str, Any]:
    channel = slack.workspace.known(args.get("channel", ""))
    if f"{channel.kind}:history" not in slack.scopes:
        raise Refused("missing_scope", needed=f"{channel.kind}:history", provided=",".join(sorted(slack.scopes)))
    return slack.workspace.history(args, replies="ts" in args)


def _info(slack: FakeSlack, args: dict[str, Any]) -> dict[str, Any]:
    return {"channel": slack.workspace.known(args.get("channel", "")).info()}


def _list(slack: FakeSlack, args: dict[str, Any]) -> dict[str, Any]:
    shown = [
        c.info()
        for c in slack.workspace.channels.values()
        if not c.user and not (c.private and BOT_USER not in c.members)
    ]
    if str(args.get("exclude_archived", "")).lower() in ("1", "true"):
        shown = [channel for channel in shown if not channel["is_archived"]]
    start, limit = int(args.get("cursor") or 0), min(int(args.get("limit") or 100), 1000)
    more = str(start + limit) if start + limit < len(shown) else ""
    return {"channels": shown[start : start + limit], "response_metadata": {"next_cursor": more}}


def _members(slack: FakeSlack, args: dict[str, Any]) -> dict[str, Any]:
    members = sorted(slack.workspace.known(args.get("channel", "")).members)
    return {"members": members, "response_metadata": {"next_cursor": ""}}


def _open(slack: FakeSlack, args: dict[str, Any]) -> dict[str, Any]:
    return {"channel": {"id": slack.workspace.direct(str(args.get("users", ""))).id}}


def _join(slack: FakeSlack, args: dict[str, Any]) -> dict[str, Any]:
    channel = slack.workspace.known(args.get("channel", ""))
    if channel.archived:
        raise Refused("is_archived")
    channel.members.add(BOT_USER)
    return {"channel": channel.info()}


def _user(slack: FakeSlack, args: dict[str, Any]) -> dict[str, Any]:
    user = slack.workspace.users.get(args.get("user", ""))
    if user is None:
        raise Refused("user_not_found")
    return {"user": user.info()}


def _group(slack: FakeSlack, args: dict[str, Any]) -> dict[str, Any]:
    group = slack.workspace.groups.get(args.get("usergroup", ""))
    if group is None:
        raise Refused("no_such_subteam")
    return {"users": group}


def _show(slack: FakeSlack, args: dict[str, Any]) -> dict[str, Any]:
    if not str(args.get("trigger_id", "")).startswith("trigger-"):
        raise Refused("invalid_trigger_id")
    if args["trigger_id"] in slack.workspace.views:
        raise Refused("exchanged_trigger_id")
    view = args["view"] | {"id": slack.workspace.id("V"), "hash": slack.workspace.ts(), "state": {"values": {}}}
    slack.workspace.views[args["trigger_id"]] = slack.workspace.views[view["id"]] = view
    return {"view": view}


def _change(slack: FakeSlack, args: dict[str, Any]) -> dict[str, Any]:
    view = slack.workspace.views.get(args.get("view_id", ""))
    if view is None:
        raise Refused("not_found")
    if args.get("hash") and args["hash"] != view["hash"]:
        raise Refused("hash_conflict")
    view |= args["view"] | {"hash": slack.workspace.ts()}
    return {"view": view}


def _publish(slack: FakeSlack, args: dict[str, Any]) -> dict[str, Any]:
    if args.get("user_id") not in slack.workspace.users:
        raise Refused("invalid_arguments")
    view = args["view"] | {"id": slack.workspace.id("V"), "hash": slack.workspace.ts()}
    slack.workspace.homes[args["user_id"]] = view
    return {"view": view}


def _begin_upload(slack: FakeSlack, args: dict[str, Any]) -> dict[str, Any]:
    if int(args.get("length") or 0) <= 0 or not args.get("filename"):
        raise Refused("invalid_arguments")
    id_ = slack.workspace.id("F")
    slack.workspace.files[id_] = {"id": id_, "name": args["filename"], "length": int(args["length"])}
    return {"upload_url": f"{slack.url}/upload/{id_}", "file_id": id_}


def _end_upload(slack: FakeSlack, args: dict[str, Any]) -> dict[str, Any]:
    found = []
    for named in args["files"]:
        file = slack.workspace.files.get(named["id"])
        if file is None or "content" not in file:
            raise Refused("file_not_found")
        file |= {"title": named.get("title", file["name"])}
        if args.get("channel_id"):
            channel = slack.workspace.known(args["channel_id"])
            if channel.archived or BOT_USER not in channel.members:
                raise Refused("invalid_channel")
            shown = {"channel": channel.id, "text": args.get("initial_comment") or file["title"]}
            if args.get("thread_ts"):
                shown["thread_ts"] = args["thread_ts"]
            _, message = slack.workspace.post(shown)
            message["files"] = [{"id": file["id"], "name": file["name"], "title": file["title"]}]
        found.append({"id": file["id"], "title": file["title"]})
    return {"files": found}


METHODS: dict[str, Method] = {
    "api.test": lambda _, args: {"args": args},
    "auth.test": _auth_test,
    "apps.connections.open": _open_connection,
    "chat.postMessage": _post,
    "chat.postEphemeral": _post_ephemeral,
    "chat.update": _update,
    "chat.delete": _delete,
    "conversations.history": _history,
    "conversations.replies": _history,
    "conversations.info": _info,
    "conversations.list": _list,
    "conversations.members": _members,
    "conversations.open": _open,
    "conversations.join": _join,
    "users.info": _user,
    "usergroups.users.list": _group,
    "views.open": _show,
    "views.push": _show,
    "views.update": _change,
    "views.publish": _publish,
    "files.getUploadURLExternal": _begin_upload,
    "files.completeUploadExternal": _end_upload,
}
