"""EdgeX's message bus -> what a message means.

Any bytes in: a message or a `MalformedMessageError`, never another exception.

Understands envelopes in JSON with a plain or base64 payload, and NATS messages whose metadata stands in
headers (EdgeX built for NATS, format `nats`). CBOR and optimised payloads are refused by name for now.
JSON is taken as strictly as Go takes it: UTF-8, no NaN, no number beyond a float, no lone surrogate, bounded nesting.

Source: edgex-wire.md sections 1.1 to 1.4; recordings of EdgeX 4.0.2.
"""

import base64
import binascii
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import unquote

from pydantic import ValidationError

from edgeagents.errors import InvalidInputError, MalformedMessageError
from edgeagents.model.device import Device, Event
from edgeagents.model.envelope import (
    Answer,
    CommandQuery,
    CommandRequest,
    ConfigChange,
    EdgexMessage,
    Envelope,
    EventMessage,
    Metric,
    Other,
    SystemEvent,
    ValidateDevice,
)

MAX_NESTING: Final = 64
MAX_ENVELOPE_BYTES: Final = 26_214_400  # core-data's own MaxEventSize, 25,000 KB, and some room for the envelope
JSON: Final = "application/json"
CBOR: Final = "application/cbor"
_CBOR_MAPS: Final = frozenset(bytes([first]) for first in range(0xA0, 0xC0))  # no JSON starts with these


def encode_envelope(envelope: Envelope) -> bytes:
    """Return an envelope in JSON with its payload embedded, EdgeX 4's default.

    Raises:
        InvalidInputError: the payload holds what JSON cannot: NaN, an infinity, a lone surrogate.
    """
    body: dict[str, Any] = {
        "apiVersion": "v3",
        "receivedTopic": envelope.received_topic,
        "correlationID": envelope.correlation_id,
        "requestID": envelope.request_id,
        "errorCode": envelope.error_code,
        "payload": envelope.payload,
        "contentType": envelope.content_type,
    }
    if envelope.query_params:
        body["queryParams"] = envelope.query_params
    return _json_bytes(body)


def encode_headers(envelope: Envelope) -> tuple[bytes, dict[str, str]]:
    """Return data and headers of EdgeX's NATS format `nats`: the metadata in headers, the data is the payload.

    nats-py holds one value per header name, so of several query parameters only the first is sent.

    Raises:
        InvalidInputError: as `encode_envelope`.
    """
    headers = {
        "X-Correlation-ID": envelope.correlation_id,
        "Content-Type": envelope.content_type,
        "RequestId": envelope.request_id,
        "ApiVersion": "v3",
        "ErrorCode": str(envelope.error_code),
    }
    for key, value in list(envelope.query_params.items())[:1]:
        headers["QueryParams"] = f"{key}:{value}"
    if envelope.payload is None:
        return b"", headers
    if envelope.error_code:
        return str(envelope.payload).encode(), headers
    return _json_bytes(envelope.payload), headers


def _json_bytes(body: Any) -> bytes:
    try:
        return json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except ValueError as error:
        raise InvalidInputError(f"this cannot be written as JSON: {error}") from error


def decode_envelope(data: bytes, headers: Mapping[str, str] | None = None) -> Envelope:
    """Return the envelope that a message holds, its payload decoded.

    Args:
        data: the message's bytes.
        headers: NATS headers; a `Content-Type` among them means format `nats`.

    Raises:
        MalformedMessageError: these bytes are no envelope.
    """
    if len(data) > MAX_ENVELOPE_BYTES:
        raise MalformedMessageError(f"message of {len(data)} bytes: at most {MAX_ENVELOPE_BYTES}", "too-large")
    if headers and "Content-Type" in headers:
        return _from_headers(data, headers)
    if data[:1] in _CBOR_MAPS:
        raise MalformedMessageError("envelope is CBOR, which this version does not read", "cbor")
    body = _json(data, "envelope")
    if not isinstance(body, dict):
        raise MalformedMessageError(f"an envelope is an object, not {type(body).__name__}", "not-an-envelope")
    code = body.get("errorCode", 0)
    content_type = _text(body, "contentType").partition(";")[0].strip() or JSON
    if isinstance(code, bool) or not isinstance(code, int):
        raise MalformedMessageError(f"errorCode {code!r} is no integer", "not-an-envelope")
    if "payload" not in body and not (body.keys() & {"correlationID", "requestID", "contentType", "errorCode"}):
        raise MalformedMessageError("none of an envelope's keys is there", "not-an-envelope")
    query = {} if body.get("queryParams") is None else body["queryParams"]
    if not isinstance(query, dict):
        raise MalformedMessageError("queryParams is no object", "not-an-envelope")
    return Envelope(
        payload=_payload(body.get("payload"), content_type, code),
        correlation_id=_text(body, "correlationID"),
        request_id=_text(body, "requestID"),
        error_code=code,
        content_type=content_type,
        received_topic=_text(body, "receivedTopic"),
        query_params={str(key): str(value) for key, value in query.items()},
    )


def _from_headers(data: bytes, headers: Mapping[str, str]) -> Envelope:
    content_type = headers["Content-Type"].partition(";")[0].strip()
    try:
        code = int(headers.get("ErrorCode") or 0)
    except ValueError as error:
        text = f"header ErrorCode {headers['ErrorCode']!r} is no integer"
        raise MalformedMessageError(text, "not-an-envelope") from error
    key, _, value = headers.get("QueryParams", "").partition(":")
    return Envelope(
        payload=_parse(data, content_type, code) if data else None,
        correlation_id=headers.get("X-Correlation-ID", ""),
        request_id=headers.get("RequestId", ""),
        error_code=code,
        content_type=content_type,
        query_params={key: value} if key else {},
    )


def _payload(payload: Any, content_type: str, code: int) -> Any:
    if code != 0:
        return _error_text(payload)
    if not isinstance(payload, str):
        return payload
    # A string is base64 in every EdgeX (Go fails if it is not).
    try:
        data = base64.b64decode(payload, validate=True)
    except (ValueError, binascii.Error) as error:
        raise MalformedMessageError("a payload that is a string must be base64", "not-base64") from error
    return _parse(data, content_type, code)


def _error_text(payload: Any) -> str:
    return payload if isinstance(payload, str) else "" if payload is None else json.dumps(payload)


def _parse(data: bytes, content_type: str, code: int) -> Any:
    if code != 0 or content_type == "text/plain":
        return data.decode(errors="replace")
    if content_type == CBOR:
        raise MalformedMessageError("payload is CBOR, which this version does not read", "cbor")
    if content_type != JSON:
        raise MalformedMessageError(f"content type {content_type!r} is neither JSON nor text", "content-type")
    return _json(data, "payload")


def _json(data: bytes, what: str) -> Any:
    try:
        # json.loads on bytes would take UTF-16 and lone surrogates; on text it would take NaN and make 1e999 infinite.
        value = json.loads(data.decode(), parse_constant=_no_number, parse_float=_finite)
        if b"\\u" in data:
            json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate hides in \\ud800
    except (ValueError, RecursionError) as error:
        raise MalformedMessageError(f"{what} is not JSON: {str(error)[:200]}", "not-json") from error
    # Counting is cheap and nearly always answers.
    if data.count(b"[") + data.count(b"{") > MAX_NESTING and _is_deeper(value, MAX_NESTING):
        raise MalformedMessageError(f"{what} is nested deeper than {MAX_NESTING} levels", "too-deep")
    return value


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no JSON number")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits[:40]} is beyond a 64-bit float")
    return number


def _is_deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, (dict, list)):
        return False
    items = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(item, levels - 1) for item in items)


def _text(body: Mapping[str, Any], key: str) -> str:
    value = body.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise MalformedMessageError(f"{key} is no text", "not-an-envelope")
    return value


# --- what a message means, by its topic ----------------------------------------------------------


def decode_message(
    topic: str, data: bytes, headers: Mapping[str, str] | None = None, base: str = "edgex"
) -> EdgexMessage:
    """Return what a bus message means.

    Args:
        topic: the EdgeX topic it arrived on, base included.
        data: its bytes.
        headers: its NATS headers, if any.
        base: `MessageBus.BaseTopicPrefix`.

    Raises:
        MalformedMessageError: no envelope, or a payload that is not what its topic promises.
    """
    envelope = decode_envelope(data, headers)
    return interpret(topic, envelope, base)


def interpret(topic: str, envelope: Envelope, base: str = "edgex") -> EdgexMessage:
    """Return what an envelope on a topic means; see `decode_message`."""
    if topic.startswith("edgex/configs/"):  # fixed in every EdgeX client, not <base>
        return _config(topic, envelope)
    prefix = f"{base}/"
    if not topic.startswith(prefix):
        return Other(topic, envelope)
    levels = [unquote(level) for level in topic[len(prefix) :].split("/")]
    for shape, make in _SHAPES:
        if len(levels) >= len(shape) and all(want in ("+", have) for want, have in zip(shape, levels, strict=False)):
            try:
                return make(topic, envelope, levels)
            except ValidationError as error:
                first = error.errors(include_url=False, include_input=False)[0]
                where = ".".join(str(part) for part in first["loc"]) or "payload"
                raise MalformedMessageError(f"{where}: {first['msg']}", "wrong-shape") from error
    return Other(topic, envelope)


def event_of(payload: Any) -> Event:
    """Return the event in an AddEventRequest, or a bare event.

    Raises:
        MalformedMessageError: neither, or an optimised one.
        ValidationError: an event that breaks its contract.
    """
    body = _object(payload)
    event = Event.model_validate(_object(body["event"]) if "event" in body else body)
    if not all(reading.device_name and reading.resource_name for reading in event.readings):
        text = "an optimised event, which this version does not read: set EDGEX_OPTIMIZE_EVENT_PAYLOAD to false"
        raise MalformedMessageError(text, "optimised")
    return event


def _object(payload: Any) -> dict[str, Any]:
    if not isinstance(payload, dict):
        raise MalformedMessageError(f"payload is {type(payload).__name__}, not an object", "wrong-shape")
    return payload


def _event(topic: str, envelope: Envelope, levels: list[str]) -> EdgexMessage:
    if envelope.error_code:
        raise MalformedMessageError(f"error on an event topic: {envelope.payload}", "wrong-shape")
    event = event_of(envelope.payload)
    names = (event.profile_name, event.device_name, event.source_name)
    # As core-data does: an event of a device service must be about the device its topic names, escaped or not.
    # (A name with a dot takes two levels with EdgeX on NATS; then there is nothing to compare.)
    spoken = (tuple(levels[3:]), tuple(topic.split("/")[-3:]))
    if levels[:2] == ["events", "device"] and len(levels) == 6 and all(names) and names not in spoken:
        raise MalformedMessageError(f"an event of {'/'.join(names)!r} on {topic!r}", "topic-mismatch")
    return EventMessage(topic, envelope, event)


def _config(topic: str, envelope: Envelope) -> EdgexMessage:
    body = _object(envelope.payload)
    key = body.get("key")
    if not isinstance(key, str) or not key:
        raise MalformedMessageError("a config notice names no key", "wrong-shape")
    return ConfigChange(topic, envelope, key, body.get("value"))


def _system_event(topic: str, envelope: Envelope, levels: list[str]) -> EdgexMessage:
    body = _object(envelope.payload)
    words = {key: body.get(key) for key in ("type", "action", "source", "owner")}
    if not all(isinstance(word, str) for word in words.values()):
        raise MalformedMessageError("a system event needs type, action, source and owner", "wrong-shape")
    details, timestamp = body.get("details"), body.get("timestamp", 0)
    return SystemEvent(
        topic, envelope, str(words["type"]), str(words["action"]), str(words["source"]), str(words["owner"]),
        details if isinstance(details, dict) else {}, timestamp if isinstance(timestamp, int) else 0,
    )  # fmt: skip


def _command(topic: str, envelope: Envelope, device: str, command: str, verb: str, service: str) -> EdgexMessage:
    if verb.lower() not in ("get", "set"):
        raise MalformedMessageError(f"{verb!r} is neither get nor set", "wrong-shape")
    is_set = verb.lower() == "set"
    return CommandRequest(
        topic, envelope, device, command, is_set, _object(envelope.payload) if is_set else {}, service
    )


def _answer(topic: str, envelope: Envelope, levels: list[str]) -> EdgexMessage:
    error = _error_text(envelope.payload) if envelope.error_code else None
    payload = envelope.payload
    event = event_of(payload) if error is None and isinstance(payload, dict) and "event" in payload else None
    return Answer(topic, envelope, levels[1], levels[2], error, event)


def _validate(topic: str, envelope: Envelope, levels: list[str]) -> EdgexMessage:
    return ValidateDevice(
        topic, envelope, levels[0], Device.model_validate(_object(_object(envelope.payload).get("device")))
    )


def _metric(topic: str, envelope: Envelope, levels: list[str]) -> EdgexMessage:
    body = _object(envelope.payload)
    try:
        fields = {str(item["name"]): float(item["value"]) for item in body.get("fields") or []}
        tags = {str(item["name"]): str(item["value"]) for item in body.get("tags") or []}
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise MalformedMessageError("a metric's fields and tags are lists of name and value", "wrong-shape") from error
    timestamp = body.get("timestamp", 0)
    return Metric(topic, envelope, levels[1], levels[2], fields, tags, timestamp if isinstance(timestamp, int) else 0)


_Make = Callable[[str, Envelope, list[str]], EdgexMessage]
_SHAPES: Final[tuple[tuple[tuple[str, ...], _Make], ...]] = (
    (("events", "device"), _event),
    (("events", "core"), _event),
    (("rules-events",), _event),
    (("rules",), _event),
    (("system-events", "+", "+", "+", "+"), _system_event),
    (("core", "command", "request", "+", "+", "+"), lambda t, e, n: _command(t, e, n[3], n[4], n[5], "")),
    (("core", "commandquery", "request", "+"), lambda t, e, n: CommandQuery(t, e, n[3])),
    (
        ("device", "command", "request", "+", "+", "+", "+"),
        lambda t, e, n: _command(t, e, n[4], n[5], n[6], n[3]),
    ),
    (("response", "+", "+"), _answer),
    (("telemetry", "+", "+"), _metric),
    (("+", "validate", "device"), _validate),
)
