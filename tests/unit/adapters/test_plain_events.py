"""The quick way to an event gives what the careful way gives, or nothing."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgeagents.adapters.events import decode_message
from edgeagents.adapters.plain_events import event_names, plain_event
from edgeagents.errors import MalformedMessageError
from edgeagents.model.device import Event
from edgeagents.model.envelope import EventMessage

TOPIC = "edgex/events/device/svc/Sensor/hall/CO2"


def message(changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return a message as device services send it; `changes` by path, None takes a key away."""
    reading = {
        "id": "r", "origin": 5, "deviceName": "hall", "resourceName": "CO2", "profileName": "Sensor",
        "valueType": "Int32", "value": "1",
    }  # fmt: skip
    event = {
        "apiVersion": "v3", "id": "e", "deviceName": "hall", "profileName": "Sensor", "sourceName": "CO2", "origin": 5,
        "readings": [reading],
    }  # fmt: skip
    body: dict[str, Any] = {
        "apiVersion": "v3", "receivedTopic": "", "correlationID": "c", "requestID": "", "errorCode": 0,
        "payload": {"apiVersion": "v3", "requestId": "q", "event": event}, "contentType": "application/json",
    }  # fmt: skip
    places = {"": body, "event": event, "reading": reading, "payload": body["payload"]}
    for path, value in (changes or {}).items():
        place, _, key = path.rpartition(".")
        if value is None:
            places[place].pop(key, None)
        else:
            places[place][key] = value
    return body


def careful(topic: str, data: bytes) -> Event | None:
    """Return what `events.py` makes of a message, None when it is no event."""
    try:
        found = decode_message(topic, data)
    except MalformedMessageError:
        return None
    return found.event if isinstance(found, EventMessage) else None


def test_what_device_services_send_is_read_the_quick_way() -> None:
    data = json.dumps(message()).encode()
    assert plain_event(TOPIC, data, None, "edgex") == careful(TOPIC, data) is not None


odd: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from([
        None, 0, 1, -1, 5, 5.0, 5.5, True, False, "", "5", "hall", "Sensor", "Binary", "float64", "Object", [], [1], {},
        {"a": 1}, 10**30, "\ud800", "ü", "application/cbor", "application/json; charset=utf-8", "NaN",
    ]),
    st.text(max_size=3), st.floats(),
)  # fmt: skip
keys = st.sampled_from([
    ".errorCode", ".contentType", ".correlationID", ".requestID", ".receivedTopic", ".queryParams", ".payload", ".more",
    "payload.event", "payload.more", "event.id", "event.deviceName", "event.profileName", "event.sourceName",
    "event.origin", "event.readings", "event.tags", "event.more", "event.apiVersion", "reading.id", "reading.origin",
    "reading.deviceName", "reading.resourceName", "reading.profileName", "reading.valueType", "reading.value",
    "reading.units", "reading.tags", "reading.objectValue", "reading.binaryValue", "reading.mediaType", "reading.more",
    "event.device_name", "reading.value_type",
])  # fmt: skip
topics = st.sampled_from([
    TOPIC, "edgex/events/device/svc/Sensor/h%61ll/CO2", "edgex/events/device/svc/Sensor/hall",
    "edgex/events/core/svc/Sensor/hall/CO2", "edgex/events/device/svc/Sensor/attic/CO2",
])  # fmt: skip


@given(st.dictionaries(keys, odd, max_size=3), topics, st.booleans())
@example({"event.tags": {"a": float("inf")}}, TOPIC, False)
@example({"reading.value": [float("nan")]}, TOPIC, False)
@example({".errorCode": False}, TOPIC, False)
def test_no_message_is_read_otherwise_than_with_care(changes: dict[str, Any], topic: str, is_ascii: bool) -> None:
    text = json.dumps(message(changes), ensure_ascii=is_ascii)
    data = text.encode(errors="surrogatepass")
    event = plain_event(topic, data, {}, "edgex")
    assert event is None or event == careful(topic, data)


@given(st.binary(max_size=8), st.integers(0, 700), st.integers(0, 8))
def test_no_bytes_are_read_otherwise_than_with_care(piece: bytes, at: int, length: int) -> None:
    data = json.dumps(message()).encode()
    broken = data[:at] + piece + data[at + length :]
    event = plain_event(TOPIC, broken, {}, "edgex")
    assert event is None or event == careful(TOPIC, broken)


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity"])
@pytest.mark.parametrize("before", [b'"apiVersion"', b'"event"', b'"deviceName"', b'"valueType"'])
def test_what_is_no_number_in_json_is_left_to_the_careful_way(number: bytes, before: bytes) -> None:
    data = json.dumps(message()).encode().replace(before, b'"ignored":' + number + b"," + before)
    assert plain_event(TOPIC, data, {}, "edgex") is None


@pytest.mark.parametrize("twice", [b'"id":"f",', b'"deviceName":"hall","device_name":"attic",', b'"origin":7,'])
def test_a_key_that_comes_twice_counts_as_ever(twice: bytes) -> None:
    data = json.dumps(message()).encode().replace(b'"sourceName"', twice + b'"sourceName"')
    event = plain_event(TOPIC, data, {}, "edgex")
    assert event is None or event == careful(TOPIC, data)


def test_names_of_a_topic_are_told_decoded_and_as_they_stand() -> None:
    assert event_names("edgex/events/device/s/P/a%2Eb/R", "edgex") == (("P", "a.b", "R"), ("P", "a%2Eb", "R"))
    for topic in ("edgex/events/device/s/P/a/b/R", "edgex/events/device/s/P/R", "other/events/device/s/P/a/R", ""):
        assert event_names(topic, "edgex") is None


def test_the_nats_format_and_long_messages_are_left_to_the_careful_way() -> None:
    data = json.dumps(message()).encode()
    assert plain_event(TOPIC, data, {"Content-Type": "application/json"}, "edgex") is None
    assert plain_event(TOPIC, json.dumps(message({"event.id": "x" * 70_000})).encode(), {}, "edgex") is None
