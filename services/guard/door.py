"""What agents may reach of EdgeX, as a pure function: the guard's door, for who is on no EdgeX network.

Coordinator and language model come by it too, each with a token and a key of its own, and may do no more than an agent.
An agent reads and writes its own key in core-keeper, reads the common configuration (without the secrets in it),
registers itself, looks up core-metadata, and reads devices and profiles. All else is refused, core-command first of
all. What is let through goes on under a path written anew, so no spelling of a path means one thing here and another
in EdgeX. Carrying it out is `doorkeeper.py`.

Source: design.md section 2; edgex-wire.md sections 3.1, 3.2 and 5.1.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from edgeagents.adapters.config import COMMON, private_key
from edgeagents.permissions import BEHIND_DOOR

Upstream = Literal["core-keeper", "core-metadata"]
API: Final = ("api", "v3")
METADATA: Final = ("device", "deviceprofile", "deviceservice", "deviceresource", "provisionwatcher")
STATUSES: Final = ("UP", "DOWN", "UNKNOWN", "HALT")
HEALTH_INTERVAL: Final = "10s"
_NAME: Final = re.compile(r"[A-Za-z0-9_~;=.-]+")  # what keeper takes in one level of a key
_KEY_QUERY: Final = frozenset(("plaintext", "keyOnly", "flatten"))
_PAGE_QUERY: Final = frozenset(("offset", "limit", "labels"))


@dataclass(frozen=True, slots=True)
class Forward:
    """Send it on to an EdgeX service, and let pass of a list of keys only those at or below `root`."""

    service: Upstream
    parts: tuple[str, ...]
    query: Mapping[str, str]
    root: str = ""


@dataclass(frozen=True, slots=True)
class Register:
    """Put the agent into keeper's registry, under the guard's host and a port of its own there."""

    port: int  # where the agent itself answers
    registration: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LookUp:
    """Tell where a service is, as the agent reaches it: itself, or core-metadata behind this door."""

    service: str
    is_own: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """Do nothing; `cause` is one of few, `text` tells the agent."""

    cause: str
    text: str


Verdict = Forward | Register | LookUp | Refused


def service_key(who: str) -> str:
    """Return the EdgeX service key of an agent, or of a service behind the door that is none."""
    return BEHIND_DOOR.get(who, f"app-agent-{who}")


def judge(agent: str, method: str, path: str, query: Mapping[str, str], body: Any) -> Verdict:
    """Return what becomes of a request.

    Args:
        agent: who asks, as its token says; `coordinator` and `inference` are no agents.
        method: GET, PUT, ...
        path: decoded once.
        query: its parameters.
        body: what the JSON body holds, None without one.
    """
    parts = tuple(path.removeprefix("/").split("/"))
    if parts[:2] != API or len(parts) < 3:
        return Refused("unknown route", f"{method} {path[:100]}: not behind this door")
    match parts[2:]:
        case ("ping",) if method == "GET":
            return Forward("core-keeper", parts, {})
        case ("version",) if method == "GET":
            return Forward("core-metadata", parts, {})
        case ("kvs", "key", *key):
            return _key_values(agent, method, parts, tuple(key), query)
        case ("registry", *rest):
            return _registry(agent, method, tuple(rest), body)
        case (kind, *rest) if kind in METADATA and not _is_command(kind, tuple(rest)):
            return _metadata(method, parts, query)
    return Refused("unknown route", f"{method} {path[:100]}: agents have no way there; commands go to the guard")


def _key_values(
    agent: str, method: str, parts: tuple[str, ...], key: tuple[str, ...], query: Mapping[str, str]
) -> Verdict:
    if not key or not all(_NAME.fullmatch(level) and level.strip(".") for level in key):
        return Refused("no key", f"{method}: {'/'.join(key)[:100]!r} is no key of keeper")
    name, own = "/".join(key), private_key(service_key(agent))
    is_own, is_common = _is_at(name, own), _is_at(name, COMMON)
    passed = {word: query[word] for word in _KEY_QUERY & query.keys()}
    if method == "GET" and (is_own or is_common):
        return Forward("core-keeper", parts, passed, name)
    if method == "PUT" and is_own:
        return Forward("core-keeper", parts, passed)
    if is_own:
        return Refused("deleting keys", f"{method} {name}: an agent may GET and PUT its own keys")
    return Refused("another's key", f"{method} {name}: agent {agent} has {own} alone, and may read {COMMON}")


def _registry(agent: str, method: str, rest: tuple[str, ...], body: Any) -> Verdict:
    own = service_key(agent)
    match method, rest:
        case "GET", ("serviceId", service) if service in (own, "core-metadata"):
            return LookUp(service, service == own)
        case (("POST" | "PUT"), ()):
            wanted = body.get("registration") if isinstance(body, dict) else None
            wanted = wanted if isinstance(wanted, dict) else {}
            port = wanted.get("port")
            if wanted.get("serviceId") == own and type(port) is int and 0 < port < 65536:
                return Register(port, registration_of(own, wanted.get("status")))
            return Refused("another's registration", f"{method} registry: agent {agent} registers {own}, with a port")
    return Refused("another's registration", f"{method} registry/{'/'.join(rest)[:100]}: not for agents")


def registration_of(service: str, status: Any) -> dict[str, Any]:
    """Return an agent's registration, made anew: nothing that it wrote goes on to keeper but one of four words.

    Keeper reads JSON keys in any case and takes the last of them, asks whatever address the health check spells, as
    often as it says, and ends when that is never.
    """
    health = {"interval": HEALTH_INTERVAL, "path": "/api/v3/ping", "type": "http"}
    known = {"status": status} if isinstance(status, str) and status in STATUSES else {}
    return {"serviceId": service, "healthCheck": health, **known}


def _metadata(method: str, parts: tuple[str, ...], query: Mapping[str, str]) -> Verdict:
    if method != "GET":
        return Refused("changing core-metadata", f"{method} {'/'.join(parts)[:100]}: agents may read core-metadata")
    if not all(part.strip(".") for part in parts):
        return Refused("unknown route", "a path with empty levels or dots alone is not sent on")
    return Forward("core-metadata", parts, {word: query[word] for word in _PAGE_QUERY & query.keys()})


def _is_command(kind: str, rest: tuple[str, ...]) -> bool:
    """Say whether this is core-command's `device/name/{name}/{command}`; core-metadata has nothing so deep."""
    return kind == "device" and rest[:1] == ("name",) and len(rest) > 2


def _is_at(name: str, root: str) -> bool:
    return name == root or name.startswith(f"{root}/")


def _is_secret(name: str) -> bool:
    return _is_at(name, COMMON) and "/InsecureSecrets/" in f"{name}/"


def let_pass(answer: Any, root: str) -> Any:
    """Return keeper's answer with the keys at or below `root`, without secrets of the common configuration.

    Keeper finds keys by their first letters: `app-agent-a` finds `app-agent-ab` too.
    """
    found = answer.get("response") if isinstance(answer, dict) else None
    if not isinstance(found, list):
        return {"apiVersion": "v3", "statusCode": 200, "response": []}
    kept = []
    for item in found:
        name = item.get("key") if isinstance(item, dict) else item
        if isinstance(name, str) and _is_at(name, root) and not _is_secret(name):
            kept.append(item)
    return {**answer, "response": kept}
