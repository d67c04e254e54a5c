"""What a real EdgeX 4.0.2 said, line by line: each recorded message means what its topic and its bytes say."""

import base64
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import cbor2
import pytest

from edgeagents import subjects
from edgeagents.adapters.events import decode_message
from edgeagents.errors import MalformedMessageError
from edgeagents.model.device import Device, DeviceService, Event, Profile, Reading
from edgeagents.model.envelope import (
    Answer,
    CommandQuery,
    CommandRequest,
    ConfigChange,
    EdgexMessage,
    EventMessage,
    Metric,
    SystemEvent,
    ValidateDevice,
)
from edgeagents.model.values import format_value, parse_value
from edgeagents.settings import EdgexBusType
from tests.recordings import BusLine, bus_lines, http_lines

pytestmark = pytest.mark.recordings

# What the recording holds, counted by hand with other means: no line is passed over in silence.
KINDS = {
    "ConfigChange": 199, "EventMessage": 57, "SystemEvent": 26, "Answer": 22, "CommandRequest": 13,
    "ValidateDevice": 11, "Metric": 6, "CommandQuery": 1, "refused: not-json": 1,
}  # fmt: skip


def decoded(line: BusLine, kind: EdgexBusType = "mqtt") -> EdgexMessage:
    """Return what a recorded message means."""
    return decode_message(subjects.subject_to_topic(line.subject, kind), line.data, line.headers)


def raw(line: BusLine) -> tuple[dict[str, Any], Any]:
    """Return envelope and payload of a recorded message in JSON's terms, read without our code."""
    if "Content-Type" in line.headers:
        names = {"X-Correlation-ID": "correlationID", "RequestId": "requestID", "Content-Type": "contentType"}
        envelope: dict[str, Any] = {names.get(name, name): value for name, value in line.headers.items()}
        envelope |= {"errorCode": int(line.headers["ErrorCode"]), "receivedTopic": "", "payload": line.data or None}
    else:
        envelope = json.loads(line.data) if line.data.startswith(b"{") else cbor2.loads(line.data)
    payload = envelope["payload"]
    if envelope["errorCode"] == 0 and isinstance(payload, (str, bytes)):
        data = payload if isinstance(payload, bytes) else base64.b64decode(payload)
        payload = json.loads(data) if envelope["contentType"] == "application/json" else cbor2.loads(data)
    return envelope, json.loads(json.dumps(payload, default=lambda value: base64.b64encode(value).decode()))


def check_event(event: Event, body: dict[str, Any]) -> None:
    """Compare an event with the JSON it came from, value by value."""
    assert (event.id, event.device_name, event.profile_name) == (body["id"], body["deviceName"], body["profileName"])
    assert (event.source_name, event.origin, event.api_version) == (
        body["sourceName"],
        body["origin"],
        body["apiVersion"],
    )
    assert event.tags == body.get("tags")
    assert len(event.readings) == len(body["readings"])
    for reading, written in zip(event.readings, body["readings"], strict=True):
        check_reading(reading, written)


def check_reading(reading: Reading, written: dict[str, Any]) -> None:
    """Compare a reading with the JSON it came from; a simple value's text must come out of its value again."""
    names = (reading.device_name, reading.resource_name, reading.profile_name, reading.value_type)
    assert names == tuple(written[key] for key in ("deviceName", "resourceName", "profileName", "valueType"))
    assert (reading.id, reading.origin) == (written.get("id", ""), written["origin"])
    value = reading.decoded()
    if reading.value_type in ("Object", "ObjectArray"):
        assert value == written["objectValue"]
    elif reading.value_type == "Binary":
        assert value == base64.b64decode(written["binaryValue"])
    elif isinstance(written["value"], str):
        assert value == parse_value(reading.value_type, written["value"])
        assert format_value(reading.value_type, value) == written["value"]
    else:  # asked for with numeric=true
        assert value == written["value"]


def check_message(message: EdgexMessage, line: BusLine) -> None:
    """Compare a decoded message with its topic and its bytes."""
    envelope, payload = raw(line)
    levels = line.subject.split(".")
    assert message.topic == "/".join(levels)
    assert message.envelope.correlation_id == envelope["correlationID"]
    assert message.envelope.request_id == envelope["requestID"]
    assert message.envelope.received_topic == envelope["receivedTopic"]
    assert message.envelope.error_code == envelope["errorCode"]
    assert message.envelope.payload == payload
    _CHECKS[type(message)](message, levels, payload)


def _event(message: Any, levels: list[str], payload: Any) -> None:
    assert levels[1] in ("events", "rules", "rules-events")
    check_event(message.event, payload.get("event", payload))


def _config(message: Any, levels: list[str], payload: Any) -> None:
    assert levels[:2] == ["edgex", "configs"]
    assert message.key == payload["key"]
    assert "/".join(levels).endswith(message.key)
    assert message.value == payload.get("value")


def _system(message: Any, levels: list[str], payload: Any) -> None:
    assert [message.source, message.type, message.action, message.owner] == levels[2:6]
    assert message.details == payload["details"]
    assert message.timestamp_ns == payload["timestamp"] > 1_795_000_000_000_000_000


def _request(message: Any, levels: list[str], payload: Any) -> None:
    assert [message.device, message.command, "set" if message.is_set else "get"] == levels[-3:]
    assert message.service == (levels[4] if levels[1] == "device" else "")
    assert message.settings == (payload or {})
    assert message.is_set == bool(payload)


def _query(message: Any, levels: list[str], payload: Any) -> None:
    assert levels[1:4] == ["core", "commandquery", "request"]
    assert (message.device, payload) == (levels[4], None)


def _answer(message: Any, levels: list[str], payload: Any) -> None:
    assert [message.service, message.request_id] == levels[2:]
    assert message.request_id == message.envelope.request_id
    assert message.error == (payload if message.envelope.error_code else None)
    if message.error is None and isinstance(payload, dict) and "event" in payload:
        check_event(message.event, payload["event"])
    else:
        assert message.event is None


def _validate(message: Any, levels: list[str], payload: Any) -> None:
    assert levels[2:] == ["validate", "device"]
    assert message.service == levels[1] == message.device.service_name
    assert message.device == Device.model_validate(payload["device"])
    assert message.device.name == payload["device"]["name"]


def _metric(message: Any, levels: list[str], payload: Any) -> None:
    assert [message.service, message.name] == levels[2:]
    assert message.fields == {field["name"]: field["value"] for field in payload["fields"]}
    assert message.tags == {tag["name"]: tag["value"] for tag in payload["tags"]}
    assert message.timestamp_ns == payload["timestamp"]


_CHECKS: dict[type, Callable[[Any, list[str], Any], None]] = {
    EventMessage: _event, ConfigChange: _config, SystemEvent: _system, CommandRequest: _request, CommandQuery: _query,
    Answer: _answer, ValidateDevice: _validate, Metric: _metric,
}  # fmt: skip


def test_every_recorded_message_means_what_it_says_or_is_refused_by_cause() -> None:
    kinds: Counter[str] = Counter()
    for line in bus_lines():
        try:
            message = decoded(line)
        except MalformedMessageError as error:
            kinds[f"refused: {error.cause_kind}"] += 1
            continue
        kinds[type(message).__name__] += 1
        check_message(message, line)
    assert kinds == KINDS


def test_what_is_refused_is_the_broken_request() -> None:
    refused = []
    for line in bus_lines():
        try:
            decoded(line)
        except MalformedMessageError as error:
            refused.append((line.subject.split(".")[1], error.cause_kind))
    assert refused == [("core", "not-json")]


def test_recorded_errors_carry_their_text() -> None:
    answers = [message for message in map(decoded, _readable()) if isinstance(message, Answer)]
    errors = sorted(answer.error for answer in answers if answer.error is not None)
    assert [error[:40] for error in errors] == [
        "DeviceResource Binary is marked as read-",
        "failed to create CommandValue -> failed ",
        "invalid request topic: failed to get Dev",
    ]
    assert len({answer.request_id for answer in answers}) < len(answers)  # core-command passes an answer on


def _readable() -> list[BusLine]:
    return [line for line in bus_lines() if not line.data.startswith(b"{bad")]


def test_devices_profiles_and_services_in_system_events_are_understood() -> None:
    models: dict[str, type[Device | Profile | DeviceService]] = {
        "device": Device, "deviceprofile": Profile, "deviceservice": DeviceService,
    }  # fmt: skip
    seen: Counter[str] = Counter()
    for message in map(decoded, _readable()):
        if isinstance(message, SystemEvent):
            found = models[message.type].model_validate(message.details)
            seen[message.type] += 1
            assert found.name == message.details["name"]
            if isinstance(found, Profile):
                check_profile(found, message.details)
            elif isinstance(found, Device):
                check_device(found, message.details)
    assert seen == {"device": 12, "deviceprofile": 10, "deviceservice": 4}


def check_profile(profile: Profile, body: dict[str, Any]) -> None:
    """Compare a profile with the JSON it came from, resource by resource and command by command."""
    assert (profile.manufacturer, profile.model) == (body.get("manufacturer", ""), body.get("model", ""))
    assert list(profile.labels) == (body.get("labels") or [])
    assert len(profile.device_resources) == len(body["deviceResources"])
    for resource, written in zip(profile.device_resources, body["deviceResources"], strict=True):
        properties = written["properties"]
        assert (resource.name, resource.is_hidden) == (written["name"], written["isHidden"])
        assert resource.properties.value_type == properties["valueType"]
        assert resource.properties.read_write == properties["readWrite"]
        assert resource.properties.default_value == properties.get("defaultValue", "")
        assert resource.properties.minimum == properties.get("minimum")
        assert resource.properties.maximum == properties.get("maximum")
    for command, written in zip(profile.device_commands, body.get("deviceCommands") or [], strict=True):
        assert command.name == written["name"]
        names = [operation.device_resource for operation in command.resource_operations]
        assert names == [operation["deviceResource"] for operation in written["resourceOperations"]]
        if "W" in command.read_write:
            assert [resource.name for resource in profile.parameters(command.name)] == names


def check_device(device: Device, body: dict[str, Any]) -> None:
    """Compare a device with the JSON it came from."""
    assert (device.profile_name, device.service_name) == (body["profileName"], body["serviceName"])
    assert (device.admin_state, device.operating_state) == (body["adminState"], body["operatingState"])
    assert device.protocols == body["protocols"]
    assert [event.source_name for event in device.auto_events] == [
        e["sourceName"] for e in body.get("autoEvents") or []
    ]
    assert [event.interval for event in device.auto_events] == [e["interval"] for e in body.get("autoEvents") or []]


def test_recorded_http_answers_are_understood() -> None:
    seen: Counter[str] = Counter()
    for line in http_lines():
        if line.status != 200 or not line.answer.startswith("{"):
            continue
        body = line.json()
        for profile in [body["profile"]] if "profile" in body else body.get("profiles", []):
            check_profile(Profile.model_validate(profile), profile)
            seen["profile"] += 1
        for device in [body["device"]] if "device" in body else body.get("devices", []):
            check_device(Device.model_validate(device), device)
            seen["device"] += 1
        for service in [body["service"]] if "service" in body else body.get("services", []):
            assert DeviceService.model_validate(service).base_address == service["baseAddress"]
            seen["service"] += 1
        for event in [body["event"]] if "event" in body else body.get("events", []):
            check_event(Event.model_validate(event), event)
            seen["event"] += 1
        for reading in body.get("readings", []):
            check_reading(Reading.model_validate(reading), reading)
            seen["reading"] += 1
    assert seen == {"event": 23, "device": 6, "profile": 4, "reading": 3, "service": 1}


def test_what_we_write_edgex_s_own_form_can_hold() -> None:
    """A recorded device or profile goes out as it came in, apart from what only core-metadata writes."""
    for message in map(decoded, _readable()):
        if isinstance(message, SystemEvent) and message.type in ("device", "deviceprofile"):
            model = Device if message.type == "device" else Profile
            written = model.model_validate(message.details).to_wire()
            for key in message.details.keys() - {"id", "created", "modified", "linkedDeviceCount", "apiVersion"}:
                assert _contains(written[key], message.details[key]), key


def _contains(ours: Any, theirs: Any) -> bool:
    """Say whether ours holds all of theirs; what EdgeX leaves out when it is empty may be there in ours."""
    if isinstance(theirs, dict):
        return all(key in ours and _contains(ours[key], value) for key, value in theirs.items() if value is not None)
    if isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(_contains, ours, theirs))
    return bool(ours == theirs)
