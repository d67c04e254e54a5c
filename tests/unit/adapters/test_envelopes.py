"""Envelopes in every encoding: what goes out follows EdgeX's variables, what comes in is recognised by itself."""

import base64
import json
from typing import Any

import cbor2
import pytest

from edgeagents.adapters.device_commands import event_to_wire
from edgeagents.adapters.envelopes import (
    PLAIN,
    Encoding,
    decode_envelope,
    decode_payload,
    encode_envelope,
    encode_headers,
    encode_payload,
)
from edgeagents.adapters.event_payloads import MAX_READINGS
from edgeagents.adapters.events import decode_message
from edgeagents.errors import InvalidInputError, MalformedMessageError
from edgeagents.model.device import Event, make_reading
from edgeagents.model.envelope import Envelope, EventMessage
from edgeagents.subjects import MAX_TOPIC_BYTES
from tests.unit.adapters.test_events import EVENT_TOPIC, ORIGIN, event, request_of

VARIABLES = {
    "EDGEX_MSG_BASE64_PAYLOAD": "base64_payload",
    "EDGEX_MSG_CBOR_ENCODE": "cbor",
    "EDGEX_ENCODE_ALL_EVENTS_CBOR": "events_cbor",
    "EDGEX_OPTIMIZE_EVENT_PAYLOAD": "optimise",
}
EVERY = Encoding(True, True, True, True)


def picture() -> Event:
    """Return an event with a Binary and a simple reading."""
    image = make_reading("d", "p", "r", "Binary", b"\x00\xff", ORIGIN, reading_id="i", media_type="image/png")
    return event(readings=(image, make_reading("d", "p", "n", "Int8", 7, ORIGIN, reading_id="j")))


def read_event(data: bytes, headers: dict[str, str] | None = None) -> Event:
    """Return the event in a message."""
    message = decode_message(EVENT_TOPIC, data, headers)
    assert isinstance(message, EventMessage)
    return message.event


def refusal(topic: str, data: bytes) -> str:
    """Return the cause for which a message is refused."""
    with pytest.raises(MalformedMessageError) as caught:
        decode_message(topic, data)
    return caught.value.cause_kind


# --- out -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", VARIABLES)
def test_each_variable_turns_one_thing_on_and_only_as_edgex_writes_it(variable: str) -> None:
    assert Encoding.from_environ({variable: "true"}) == Encoding(**{VARIABLES[variable]: True})
    for text in ("", "false", "True", "1", "yes", " true"):
        assert Encoding.from_environ({variable: text}) == PLAIN


def test_base64_holds_the_json_of_anything_but_nothing() -> None:
    encoding = Encoding(base64_payload=True)
    body = json.loads(encode_envelope(Envelope({"a": 1}, "c", "q"), encoding))
    assert json.loads(base64.b64decode(body["payload"])) == {"a": 1}
    assert body["contentType"] == "application/json"
    assert json.loads(encode_envelope(Envelope(None), encoding))["payload"] is None


def test_an_error_is_plain_text_in_every_encoding() -> None:
    error = Envelope("no such device: ä", "c", "q", error_code=1, content_type="text/plain")
    for encoding in (PLAIN, EVERY, Encoding(base64_payload=True)):
        assert decode_envelope(encode_envelope(error, encoding)) == error
        assert decode_envelope(*encode_headers(error, encoding)) == error
    assert cbor2.loads(encode_envelope(error, EVERY))["payload"] == error.payload


def test_a_picture_is_cbor_even_where_nothing_asks_for_it() -> None:
    payload = request_of(picture())
    body = json.loads(encode_envelope(Envelope(payload)))
    assert body["contentType"] == "application/cbor"
    inner = cbor2.loads(base64.b64decode(body["payload"]))
    assert inner["event"]["readings"][0]["binaryValue"] == b"\x00\xff"
    data, headers = encode_headers(Envelope(payload))
    assert headers["Content-Type"] == "application/cbor"
    assert cbor2.loads(data) == inner
    data, content_type = encode_payload(payload)
    assert (cbor2.loads(data), content_type) == (inner, "application/cbor")
    assert read_event(encode_envelope(Envelope(payload))) == picture()


def test_a_picture_within_a_cbor_envelope_is_bytes_not_base64() -> None:
    body = cbor2.loads(encode_envelope(Envelope(request_of(picture())), Encoding(cbor=True)))
    assert body["contentType"] == "application/cbor"
    assert body["payload"]["event"]["readings"][0]["binaryValue"] == b"\x00\xff"


def test_an_envelope_for_nats_stays_json_where_mqtt_would_have_cbor() -> None:
    plain = encode_envelope(Envelope(request_of(event())), Encoding(cbor=True), is_mqtt=False)
    assert json.loads(plain)["contentType"] == "application/json"
    assert read_event(plain) == event()


def test_a_rest_body_is_json_unless_an_event_must_be_cbor() -> None:
    assert encode_payload({"a": 1}, Encoding(base64_payload=True, cbor=True))[1] == "application/json"
    assert encode_payload(request_of(event()))[1] == "application/json"
    assert encode_payload(request_of(event()), Encoding(events_cbor=True))[1] == "application/cbor"


def test_a_binary_value_that_is_no_base64_is_not_written() -> None:
    payload = request_of(picture())
    payload["event"]["readings"][0]["binaryValue"] = "not base64!"
    for write in (encode_envelope, encode_headers):
        with pytest.raises(InvalidInputError, match="binary value of 'r' is not base64"):
            write(Envelope(payload))


def test_what_is_encoded_is_not_changed() -> None:
    payload = request_of(picture())
    before = json.dumps(payload)
    for encoding in (EVERY, PLAIN):
        encode_envelope(Envelope(payload), encoding)
        encode_headers(Envelope(payload), encoding)
        encode_payload(payload, encoding)
    assert json.dumps(payload) == before


# --- optimised -----------------------------------------------------------------------------------


def test_an_optimised_event_leaves_out_what_its_event_says_and_comes_back_whole() -> None:
    data = encode_envelope(Envelope(request_of(event())), Encoding(optimise=True))
    (reading,) = json.loads(data)["payload"]["event"]["readings"]
    assert not reading.keys() & {"id", "deviceName", "profileName", "resourceName", "origin"}
    (found,) = read_event(data).readings
    assert (found.device_name, found.profile_name, found.resource_name, found.origin) == ("d", "p", "r", ORIGIN)


def test_an_optimised_event_keeps_what_its_readings_alone_say() -> None:
    readings = tuple(
        make_reading("d", "p", name, "Int8", 1, origin, reading_id="i") for name, origin in (("r", ORIGIN), ("s", 5))
    )
    data = encode_envelope(Envelope(request_of(event(readings=readings))), Encoding(optimise=True))
    first, second = read_event(data).readings
    assert (first.resource_name, first.origin) == ("r", ORIGIN)
    assert (second.resource_name, second.origin, second.device_name) == ("s", 5, "d")


def test_a_reading_of_another_resource_than_the_source_keeps_its_name() -> None:
    readings = (make_reading("d", "p", "s", "Int8", 1, ORIGIN, reading_id="i"),)
    data = encode_envelope(Envelope(request_of(event(readings=readings))), Encoding(optimise=True))
    assert read_event(data).readings[0].resource_name == "s"


def test_of_several_readings_one_without_a_name_is_refused() -> None:
    body = request_of(event())
    body["event"]["readings"] = [{"valueType": "Bool", "value": "true"}] * 2
    assert refusal(EVENT_TOPIC, encode_envelope(Envelope(body))) == "wrong-shape"


# --- null readings and extensions ----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Int8", "Binary", "Object", "StringArray"])
@pytest.mark.parametrize("encoding", [PLAIN, EVERY, Encoding(events_cbor=True), Encoding(optimise=True)])
def test_a_null_reading_is_null_in_every_encoding(kind: str, encoding: Encoding) -> None:
    one = event(readings=(make_reading("d", "p", "r", kind, None, ORIGIN, reading_id="i"),))
    payload = {"event": event_to_wire(one)}
    assert payload["event"]["readings"][0]["objectValue"] is None
    found = read_event(encode_envelope(Envelope(payload), encoding))
    assert found.readings[0].decoded() is None
    assert event_to_wire(found)["readings"][0].items() >= {"value": None, "binaryValue": None}.items()


EXTENSIONS: dict[str, Any] = {"x": None, "y": {"deep": [1, None, ""]}, "z": "", "confidence": 0.5, "größe": "ß"}


@pytest.mark.parametrize("encoding", [PLAIN, Encoding(cbor=True), Encoding(events_cbor=True), Encoding(optimise=True)])
def test_unknown_keys_of_events_and_readings_go_out_as_they_came_in(encoding: Encoding) -> None:
    body = event_to_wire(event()) | EXTENSIONS
    body["readings"] = [reading | EXTENSIONS for reading in body["readings"]]
    found = read_event(encode_envelope(Envelope({"event": body}), encoding))
    again = event_to_wire(found)
    assert {key: again[key] for key in EXTENSIONS} == EXTENSIONS
    assert {key: again["readings"][0][key] for key in EXTENSIONS} == EXTENSIONS
    if not encoding.optimise:
        assert again == body


# --- in: bounds ----------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", [PLAIN, Encoding(cbor=True), Encoding(base64_payload=True)])
def test_an_event_of_a_million_readings_is_refused(encoding: Encoding) -> None:
    body = request_of(event())
    body["event"]["readings"] = [{"valueType": "Int8"}] * 1_000_000
    data = encode_envelope(Envelope(body), encoding)
    assert refusal(EVENT_TOPIC, data) in ("too-many-items", "too-large")


def test_an_event_of_too_many_readings_is_refused_and_of_as_many_as_allowed_is_not() -> None:
    body = request_of(event())
    body["event"]["readings"] *= MAX_READINGS
    assert len(read_event(encode_envelope(Envelope(body))).readings) == MAX_READINGS
    body["event"]["readings"] += body["event"]["readings"][:1]
    assert refusal(EVENT_TOPIC, encode_envelope(Envelope(body))) == "too-many-readings"


@pytest.mark.parametrize("unit", ["[],", "{},", "1,", '"",'])
def test_json_of_millions_of_items_is_refused_before_it_is_built(unit: str) -> None:
    data = b'{"contentType":"application/json","payload":[' + unit.encode() * 2_000_000 + b"1]}"
    assert refusal(EVENT_TOPIC, data) == "too-many-items"


def test_commas_within_text_are_no_items() -> None:
    wave = make_reading("d", "p", "r", "Int16Array", [1] * 300_000, ORIGIN, reading_id="i")
    assert len(read_event(encode_envelope(Envelope(request_of(event(readings=(wave,)))))).readings[0].decoded()) > 1  # type: ignore[arg-type]


def test_a_topic_beyond_the_limit_is_refused() -> None:
    assert refusal(f"edgex/{'a' * MAX_TOPIC_BYTES}", encode_envelope(Envelope())) == "topic-too-long"


def test_half_an_envelope_is_refused_in_every_encoding() -> None:
    for encoding in (PLAIN, EVERY, Encoding(cbor=True), Encoding(events_cbor=True)):
        data = encode_envelope(Envelope(request_of(event())), encoding)
        for end in range(len(data)):
            with pytest.raises(MalformedMessageError):
                decode_message(EVENT_TOPIC, data[:end])


def test_a_payload_by_itself_is_read_by_its_content_type() -> None:
    assert decode_payload(b'{"a":1}', "application/json; charset=utf-8") == {"a": 1}
    assert decode_payload(cbor2.dumps({"a": b"\x01"}), "application/cbor") == {"a": "AQ=="}
    for data, kind in ((b"", "application/json"), (b"", "application/cbor"), (b"{}", "application/xml")):
        with pytest.raises(MalformedMessageError):
            decode_payload(data, kind)


def test_mixed_encodings_on_one_bus_are_told_apart_by_themselves() -> None:
    payload = request_of(event())
    for encoding in (PLAIN, Encoding(base64_payload=True), Encoding(cbor=True), Encoding(events_cbor=True)):
        assert read_event(encode_envelope(Envelope(payload), encoding)) == event()
        assert read_event(*encode_headers(Envelope(payload), encoding)) == event()
