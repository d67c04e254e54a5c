"""Recorded answers of a real EdgeX against ours: how they are compared, and where ours differ on purpose.

The table `DIFFERENCES` is the only place for such differences; `docs/embedded-core.md` shows it.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

VOLATILE = {"created", "modified", "Created", "Modified", "id", "timestamp", "correlationID", "requestID", "requestId"}
_OTHERS = ("device-virtual", "app-rules-engine")  # where they ran is not where ours run

Change = Callable[[Any], Any]


def masked(value: Any) -> Any:
    """Return an answer without what differs from run to run; lists that EdgeX does not order are sorted."""
    if isinstance(value, dict):
        return {key: "…" if key in VOLATILE and item else masked(item) for key, item in value.items()}
    if isinstance(value, list):
        items = [masked(item) for item in value]
        ordered = all(isinstance(item, dict) and item.keys() & {"key", "serviceId", "path"} for item in items)
        unordered = ordered or all(isinstance(item, str) and item.startswith("edgex/") for item in items)
        return sorted(items, key=json.dumps) if unordered else items
    return value


def placed(value: Any) -> Any:
    """Return an answer without the ports and addresses of other services, and without a clock's text."""
    if isinstance(value, dict):
        if value.get("serviceId") in _OTHERS:
            value = value | {"port": 0, "status": ""}
        return {key: "…" if key in ("baseAddress", "timestamp") else placed(item) for key, item in value.items()}
    return [placed(item) for item in value] if isinstance(value, list) else value


def renamed(text: str, names: Mapping[str, str]) -> str:
    """Return a text with this run's words replaced by the recorded ones."""
    for ours, theirs in names.items():
        text = text.replace(ours, theirs)
    return text


def parsed(text: str) -> Any:
    """Return an answer's JSON; empty text when it is empty."""
    return json.loads(text) if text.strip() else ""


def compared(case: str, ours: str, theirs: str) -> str:
    """Return what is wrong with our answer to a recorded case, empty when nothing is."""
    change = DIFFERENCES[case][0] if case in DIFFERENCES else _unchanged
    sides = [masked(change(placed(parsed(text)))) for text in (ours, theirs)]
    if sides[0] == sides[1]:
        return ""
    return "\n".join(
        f"  {name} {json.dumps(side)[:1500]}" for name, side in zip(("ours  ", "theirs"), sides, strict=True)
    )


# --- what both sides have in common where ours differ --------------------------------------------


def _unchanged(answer: Any) -> Any:
    return answer


def _core_sections(answer: Any) -> Any:
    config = answer["config"]
    return types(config["Service"]), types(config["MessageBus"]), answer["serviceName"]


def types(value: Any) -> Any:
    """Return the names of types in place of values."""
    if isinstance(value, dict):
        return {key: types(value[key]) for key in sorted(value)}
    return type(value).__name__


def _app_sections(answer: Any) -> Any:
    config = answer["config"]
    writable, trigger = config["Writable"], config["Trigger"]
    metrics = sorted(name for name in writable["Telemetry"]["Metrics"] if not name.startswith("Agent"))
    return (
        [types(config[name]) for name in ("Service", "MessageBus", "HttpServer", "Registry")],
        types({name: trigger[name] for name in ("Type", "SubscribeTopics", "PublishTopic")}),
        types({name: writable[name] for name in ("LogLevel", "StoreAndForward")}),
        types({name: writable["Pipeline"][name] for name in ("ExecutionOrder", "TargetType")}),
        metrics, writable["Telemetry"]["Interval"], config.keys() >= {"Clients", "ApplicationSettings"},
    )  # fmt: skip


_EVERY_APPS_KEYS = re.compile(
    r".*/(Writable/(LogLevel|Pipeline/ExecutionOrder|InsecureSecrets/.*)|Service/(Host|Port|StartupMsg)"
    r"|MessageBus/Optional/ClientId|Trigger/PublishTopic)"
)


def _app_keys(answer: Any) -> Any:
    rows = [row for row in answer["response"] if _EVERY_APPS_KEYS.fullmatch(row["key"])]
    return sorted((row["key"], sorted(row), type(row["value"]).__name__) for row in rows)


def _common_keys(answer: Any) -> Any:
    left_out = re.compile(r".*/all-services/(Clients|Database|Writable/InsecureSecrets)/.*")
    return sorted(row["key"] for row in answer["response"] if not left_out.fullmatch(row["key"]))


def _own_readings(answer: Any) -> Any:
    return answer | {"events": [event | {"readings": event["readings"][:1]} for event in answer["events"]]}


def _without_message(answer: Any) -> Any:
    return answer | {"message": ""}


def _begin_of_message(answer: Any) -> Any:
    return answer | {"message": answer["message"].partition(":")[0]}


def _typed_versions(answer: Any) -> Any:
    return {key: types(item) if "version" in key and key != "apiVersion" else item for key, item in answer.items()}


DIFFERENCES: dict[str, tuple[Change, str]] = {
    "common version app": (_typed_versions, "the recorded service was built without a version; ours has one"),
    "common version device-virtual": (_typed_versions, "ours has versions of its own, of service and library"),
    "common config": (
        _app_sections,
        "an agent has its own pipeline, metrics and settings, no PostgreSQL and no external MQTT trigger; what every "
        "application service has is there, of the same types",
    ),
    "app kv tree": (
        _app_keys,
        "an agent has a configuration of its own; the keys that every application service has are there",
    ),
    "app secret bad": (_begin_of_message, "ours says after `JSON decode failed` what is wrong"),
    "app secret not json": (_begin_of_message, "ours says after `JSON decode failed` what is wrong"),
    "common config core-command": (
        _core_sections,
        "no database, external MQTT or secrets here: `Databases`, `External*` and `InsecureSecrets` are left out",
    ),
    "kv common tree": (
        _common_keys,
        "the values are ours; no PostgreSQL and no proxy-auth here, so their keys are left out",
    ),
    "metadata add device not json": (_without_message, "Python's words for what is wrong with the JSON, not Go's"),
    "data events of device": (
        _own_readings,
        "the recorded event had been posted twice: each copy shows its own readings, not those of both",
    ),
    "data events in time": (_own_readings, "the same two copies"),
}
