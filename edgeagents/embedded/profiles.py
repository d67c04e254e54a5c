"""What follows from a device profile: which auto events it allows, and which commands core-command offers for it.

Source: edgex-wire.md sections 5.1 and 5.3; recordings of EdgeX 4.0.2.
"""

import re
from typing import Any
from urllib.parse import quote

from edgeagents.errors import InvalidInputError

Row = dict[str, Any]
_NAME_SAFE = "!$&'()*+,;=:@-._~"  # what may stand unescaped in one level of a path


def check_auto_events(device: Row, profile: Row) -> None:
    """Refuse a device whose auto events name what its profile has not.

    Raises:
        InvalidInputError: a source is neither a command nor, as a pattern, a resource of the profile.
    """
    for event in device.get("autoEvents", []):
        if not _has_source(event["sourceName"], profile):
            raise InvalidInputError(
                f"auto event source '{event['sourceName']}' cannot be found in the device profile '{profile['name']}'"
            )


def dropped_auto_events(device: Row, profile: Row | None) -> Row:
    """Return a device without the auto events that its new profile does not allow."""
    if profile is None or "autoEvents" not in device:
        return device
    kept = [event for event in device["autoEvents"] if _has_source(event["sourceName"], profile)]
    rest = {key: value for key, value in device.items() if key != "autoEvents"}
    return rest | ({"autoEvents": kept} if kept else {})


def _has_source(source: str, profile: Row) -> bool:
    if any(command["name"] == source for command in profile["deviceCommands"]):
        return True
    names = [resource["name"] for resource in profile["deviceResources"]]
    if source in names:
        return True
    try:
        pattern = re.compile(source)
    except re.error:
        raise InvalidInputError(f"failed to CompilePOSIX the auto event source name: {source}") from None
    return any(pattern.fullmatch(name) for name in names)


def path_level(name: str) -> str:
    """Return a name as one level of a URL path, escaped only where it must be."""
    return quote(name, safe=_NAME_SAFE)


def core_commands(device: Row, profile: Row, url: str) -> Row:
    """Return what core-command offers for a device: device commands, then resources, hidden ones left out."""
    resources = {resource["name"]: resource for resource in profile["deviceResources"]}
    commands: dict[str, Row] = {}
    for command in profile["deviceCommands"]:
        if not command["isHidden"]:
            names = [operation["deviceResource"] for operation in command["resourceOperations"]]
            commands[command["name"]] = _command(device["name"], command["name"], command["readWrite"], url) | {
                "parameters": [_parameter(resources[name]) for name in names]
            }
    for name, resource in resources.items():
        if not resource["isHidden"] and name not in commands:
            commands[name] = _command(device["name"], name, resource["properties"]["readWrite"], url) | {
                "parameters": [_parameter(resource)]
            }
    found = {"deviceName": device["name"], "profileName": device["profileName"]}
    return found | ({"coreCommands": list(commands.values())} if commands else {})


def _command(device: str, name: str, read_write: str, url: str) -> Row:
    verbs = {verb: True for verb, letter in (("get", "R"), ("set", "W")) if letter in read_write}
    return {"name": name, **verbs, "path": f"/api/v3/device/name/{device}/{name}", "url": url}


def _parameter(resource: Row) -> Row:
    return {"resourceName": resource["name"], "valueType": resource["properties"]["valueType"]}
