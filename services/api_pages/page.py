"""The plain page of docs/api: every route and every subject in a table, made from the same documents.

Source: docs/api/*.json.
"""

from collections.abc import Mapping
from typing import Any, Final

from services.api_pages.channels import Channel, channels, shown
from services.api_pages.openapi import ABOUT, PORTS

METHODS: Final = ("get", "post", "put", "delete")
HEAD: Final = """\
# The interfaces of a gateway

Made from the code by `make api-pages`; a test says when this is stale. For programs: `*.openapi.json` (OpenAPI 3.1,
HTTP) and `messages.asyncapi.json` (AsyncAPI 3.0, NATS). A client in another language:
[examples/typescript](../../examples/typescript/README.md).

Errors over HTTP are `{"apiVersion": "v3", "statusCode": 404, "message": "what failed, on what, what to try"}`; below
`/v1` of the language model they are OpenAI's. In secure mode every route but `/api/v3/ping` wants a token of the
gateway's secret store ([secure-mode.md](../secure-mode.md)); `people` routes of the guard want an approver's token in
any mode. Where the owner switched Prometheus on, every service has `GET /metrics`, too
([telemetry.md](../telemetry.md)).
"""
NATS: Final = """\
## NATS

Who sends is a token of the subject: `{agent}` can be written by that agent's user alone. Messages in **bold** are those
of `proto/`: protobuf, or JSON with `Content-Type: application/json` (proto3's mapping: 64-bit numbers are texts, what
is 0 or empty may be left out). Whoever writes JSON is answered in JSON; acts come to an agent in the encoding of its
announcements, outcomes in that of its heartbeats. All other messages are JSON alone.
"""


def page(documents: Mapping[str, Mapping[str, Any]], proto: frozenset[str]) -> str:
    """Return the page as Markdown.

    Args:
        documents: OpenAPI documents by service.
        proto: names of the messages of proto/.
    """
    parts = [HEAD, *(_service(name, document) for name, document in documents.items()), NATS, _subjects(proto)]
    return "\n".join(part.rstrip() + "\n" for part in parts)


def _service(name: str, document: Mapping[str, Any]) -> str:
    port = f"{PORTS[name]}–{PORTS[name] + 49}" if name == "agent" else str(PORTS[name])
    lines = [f"## {name}, port {port}", "", ABOUT[name], "", "| route | what it does | answers |", "|---|---|---|"]
    paths = document["paths"].items()
    lines += [_route(path, method, item[method]) for path, item in paths for method in METHODS if method in item]
    return "\n".join(lines)


def _route(path: str, method: str, route: Mapping[str, Any]) -> str:
    words = " ".join(str(route.get("description", route["summary"])).split())
    mark = " (people)" if "people" in route.get("tags", ()) else ""
    statuses = ", ".join(status for status in route["responses"] if status != "default")
    return f"| `{method.upper()} {path}` | {words}{mark} | {statuses} |"


def _subjects(proto: frozenset[str]) -> str:
    lines = ["| subject | sent by | message | answer | what for |", "|---|---|---|---|---|"]
    return "\n".join([*lines, *(_subject(channel, proto) for channel in channels())])


def _subject(channel: Channel, proto: frozenset[str]) -> str:
    def named(said: tuple[Any, ...]) -> str:
        words = [item if isinstance(item, str) else item.__name__ for item in said]
        return ", ".join(f"**{word}**" if word in proto else word for word in words)

    kept = f" Stream `{channel.stored}`." if channel.stored else ""
    return (
        f"| `{shown(channel.address)}` | {channel.says} | {named(channel.said)} | {named(channel.answers)} | "
        f"{channel.about}{kept} |"
    )
