"""What messages of EdgeX's bus mean, and what we write to it."""

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeagents.adapters.envelopes import Encoding, decode_envelope, encode_envelope, encode_headers
from edgeagents.adapters.events import decode_message
from edgeagents.errors import InvalidInputError, MalformedMessageError
from edgeagents.model.device import Event, make_reading
from edgeagents.model.envelope import (
    Answer,
    CommandRequest,
    ConfigChange,
    EdgexMessage,
    Envelope,
    EventMessage,
    Metric,
    Other,
    SystemEvent,
)
from edgeagents.model.values import SIMPLE_TYPES
from tests.unit.model.test_values import typed_values

ORIGIN = 1_764_000_000_000_000_000
EVENT_TOPIC = "edgex/events/device/svc/p/d/r"


def event(**changes: Any) -> Event:
    """Return an event with one reading."""
    readings = (make_reading("d", "p", "r", "Float64", 21.5, ORIGIN, reading_id="i"),)
    fields = {"id": "e", "device_name": "d", "profile_name": "p", "source_name": "r", "origin": ORIGIN}
    return Event(**{**fields, "readings": readings, **changes})


def request_of(one: Event) -> dict[str, Any]:
    """Return the AddEventRequest of an event."""
    return {"apiVersion": "v3", "requestId": "q", "event": one.to_wire()}


def decode(topic: str, body: Any, **envelope: Any) -> EdgexMessage:
    """Return what an envelope around `body` means on a topic."""
    whole = {"correlationID": "c", "contentType": "application/json", "payload": body, **envelope}
    return decode_message(topic, json.dumps(whole).encode())


# --- what it means -------------------------------------------------------------------------------


def test_names_in_topics_may_be_escaped() -> None:
    message = decode("edgex/device/command/request/svc/lamp%2Eone%20a/On%2BOff/SET", {"On+Off": "true"})
    assert isinstance(message, CommandRequest)
    assert (message.service, message.device, message.command) == ("svc", "lamp.one a", "On+Off")
    assert (message.is_set, message.settings) == (True, {"On+Off": "true"})
    for device, topic in (
        ("lamp.one", "edgex/events/device/svc/p/lamp%2Eone/r"),
        ("50%25", "edgex/events/device/svc/p/50%25/r"),
    ):
        found = decode(topic, request_of(event(device_name=device)))
        assert isinstance(found, EventMessage)
        assert found.event.device_name == device


def test_a_bare_event_and_a_request_mean_the_same() -> None:
    bare, wrapped = decode("edgex/rules-events", event().to_wire()), decode("edgex/rules-events", request_of(event()))
    assert isinstance(bare, EventMessage)
    assert isinstance(wrapped, EventMessage)
    assert bare.event == wrapped.event == event()


def test_an_event_of_a_rule_is_one_though_it_follows_no_other_events_form() -> None:
    # As eKuiper's edgex sink writes it: no correlation id, the event's version v4, a device that is nowhere known.
    made_up = {"deviceName": "ekuiper", "profileName": "ekuiperProfile", "origin": ORIGIN}
    reading = made_up | {"id": "i", "resourceName": "wanted", "valueType": "Int64", "value": "114"}
    body = made_up | {"apiVersion": "v4", "id": "e", "sourceName": "level-hall", "readings": [reading]}
    found = decode(
        "edgex/rules/agents", body, apiVersion="v3", receivedTopic="", correlationID="", requestID="", errorCode=0
    )
    assert isinstance(found, EventMessage)
    assert (found.event.device_name, found.event.source_name) == ("ekuiper", "level-hall")
    assert [(item.resource_name, item.value) for item in found.event.readings] == [("wanted", "114")]


def test_another_base_has_its_own_topics_but_configuration_is_fixed() -> None:
    data = encode_envelope(Envelope(request_of(event())))
    assert isinstance(decode_message("site/events/device/svc/p/d/r", data, base="site"), EventMessage)
    assert isinstance(decode_message(EVENT_TOPIC, data, base="site"), Other)
    config = encode_envelope(Envelope({"key": "edgex/v4/app-x/Writable/LogLevel", "value": "DEBUG"}))
    assert isinstance(
        decode_message("edgex/configs/edgex/v4/app-x/Writable/LogLevel", config, base="site"), ConfigChange
    )


def test_a_deleted_key_has_no_value() -> None:
    message = decode("edgex/configs/edgex/v4/app-x/A", {"key": "edgex/v4/app-x/A"})
    assert isinstance(message, ConfigChange)
    assert message.value is None


def test_an_error_answer_is_text_whatever_it_was() -> None:
    for payload, text in (("no such device", "no such device"), (None, ""), ({"a": 1}, '{"a": 1}')):
        message = decode("edgex/response/core-command/q1", payload, errorCode=1, contentType="text/plain")
        assert isinstance(message, Answer)
        assert (message.error, message.event, message.request_id) == (text, None, "q1")


def test_an_error_on_an_event_topic_is_no_event() -> None:
    with pytest.raises(MalformedMessageError, match="error on an event topic"):
        decode(EVENT_TOPIC, "broken", errorCode=1)


def test_a_metric_and_a_system_event_keep_their_words() -> None:
    metric = decode(
        "edgex/telemetry/app-x/Seen",
        {
            "fields": [{"name": "counter-count", "value": 3}],
            "tags": [{"name": "service", "value": "app-x"}],
            "timestamp": 7,
        },
    )
    assert isinstance(metric, Metric)
    assert (metric.service, metric.name, metric.fields, metric.tags) == (
        "app-x",
        "Seen",
        {"counter-count": 3.0},
        {"service": "app-x"},
    )
    body = {"type": "device", "action": "delete", "source": "core-metadata", "owner": "svc", "details": None}
    notice = decode("edgex/system-events/core-metadata/device/delete/svc/p", body)
    assert isinstance(notice, SystemEvent)
    assert (notice.action, notice.details, notice.timestamp_ns) == ("delete", {}, 0)


def test_content_type_parameters_and_unknown_keys_are_ignored() -> None:
    message = decode(EVENT_TOPIC, request_of(event()), contentType="application/json; charset=utf-8", hue=5)
    assert message.envelope.content_type == "application/json"


# --- what we write -------------------------------------------------------------------------------


@st.composite
def events(draw: st.DrawFn) -> Event:
    """Draw an event of up to four readings of any type."""
    name = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=10)
    device, profile, source = draw(name), draw(name), draw(name)
    readings = []
    for number in range(draw(st.integers(1, 4))):
        kind, value = draw(typed)
        readings.append(
            make_reading(device, profile, f"r{number}", kind, value, ORIGIN, reading_id="i", media_type="x")
        )
    return Event(
        id="e", device_name=device, profile_name=profile, source_name=source, origin=draw(st.integers(1, 2**63 - 1)),
        readings=tuple(readings), tags=draw(st.none() | st.dictionaries(name, name, max_size=2)),
    )  # fmt: skip


finite = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
typed: st.SearchStrategy[tuple[str, Any]] = st.one_of(
    typed_values(),
    st.tuples(st.just("Binary"), st.binary()),
    st.tuples(st.just("Object"), st.dictionaries(st.text(max_size=5), finite, max_size=3)),
    st.tuples(st.sampled_from(SIMPLE_TYPES), st.none()),
)


encodings = st.builds(Encoding, st.booleans(), st.booleans(), st.booleans(), st.booleans())


@settings(max_examples=300)
@given(events(), encodings, st.sampled_from(["mqtt", "json", "nats"]))
def test_an_event_survives_the_wire_in_every_encoding(one: Event, encoding: Encoding, form: str) -> None:
    envelope = Envelope(request_of(one), "c", "q", query_params={"a": "b:c"})
    headers: dict[str, str] = {}
    if form == "nats":
        data, headers = encode_headers(envelope, encoding)
    else:
        data = encode_envelope(envelope, encoding, is_mqtt=form == "mqtt")
    message = decode_message("edgex/rules/agents", data, headers)
    assert isinstance(message, EventMessage)
    assert message.event == (without_ids(one) if encoding.optimise else one)
    assert [r.decoded() for r in message.event.readings] == [r.decoded() for r in one.readings] or _has_nan(one)
    assert (message.envelope.correlation_id, message.envelope.request_id) == ("c", "q")
    assert message.envelope.query_params == {"a": "b:c"}
    is_binary = any(reading.value_type == "Binary" for reading in one.readings)
    is_cbor = is_binary or encoding.events_cbor or (encoding.cbor and form != "json")
    assert message.envelope.content_type == ("application/cbor" if is_cbor else "application/json")


def without_ids(one: Event) -> Event:
    """Return an event as an optimised one comes back: its readings have no ids."""
    return one.model_copy(update={"readings": tuple(reading.model_copy(update={"id": ""}) for reading in one.readings)})


def _has_nan(one: Event) -> bool:
    return any("NaN" in str(reading.value) for reading in one.readings)


def test_an_error_survives_both_formats() -> None:
    envelope = Envelope("down: ä", "c", "q", error_code=1, content_type="text/plain")
    assert decode_envelope(encode_envelope(envelope)) == envelope
    assert decode_envelope(*encode_headers(envelope)) == envelope


def test_no_payload_survives_both_formats() -> None:
    envelope = Envelope(None, "c", "q")
    assert decode_envelope(encode_envelope(envelope)) == envelope
    assert decode_envelope(*encode_headers(envelope)) == envelope


@pytest.mark.parametrize("payload", [math.nan, {"a": [math.inf]}, "\ud800", {"\udfff": 1}])
def test_what_json_cannot_hold_is_not_written(payload: Any) -> None:
    for write in (encode_envelope, encode_headers):
        with pytest.raises(InvalidInputError):
            write(Envelope(payload))
