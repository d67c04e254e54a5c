"""One AsyncAPI 3.0 document of all that is said over NATS, made of `channels.py` and the schemas of its messages.

Source: AsyncAPI 3.0.0; AsyncAPI NATS bindings 0.1.0.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast, get_args

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from edgeagents.adapters.wire import JSON, PB_CLASSES, PROTOBUF
from services.api_pages.channels import HOLES, Channel, Raw, Said, channels, shown
from services.api_pages.messages import REF, schemas
from services.api_pages.openapi import VERSION

ABOUT: Final = """\
What agents, the guard, the coordinator and the language model of a gateway say to each other over NATS, as JSON.

Who sends is a token of the subject, which the broker lets nobody else write; no field says it. Names that hold anything
but letters, digits, `-` and `_` stand in subjects as `=` and base64url without padding.

Messages of proto/ are protobuf, or JSON in proto3's mapping with `Content-Type: application/json`: field names as here
or in camelCase, 64-bit numbers as texts, what is 0, false or empty may be left out. Whoever writes JSON is answered in
JSON. All others are JSON alone. A message is 256 KiB at most; what cannot be read is counted and set aside."""
RAW: Final[Mapping[Raw, tuple[str, str, dict[str, Any]]]] = {  # title, content type, schema
    "Empty": ("Nothing", "application/octet-stream", {"type": "string", "maxLength": 0}),
    "Incarnation": ("The incarnation of this run, as plain text", "text/plain", {"type": "string", "maxLength": 64}),
    "DeadLetter": ("The bytes as they came; headers `topic`, `cause`, `error` say why", "application/octet-stream", {}),
    "TaskRecord": ("A task's whole record; its form is the coordinator's own", JSON, {"type": "object"}),
    "TaskId": ("Which task", JSON, {
        "type": "object", "required": ["id"], "properties": {"id": {"type": "string", "maxLength": 64}}}),
    "TaskFilter": ("Which tasks", JSON, {
        "type": "object", "properties": {"state": {"type": "string", "description": "empty: all"}}}),
    "Trigger": ("An event, a rule's result, a question or a thought; the header `Trigger-Kind` says which", JSON, {}),
    "Copy": ("A stored message, with its headers", "application/octet-stream", {}),
    "MicroAnswer": ("What NATS ADR-32 says", JSON, {"type": "object", "required": ["type", "name", "id", "version"]}),
}  # fmt: skip
_TYPED: Final = {"Content-Type": {"type": "string", "enum": [PROTOBUF, JSON], "description": "absent: protobuf"}}


def document() -> dict[str, Any]:
    """Return the document."""
    found = channels()
    said = {_name(item): item for channel in found for item in (*channel.said, *channel.answers)}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "edgeagents on NATS", "version": VERSION, "description": ABOUT,
            "license": {"name": "Apache-2.0"}, "tags": [{"name": name} for name in ("agent", "owner")],
        },
        "defaultContentType": JSON,
        "servers": {"gateway": {
            "host": "{host}:4222", "protocol": "nats", "description": "the gateway's broker; each agent has a user",
            "variables": {"host": {"default": "localhost"}},
        }},
        "channels": dict(part for channel in found for part in _channels(channel)),
        "operations": {channel.name: _operation(channel) for channel in found},
        "components": {
            "messages": {name: _message(name, item) for name, item in sorted(said.items())},
            "schemas": _schemas(list(said.values())),
        },
    }  # fmt: skip


def _name(said: Said) -> str:
    return said if isinstance(said, str) else said.__name__


def _channels(channel: Channel) -> list[tuple[str, dict[str, Any]]]:
    """Return a subject, and where its answers come."""
    kept = f" Kept in the stream `{channel.stored}`." if channel.stored else ""
    only = " JSON alone." if channel.is_json_alone else ""
    made: dict[str, Any] = {
        "address": shown(channel.address), "description": f"{channel.about}{kept}{only}",
        "messages": _references(channel.said),
    }  # fmt: skip
    if channel.holes:
        made["parameters"] = {HOLES[word][0]: {"description": HOLES[word][1]} for word in channel.holes}
    if not channel.answers:
        return [(channel.name, made)]
    inbox = {"address": None, "description": "The asker's own inbox.", "messages": _references(channel.answers)}
    return [(channel.name, made), (f"{channel.name}Answer", inbox)]


def _references(said: Sequence[Said]) -> dict[str, Any]:
    return {_name(item): {"$ref": f"#/components/messages/{_name(item)}"} for item in said}


def _operation(channel: Channel) -> dict[str, Any]:
    """Return what somebody who connects does on a subject: agents and owners send, all others are heard."""
    made: dict[str, Any] = {
        "action": "send" if channel.says in ("agent", "owner") else "receive",
        "channel": {"$ref": f"#/channels/{channel.name}"},
        "summary": channel.about.split(";")[0].split(". ")[0].rstrip(".") + ".",
        "messages": [{"$ref": f"#/channels/{channel.name}/messages/{_name(item)}"} for item in channel.said],
        "tags": [{"name": channel.says}],
    }
    if channel.answers:
        place = f"{channel.name}Answer"
        made["reply"] = {
            "address": {"location": "$message.header#/reply", "description": "NATS's reply subject: an inbox."},
            "channel": {"$ref": f"#/channels/{place}"},
            "messages": [{"$ref": f"#/channels/{place}/messages/{_name(item)}"} for item in channel.answers],
        }
    return made


def _message(name: str, said: Said) -> dict[str, Any]:
    if isinstance(said, str):
        title, content_type, _ = RAW[said]
        return {"name": name, "title": title, "contentType": content_type, "payload": _reference(name)}
    words = (said.__doc__ or name).strip().split("\n")[0]
    made = {"name": name, "title": words, "contentType": JSON, "payload": _reference(name)}
    if said in PB_CLASSES:
        made["headers"] = {"type": "object", "properties": _TYPED}
    return made


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _schemas(said: Sequence[Said]) -> dict[str, Any]:
    """Return the schemas of all messages, and of what they hold, by name."""
    own = [item for item in said if not isinstance(item, str) and item not in PB_CLASSES]
    models = cast("list[tuple[type[BaseModel], Any]]", [(item, "validation") for item in own])
    _, made = models_json_schema(models, by_alias=True, ref_template=REF)
    raw = {name: schema for name, (_, _, schema) in RAW.items() if name in get_args(Raw)}
    return dict(sorted({**schemas(), **made["$defs"], **raw}.items()))
