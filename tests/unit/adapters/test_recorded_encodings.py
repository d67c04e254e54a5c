"""One EdgeX in seven encodings: what it says means the same in each, and what we write is what it wrote."""

import base64
import json
from collections import Counter
from dataclasses import replace
from typing import Any

import cbor2
import pytest

from edgeagents.adapters import cbor
from edgeagents.adapters.device_commands import event_to_wire
from edgeagents.adapters.envelopes import Encoding, decode_envelope, encode_envelope, encode_headers
from edgeagents.adapters.events import decode_message, interpret
from edgeagents.model.device import Event, Reading
from edgeagents.model.envelope import Answer, EdgexMessage, Envelope, EventMessage, SystemEvent, ValidateDevice
from edgeagents.settings import EdgexBusType
from tests.recordings import BusLine, bus_lines
from tests.unit.adapters.test_recordings import decoded, raw

pytestmark = pytest.mark.recordings

# What each file holds; the longer first one is `test_recordings.py`'s.
KINDS = {"EventMessage": 27, "SystemEvent": 16, "ValidateDevice": 9, "Answer": 9}
FILES: dict[str, EdgexBusType] = {
    "bus-mqtt-base64.jsonl": "mqtt", "bus-mqtt-cbor.jsonl": "mqtt", "bus-mqtt-optimised.jsonl": "mqtt",
    "bus-nats-core-headers.jsonl": "nats-core", "bus-nats-core-json.jsonl": "nats-core",
    "bus-nats-jetstream.jsonl": "nats-jetstream",
}  # fmt: skip
OF_EACH_RUN = ("id", "created", "modified")  # differs between two runs of one EdgeX
FORMS: dict[str, tuple[Encoding, str]] = {
    "json": (Encoding(), "mqtt"),
    "base64": (Encoding(base64_payload=True), "mqtt"),
    "cbor": (Encoding(cbor=True), "mqtt"),
    "events in cbor": (Encoding(events_cbor=True), "mqtt"),
    "optimised": (Encoding(optimise=True), "mqtt"),
    "optimised cbor": (Encoding(optimise=True, cbor=True), "mqtt"),
    "nats json": (Encoding(), "json"),
    "nats json, cbor asked for": (Encoding(cbor=True), "json"),
    "nats headers": (Encoding(), "nats"),
    "nats headers, cbor": (Encoding(cbor=True), "nats"),
    "nats headers, optimised": (Encoding(optimise=True), "nats"),
}


def meaning(message: EdgexMessage) -> str:
    """Return what a message says apart from ids, times and random values."""
    said: Any = None
    match message:
        case EventMessage(event=event):
            names = (event.device_name, event.profile_name, event.source_name, event.tags)
            said = (*names, [of_reading(event, reading) for reading in event.readings])
        case SystemEvent():
            details = {key: value for key, value in message.details.items() if key not in OF_EACH_RUN}
            said = (message.type, message.action, message.source, message.owner, details)
        case ValidateDevice():
            said = (message.service, message.device.to_wire())
        case Answer():
            said = (message.service, message.error, message.event is not None)
    topic = message.topic.rpartition("/")[0] if isinstance(message, Answer) else message.topic
    if topic == "edgex/rules-events":  # which events the rules engine passed on is chance
        topic = f"edgex/events/device/device-virtual/{said[1]}/{said[0]}/{said[2]}"
    return json.dumps([topic, type(message).__name__, whole(said)], sort_keys=True)


def whole(value: Any) -> Any:
    """Return a value with 300.0, which CBOR tells from 300 and JSON does not, as 300."""
    if isinstance(value, dict):
        return {key: whole(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def of_reading(event: Event, reading: Reading) -> tuple[Any, ...]:
    """Return what a reading says apart from its id, time and random value; an optimised one is whole again."""
    assert reading.origin >= event.origin > 0
    value = reading.decoded()
    assert value is not None
    names = (reading.device_name, reading.profile_name, reading.resource_name, reading.value_type, reading.units)
    fixed = reading.value_type in ("Object", "ObjectArray")
    return (*names, reading.media_type, value if fixed else type(value).__name__)


def check_against_raw(message: EdgexMessage, line: BusLine) -> None:
    """Compare a decoded message with its bytes as they are without our code."""
    envelope, payload = raw(line)
    assert message.envelope.payload == payload
    assert message.envelope.correlation_id == envelope["correlationID"]
    assert message.envelope.request_id == envelope["requestID"]
    assert message.envelope.content_type == envelope["contentType"]
    if isinstance(message, EventMessage):
        body = payload.get("event", payload)
        assert (message.event.id, message.event.origin) == (body["id"], body["origin"])
        for reading, written in zip(message.event.readings, body["readings"], strict=True):
            assert reading.to_wire().items() >= {k: v for k, v in written.items() if v is not None}.items()


@pytest.mark.parametrize(("name", "kind"), FILES.items())
def test_every_message_of_a_recording_is_what_its_bytes_say(name: str, kind: EdgexBusType) -> None:
    kinds: Counter[str] = Counter()
    for line in bus_lines(name):
        message = decoded(line, kind)
        check_against_raw(message, line)
        kinds[type(message).__name__] += 1
    assert kinds == KINDS


def test_all_recordings_mean_the_same() -> None:
    plain = {meaning(message) for message in map(decoded, readable())}
    said = {name: {meaning(decoded(line, kind)) for line in bus_lines(name)} for name, kind in FILES.items()}
    for name, meanings in said.items():
        assert meanings <= plain, name
        assert meanings == said["bus-mqtt-base64.jsonl"], name


def readable() -> list[BusLine]:
    """Return the recorded JSON messages but the broken one."""
    return [line for line in bus_lines() if not line.data.startswith(b"{bad")]


def rewritten(message: EdgexMessage, encoding: Encoding, form: str) -> EdgexMessage:
    """Return what a message means after we wrote it in another form."""
    if form == "nats":
        return decode_message(message.topic, *encode_headers(message.envelope, encoding))
    return decode_message(message.topic, encode_envelope(message.envelope, encoding, is_mqtt=form == "mqtt"))


@pytest.mark.parametrize(("encoding", "form"), FORMS.values(), ids=FORMS)
def test_every_kind_of_message_survives_every_form(encoding: Encoding, form: str) -> None:
    seen: Counter[str] = Counter()
    for line in readable():
        message = decoded(line)
        seen[type(message).__name__] += 1
        again = rewritten(message, encoding, form)
        expected = message.envelope
        if form == "nats":  # no such header, and nats-py carries one value of a name
            query = dict(list(expected.query_params.items())[:1])
            expected = replace(expected, received_topic="", query_params=query)
        assert again == interpret(message.topic, replace(expected, **of_form(again.envelope, message, encoding)))
    assert seen["EventMessage"] == 57
    assert len(seen) == 8


def of_form(envelope: Envelope, message: EdgexMessage, encoding: Encoding) -> dict[str, Any]:
    """Return what of an envelope may differ by form: its content type, and what an optimised event leaves out."""
    changes: dict[str, Any] = {"content_type": envelope.content_type}
    if encoding.optimise and isinstance(message, EventMessage | Answer) and message.event is not None:
        for reading, written in zip(message.event.readings, readings_of(envelope.payload), strict=True):
            left_out = reading.to_wire().keys() - written.keys() - {"units", "mediaType"}
            assert left_out <= {"id", "deviceName", "profileName", "origin", "resourceName"}
            assert left_out >= {"id", "deviceName", "profileName"}
        changes["payload"] = envelope.payload
    return changes


def readings_of(payload: Any) -> list[dict[str, Any]]:
    """Return the readings in a payload."""
    found: list[dict[str, Any]] = payload.get("event", payload)["readings"]
    return found


# --- CBOR as Go writes it, byte by byte ----------------------------------------------------------


def test_our_cbor_is_go_s_byte_by_byte() -> None:
    lines = bus_lines("bus-mqtt-cbor.jsonl")
    for line in lines:
        assert cbor.dumps(cbor2.loads(line.data)) == line.data
    written = 0
    for line in lines:
        if not line.subject.endswith(
            "rules-events"
        ):  # an app service leaves the API version out, and sends JSON within
            assert encode_envelope(decode_envelope(line.data), Encoding(cbor=True)) == line.data
            written += 1
    assert written == 49


def test_our_json_and_headers_are_go_s_byte_by_byte() -> None:
    seen: Counter[str] = Counter()
    for name, encoding in (
        ("bus-mqtt-json.jsonl", Encoding()),
        ("bus-mqtt-optimised.jsonl", Encoding(optimise=True)),
        ("bus-nats-core-json.jsonl", Encoding()),
    ):
        for line in bus_lines(name):
            if ".events.device." in line.subject:
                assert encode_envelope(decode_envelope(line.data), encoding) == line.data
                seen[name] += 1
    for line in bus_lines("bus-nats-core-headers.jsonl"):
        if ".events.device." in line.subject:
            assert encode_headers(decode_envelope(line.data, line.headers)) == (line.data, line.headers)
            seen["headers"] += 1
    assert dict(seen) == {
        "bus-mqtt-json.jsonl": 36, "bus-mqtt-optimised.jsonl": 15, "bus-nats-core-json.jsonl": 15, "headers": 15,
    }  # fmt: skip


def test_an_event_goes_through_our_model_and_out_again_as_it_came_in() -> None:
    """From Go's bytes to a typed event and back: nothing is lost, nothing added."""
    for line in bus_lines("bus-mqtt-cbor.jsonl"):
        message = decoded(line)
        if isinstance(message, EventMessage) and not line.subject.endswith("rules-events"):
            payload = message.envelope.payload | {"event": event_to_wire(message.event)}
            again = encode_envelope(replace(message.envelope, payload=payload), Encoding(cbor=True))
            assert unordered(cbor2.loads(again)) == unordered(cbor2.loads(line.data))


def unordered(value: Any) -> str:
    """Return a decoded message as text in which the order of keys is gone."""
    return json.dumps(value, sort_keys=True, default=lambda data: base64.b64encode(data).decode())


def test_what_go_needs_of_cbor_is_there() -> None:
    """Definite lengths, text keys, no tags: the first byte of every item says so."""
    for line in readable():
        message = decoded(line)
        if message.envelope.error_code == 0:
            for first, is_key in heads(encode_envelope(message.envelope, Encoding(cbor=True))):
                assert first >> 5 != 6
                assert first & 31 < 28
                assert not is_key or first >> 5 == 3


def heads(data: bytes) -> list[tuple[int, bool]]:
    """Return the first byte of every item of CBOR and whether the item is a map's key."""
    found: list[tuple[int, bool]] = []

    def item(place: int, is_key: bool) -> int:
        first, place = data[place], place + 1
        found.append((first, is_key))
        size = first & 31
        if size >= 24:
            width = 1 << (size - 24)
            size, place = int.from_bytes(data[place : place + width], "big"), place + width
        match first >> 5:
            case 2 | 3:
                place += size
            case 4:
                for _ in range(size):
                    place = item(place, False)
            case 5:
                for _ in range(size):
                    place = item(item(place, True), False)
        return place

    assert item(0, False) == len(data)
    return found
