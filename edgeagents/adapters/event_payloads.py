"""Events inside payloads: found, restored, shortened and made ready for CBOR.

Payloads here are as JSON holds them, whatever encoding they came in; nothing passed in is changed.

Source: edgex-wire.md sections 1.2 and 2; recordings of EdgeX 4.0.2 with `EDGEX_OPTIMIZE_EVENT_PAYLOAD`.
"""

import base64
import binascii
from typing import Any, Final

from edgeagents.errors import InvalidInputError, MalformedMessageError
from edgeagents.model.device import Event

MAX_READINGS: Final = 10_000
_NAMED: Final = frozenset(("deviceName", "profileName", "resourceName", "origin"))


def event_of(payload: Any) -> Event:
    """Return the event in an AddEventRequest or an EventResponse, or a bare event, optimised or not.

    Raises:
        MalformedMessageError: neither; more than `MAX_READINGS` readings; a reading of no resource.
        ValidationError: an event that breaks its contract.
    """
    if not isinstance(payload, dict):
        raise MalformedMessageError(f"payload is {type(payload).__name__}, not an object", "wrong-shape")
    body = payload.get("event", payload)
    if not isinstance(body, dict):
        raise MalformedMessageError(f"event is {type(body).__name__}, not an object", "wrong-shape")
    readings = body.get("readings")
    if isinstance(readings, list) and len(readings) > MAX_READINGS:
        raise MalformedMessageError(
            f"an event of {len(readings)} readings: at most {MAX_READINGS}", "too-many-readings"
        )
    event = Event.model_validate(restored(body))
    if not all(reading.device_name and reading.resource_name for reading in event.readings):
        raise MalformedMessageError("a reading names no device or no resource", "wrong-shape")
    return event


def restored(event: dict[str, Any]) -> dict[str, Any]:
    """Return an event with what an optimised one leaves out of its readings; one that is whole comes back as it is."""
    readings = event.get("readings")
    if not isinstance(readings, list) or not readings:
        return event
    if all(isinstance(one, dict) and one.keys() >= _NAMED and one["origin"] for one in readings):
        return event
    common = {key: event[key] for key in ("deviceName", "profileName", "origin") if event.get(key)}
    if len(readings) == 1 and event.get("sourceName"):
        common["resourceName"] = event["sourceName"]
    return {**event, "readings": [_completed(one, common) for one in readings]}


def _completed(reading: Any, common: dict[str, Any]) -> Any:
    if not isinstance(reading, dict):
        return reading
    return reading | {key: value for key, value in common.items() if reading.get(key) in (None, "", 0)}


def optimised(event: dict[str, Any]) -> dict[str, Any]:
    """Return an event without what `restored` knows to put back, and without the ids of its readings."""
    readings = event["readings"]
    shorter = []
    for reading in readings:
        known = {"id", "deviceName", "profileName"}
        if reading.get("origin") == event.get("origin"):
            known.add("origin")
        if len(readings) == 1 and reading.get("resourceName") == event.get("sourceName"):
            known.add("resourceName")
        shorter.append({key: value for key, value in reading.items() if key not in known})
    return {**event, "readings": shorter}


def event_within(payload: Any) -> dict[str, Any] | None:
    """Return the event a payload carries or is, None without one."""
    if not isinstance(payload, dict):
        return None
    body = payload.get("event", payload)
    if not isinstance(body, dict) or not isinstance(body.get("readings"), list) or "deviceName" not in body:
        return None
    return body if all(isinstance(reading, dict) for reading in body["readings"]) else None


def with_event(payload: dict[str, Any], event: dict[str, Any]) -> dict[str, Any]:
    """Return a payload with its event replaced."""
    return {**payload, "event": event} if "event" in payload else event


def has_binary(event: dict[str, Any]) -> bool:
    """Say whether a reading is of type Binary: EdgeX writes such an event in CBOR, always."""
    return any(str(reading.get("valueType")).lower() == "binary" for reading in event["readings"])


def with_bytes(event: dict[str, Any]) -> dict[str, Any]:
    """Return an event whose binary values are bytes, as CBOR holds them.

    Raises:
        InvalidInputError: one is not base64.
    """
    if not any(reading.get("binaryValue") for reading in event["readings"]):
        return event
    return {**event, "readings": [_with_bytes(reading) for reading in event["readings"]]}


def _with_bytes(reading: dict[str, Any]) -> dict[str, Any]:
    text = reading.get("binaryValue")
    if not isinstance(text, str):
        return reading
    try:
        return {**reading, "binaryValue": base64.b64decode(text, validate=True)}
    except (ValueError, binascii.Error) as error:
        name = reading.get("resourceName", "")
        raise InvalidInputError(f"binary value of {name!r} is not base64") from error
