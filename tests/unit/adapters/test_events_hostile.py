"""Anything in: a message or a counted rejection, never another exception."""

import base64
import json
import math
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagents.adapters.envelopes import MAX_ENVELOPE_BYTES, MAX_NESTING, decode_envelope, encode_envelope
from edgeagents.adapters.events import decode_message
from edgeagents.errors import InvalidInputError, MalformedMessageError
from edgeagents.model.device import make_reading
from edgeagents.model.envelope import (
    EdgexMessage,
    Envelope,
    EventMessage,
)
from tests.unit.adapters.test_events import EVENT_TOPIC, ORIGIN, decode, event, request_of

TOPICS = [
    EVENT_TOPIC,
    "edgex/events/core/svc/p/d/r",
    "edgex/rules-events",
    "edgex/rules/agents",
    "edgex/configs/edgex/v4/app-x/Writable/LogLevel",
    "edgex/system-events/core-metadata/device/add/svc/p",
    "edgex/core/command/request/d/c/get",
    "edgex/core/command/request/d/c/set",
    "edgex/core/commandquery/request/d",
    "edgex/device/command/request/svc/d/c/set",
    "edgex/response/core-command/8ab1",
    "edgex/telemetry/app-x/MessagesReceived",
    "edgex/svc/validate/device",
    "edgex/something/else",
    "elsewhere",
    "edgex/",
    "",
]
MESSAGES = get_args(EdgexMessage)


def attempt(topic: str, data: bytes, headers: dict[str, str] | None = None) -> EdgexMessage | None:
    """Return what bytes mean, None when they are refused; anything else is a failure of the test."""
    try:
        message = decode_message(topic, data, headers)
    except MalformedMessageError as error:
        refusal = error
    else:
        assert type(message) in MESSAGES
        return message
    assert refusal.cause_kind
    assert len(str(refusal)) <= 500
    return None


any_text = st.text(st.characters(), max_size=12)  # lone surrogates too
numbers = st.integers() | st.floats() | st.sampled_from([10**400, 2**63, 2**64, 1e308, -0.0, math.nan, math.inf])
json_values = st.recursive(
    st.none() | st.booleans() | numbers | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=10,
)
ENVELOPE_KEYS = [
    "apiVersion", "receivedTopic", "correlationID", "requestID", "errorCode", "payload", "contentType", "queryParams",
]  # fmt: skip
PAYLOAD_KEYS = [
    "apiVersion", "requestId", "event", "id", "deviceName", "profileName", "sourceName", "origin", "readings", "tags",
    "valueType", "value", "resourceName", "objectValue", "binaryValue", "key", "type", "action", "source", "owner",
    "details", "timestamp", "name", "fields", "device", "serviceName", "protocols", "labels",
]  # fmt: skip


def as_json(value: Any) -> bytes:
    """Return the text Python writes, NaN, infinities and lone surrogates included."""
    return json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass")


@given(st.sampled_from(TOPICS) | any_text, st.binary())
def test_any_bytes_on_any_topic_are_a_message_or_a_rejection(topic: str, data: bytes) -> None:
    attempt(topic, data)


@given(st.sampled_from(TOPICS), json_values, st.booleans())
def test_any_json_is_a_message_or_a_rejection(topic: str, body: Any, is_ascii: bool) -> None:
    attempt(topic, json.dumps(body).encode() if is_ascii else as_json(body))


@given(st.sampled_from(TOPICS), st.dictionaries(st.sampled_from(ENVELOPE_KEYS), json_values))
def test_any_value_in_any_field_of_an_envelope_is_a_message_or_a_rejection(topic: str, body: dict[str, Any]) -> None:
    attempt(topic, as_json(body))


payloads = st.recursive(
    json_values | st.sampled_from([event().to_wire(), request_of(event()), [{"name": "n", "value": 1}], "Int8", "d"]),
    lambda inner: st.dictionaries(st.sampled_from(PAYLOAD_KEYS), inner, max_size=6) | st.lists(inner, max_size=2),
    max_leaves=12,
)


@given(st.sampled_from(TOPICS), payloads, st.sampled_from([0, 0, 0, 1, -1]), st.booleans())
def test_any_payload_is_a_message_or_a_rejection(topic: str, payload: Any, code: int, is_base64: bool) -> None:
    body = base64.b64encode(as_json(payload)).decode() if is_base64 else payload
    attempt(topic, as_json({"payload": body, "errorCode": code, "contentType": "application/json"}))


@given(st.data())
def test_a_wrong_type_anywhere_in_an_event_is_a_message_or_a_rejection(data: st.DataObject) -> None:
    body = request_of(event(tags={"a": 1}))
    place: Any = body
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else list(range(len(place)))))
        if not isinstance(place[key], (dict, list)) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(json_values)
    message = attempt(EVENT_TOPIC, as_json({"payload": body, "contentType": "application/json"}))
    if isinstance(message, EventMessage):
        for reading in message.event.readings:
            try:
                reading.decoded()
            except InvalidInputError:
                continue


@given(st.sampled_from(TOPICS), st.data())
def test_a_real_message_with_changed_bytes_is_a_message_or_a_rejection(topic: str, data: st.DataObject) -> None:
    raw = bytearray(encode_envelope(Envelope(request_of(event(tags={"ä": "ö"})), "c", "q")))
    for _ in range(data.draw(st.integers(1, 5))):
        place = data.draw(st.integers(0, len(raw) - 1))
        match data.draw(st.integers(0, 2)):
            case 0:
                raw[place] = data.draw(st.integers(0, 255))
            case 1:
                del raw[place : place + data.draw(st.integers(1, 20))]
            case _:
                raw[place:place] = data.draw(
                    st.binary(max_size=8) | st.sampled_from([b"NaN", b"\\ud800", b"[", b"1e999"])
                )
        if not raw:
            return
    attempt(topic, bytes(raw))


header_names = ["X-Correlation-ID", "Content-Type", "RequestId", "ApiVersion", "ErrorCode", "QueryParams", "Nmqtt-Pub"]
header_values = any_text | st.sampled_from(
    ["application/json", "application/cbor", "text/plain", "application/json; charset=utf-8", "0", "1", "٣", "a:b", ":"]
)


@given(
    st.sampled_from(TOPICS),
    st.binary() | json_values.map(as_json),
    st.dictionaries(st.sampled_from(header_names), header_values),
)
def test_any_headers_are_a_message_or_a_rejection(topic: str, data: bytes, headers: dict[str, str]) -> None:
    attempt(topic, data, headers)


@pytest.mark.parametrize("depth", [MAX_NESTING + 1, 300, 990, 20_000, 500_000])
@pytest.mark.parametrize("code", [0, 1])
def test_deep_nesting_is_refused(depth: int, code: int) -> None:
    for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
        payload = opening * depth + b"1" + closing * depth
        whole = b'{"contentType":"application/json","errorCode":%d,"payload":%b}' % (code, payload)
        with pytest.raises(MalformedMessageError) as caught:
            decode_message(EVENT_TOPIC, whole)
        assert caught.value.cause_kind in ("too-deep", "not-json", "too-many-items")


def test_nesting_that_is_allowed_survives_being_written_again() -> None:
    value: Any = 1
    for _ in range(MAX_NESTING - 8):
        value = {"a": value}
    reading = make_reading("d", "p", "r", "Object", value, ORIGIN, reading_id="i")
    message = decode(EVENT_TOPIC, request_of(event(readings=(reading,))))
    assert isinstance(message, EventMessage)
    again = decode_message(EVENT_TOPIC, encode_envelope(Envelope(request_of(message.event))))
    assert isinstance(again, EventMessage)
    assert again.event == message.event


def test_wide_is_not_deep() -> None:
    body = request_of(event(tags={f"t{number}": [number] for number in range(1000)}))
    assert isinstance(decode(EVENT_TOPIC, body), EventMessage)


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", "not-json"),
        (b"{bad", "not-json"),
        (b'{"payload":NaN}', "not-json"),
        (b'{"payload":-Infinity}', "not-json"),
        (b'{"payload":1e999}', "not-json"),
        (b'{"payload":' + b"9" * 5000 + b"}", "not-json"),
        (b'{"payload":"\xff"}', "not-json"),
        (b'{"correlationID":"\xed\xa0\x80"}', "not-json"),
        (b'{"correlationID":"\\ud800"}', "not-json"),
        (b'{"\\udfff":1,"payload":1}', "not-json"),
        ('{"payload":null}'.encode("utf-16"), "not-json"),
        (b"\xef\xbb\xbf" + b'{"payload":null}', "not-json"),
        (b'{"payload":null} trailing', "not-json"),
        (b"[]", "not-an-envelope"),
        (b"{}", "not-an-envelope"),
        (b'"text"', "not-an-envelope"),
        (b'{"payload":null,"errorCode":"0"}', "not-an-envelope"),
        (b'{"payload":null,"errorCode":true}', "not-an-envelope"),
        (b'{"payload":null,"errorCode":0.5}', "not-an-envelope"),
        (b'{"payload":null,"queryParams":[]}', "not-an-envelope"),
        (b'{"payload":null,"queryParams":"a"}', "not-an-envelope"),
        (b'{"payload":null,"correlationID":5}', "not-an-envelope"),
        (b'{"payload":null,"contentType":{}}', "not-an-envelope"),
        (b'{"payload":"not base64!","contentType":"application/json"}', "not-base64"),
        (b'{"payload":"AA=","contentType":"application/json"}', "not-base64"),
        (b'{"payload":"e30=","contentType":"application/cbor"}', "not-cbor"),
        (b"\xa8japiVersionbv3", "not-cbor"),
        (b"\xa1gpayload\xf6\x00", "trailing-bytes"),
        (b"\xa2gpayload\xf6gpayload\xf6", "duplicate-key"),
        (b"\xa1gpayload\xc1\x00", "cbor-tag"),
        (b"\xa1\x01\x02", "not-cbor"),
        (b"\xa0", "not-an-envelope"),
        (b'{"payload":"e30=","contentType":"application/xml"}', "content-type"),
        (b'{"payload":"e2JhZA==","contentType":"application/json"}', "not-json"),
        (b" " * (MAX_ENVELOPE_BYTES + 1), "too-large"),
    ],
)
def test_what_is_no_envelope_is_refused_by_its_cause(data: bytes, cause: str) -> None:
    with pytest.raises(MalformedMessageError) as caught:
        decode_envelope(data)
    assert caught.value.cause_kind == cause


def test_an_escaped_pair_of_surrogates_is_one_character() -> None:
    assert decode_envelope(b'{"payload":null,"correlationID":"\\ud83d\\ude00"}').correlation_id == "\N{GRINNING FACE}"


@pytest.mark.parametrize(
    ("topic", "payload", "cause"),
    [
        (EVENT_TOPIC, None, "wrong-shape"),
        (EVENT_TOPIC, [], "wrong-shape"),
        (EVENT_TOPIC, {}, "wrong-shape"),
        (EVENT_TOPIC, {"event": None}, "wrong-shape"),
        (EVENT_TOPIC, {"event": {"id": "e"}}, "wrong-shape"),
        (EVENT_TOPIC, request_of(event(device_name="another")), "topic-mismatch"),
        (EVENT_TOPIC, request_of(event(readings=({"value_type": "Bool", "value": "true"},) * 2)), "wrong-shape"),
        ("edgex/configs/x", {}, "wrong-shape"),
        ("edgex/configs/x", {"key": 5}, "wrong-shape"),
        ("edgex/system-events/s/device/add/o", {"type": "device"}, "wrong-shape"),
        ("edgex/core/command/request/d/c/put", {}, "wrong-shape"),
        ("edgex/core/command/request/d/c/set", None, "wrong-shape"),
        ("edgex/core/command/request/d/c/set", ["a"], "wrong-shape"),
        ("edgex/svc/validate/device", {"device": {}}, "wrong-shape"),
        ("edgex/svc/validate/device", {}, "wrong-shape"),
        ("edgex/telemetry/s/m", {"fields": [{"name": "n"}]}, "wrong-shape"),
        ("edgex/telemetry/s/m", {"fields": [5]}, "wrong-shape"),
        ("edgex/telemetry/s/m", {"fields": [{"name": "n", "value": 10**400}]}, "wrong-shape"),
        ("edgex/response/s/q", {"event": 5}, "wrong-shape"),
    ],
)
def test_a_payload_that_breaks_its_topic_s_promise_is_refused_by_its_cause(
    topic: str, payload: Any, cause: str
) -> None:
    with pytest.raises(MalformedMessageError) as caught:
        decode(topic, payload)
    assert caught.value.cause_kind == cause


def test_a_refusal_names_the_field() -> None:
    body = request_of(event())
    body["event"]["readings"][0]["valueType"] = "Int128"
    with pytest.raises(MalformedMessageError, match=r"readings\.0\.valueType: .*Int128"):
        decode(EVENT_TOPIC, body)
