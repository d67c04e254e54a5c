"""EdgeX's MessageEnvelope, bytes both ways. What comes in is recognised by itself; what goes out follows settings.

Read: JSON with the payload embedded or in base64 (itself JSON or CBOR), an envelope that is CBOR as a whole, and
NATS messages whose metadata stands in headers (`MessageBus.Optional.Format` = `nats`), their data JSON or CBOR.
The payload is always handed on as JSON would hold it. JSON is taken as strictly as Go takes it: UTF-8, no NaN, no
number beyond a float, no lone surrogate; nesting and the number of items are bounded.

Source: edgex-wire.md sections 1.1 to 1.6; recordings of EdgeX 4.0.2.
"""

import base64
import binascii
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from edgeagents.adapters import cbor
from edgeagents.adapters.cbor import MAX_ITEMS, MAX_NESTING
from edgeagents.adapters.event_payloads import event_within, has_binary, optimised, with_bytes, with_event
from edgeagents.errors import InvalidInputError, MalformedMessageError
from edgeagents.model.envelope import Envelope

MAX_ENVELOPE_BYTES: Final = 26_214_400  # core-data's own MaxEventSize, 25,000 KB, and some room for the envelope
JSON: Final = "application/json"
CBOR: Final = "application/cbor"
TEXT: Final = "text/plain"
_CBOR_MAPS: Final = frozenset(bytes([first]) for first in range(0xA0, 0xC0))  # no JSON starts with these
_STRINGS: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Encoding:
    """How we write, by EdgeX's own variables; they must be equal in all services of a gateway.

    Args:
        base64_payload: `EDGEX_MSG_BASE64_PAYLOAD`: the payload of a JSON envelope is base64.
        cbor: `EDGEX_MSG_CBOR_ENCODE`: envelopes over MQTT, and data in NATS's format `nats`, are CBOR.
        events_cbor: `EDGEX_ENCODE_ALL_EVENTS_CBOR`: events are CBOR; one with a Binary reading always is.
        optimise: `EDGEX_OPTIMIZE_EVENT_PAYLOAD`: readings leave out what their event says.
    """

    base64_payload: bool = False
    cbor: bool = False
    events_cbor: bool = False
    optimise: bool = False

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "Encoding":
        """Return what the environment asks for; as in EdgeX only the exact text `true` turns something on."""
        return cls(
            base64_payload=environ.get("EDGEX_MSG_BASE64_PAYLOAD") == "true",
            cbor=environ.get("EDGEX_MSG_CBOR_ENCODE") == "true",
            events_cbor=environ.get("EDGEX_ENCODE_ALL_EVENTS_CBOR") == "true",
            optimise=environ.get("EDGEX_OPTIMIZE_EVENT_PAYLOAD") == "true",
        )


PLAIN: Final = Encoding()


# --- out -----------------------------------------------------------------------------------------


def encode_payload(payload: Any, encoding: Encoding = PLAIN) -> tuple[bytes, str]:
    """Return a payload by itself, as a REST body holds it, and its content type: CBOR for some events, else JSON.

    Raises:
        InvalidInputError: it holds what the encoding cannot.
    """
    ready, is_cbor = _ready(payload, encoding)
    return (cbor.dumps(ready), CBOR) if is_cbor else (_json_bytes(ready), JSON)


def encode_envelope(envelope: Envelope, encoding: Encoding = PLAIN, *, is_mqtt: bool = True) -> bytes:
    """Return an envelope in JSON, its payload embedded unless `encoding` asks for more.

    Args:
        envelope: its payload is as JSON holds it; text is taken for encoded already.
        encoding: how to write.
        is_mqtt: whether the envelope may be CBOR as a whole: not in NATS's format `json`.

    Raises:
        InvalidInputError: the payload holds what the encoding cannot: NaN, an infinity, a lone surrogate.
    """
    payload, content_type = envelope.payload, envelope.content_type
    is_whole = encoding.cbor and is_mqtt
    if envelope.error_code:
        payload = error_text(payload)
    elif not isinstance(payload, str):
        ready, is_cbor = _ready(payload, encoding)
        if is_whole:
            payload, content_type = _binary(ready), CBOR
        elif is_cbor:
            payload, content_type = base64.b64encode(cbor.dumps(ready)).decode(), CBOR
        elif encoding.base64_payload and ready is not None:
            payload = base64.b64encode(_json_bytes(ready)).decode()
        else:
            payload = ready
    body: dict[str, Any] = {
        "apiVersion": "v3",
        "receivedTopic": envelope.received_topic,
        "correlationID": envelope.correlation_id,
        "requestID": envelope.request_id,
        "errorCode": envelope.error_code,
        "payload": payload,
        "contentType": content_type,
    }
    if envelope.query_params:
        body["queryParams"] = envelope.query_params
    return cbor.dumps(body) if is_whole else _json_bytes(body)


def encode_headers(envelope: Envelope, encoding: Encoding = PLAIN) -> tuple[bytes, dict[str, str]]:
    """Return data and headers of EdgeX's NATS format `nats`: the metadata in headers, the data is the payload.

    nats-py holds one value per header name, so of several query parameters only the first is sent.

    Raises:
        InvalidInputError: as `encode_envelope`.
    """
    payload, content_type = envelope.payload, envelope.content_type
    if envelope.error_code:
        data = error_text(payload).encode(errors="replace")
    elif payload is None:
        data, content_type = b"", CBOR if encoding.cbor else content_type
    elif isinstance(payload, str) and content_type != JSON:
        data = _from_base64(payload) if content_type == CBOR else payload.encode(errors="replace")
    else:
        ready, is_cbor = _ready(payload, encoding)
        is_cbor = is_cbor or encoding.cbor
        data, content_type = (cbor.dumps(_binary(ready)), CBOR) if is_cbor else (_json_bytes(ready), content_type)
    headers = {
        "X-Correlation-ID": envelope.correlation_id,
        "Content-Type": content_type,
        "RequestId": envelope.request_id,
        "ApiVersion": "v3",
        "ErrorCode": str(envelope.error_code),
    }
    for key, value in list(envelope.query_params.items())[:1]:
        headers["QueryParams"] = f"{key}:{value}"
    return data, headers


def _ready(payload: Any, encoding: Encoding) -> tuple[Any, bool]:
    """Return a payload as it is to be written, and whether it must be CBOR; then its binary values are bytes."""
    event = event_within(payload)
    if event is None:
        return payload, False
    is_cbor = encoding.events_cbor or has_binary(event)
    if encoding.optimise:
        event = optimised(event)
    if is_cbor:
        event = with_bytes(event)
    return with_event(payload, event), is_cbor


def _binary(ready: Any) -> Any:
    """Return what `_ready` left as JSON in CBOR's terms."""
    event = event_within(ready)
    return ready if event is None else with_event(ready, with_bytes(event))


def _json_bytes(body: Any) -> bytes:
    try:
        return json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except (ValueError, TypeError) as error:
        raise InvalidInputError(f"this cannot be written as JSON: {error}") from error


# --- in ------------------------------------------------------------------------------------------


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
    body = cbor.loads(data) if data[:1] in _CBOR_MAPS else _json(data, "envelope")
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


def decode_payload(data: bytes, content_type: str = JSON) -> Any:
    """Return what bytes of a content type hold, in JSON's terms.

    Raises:
        MalformedMessageError: they hold nothing of that type, or the type is unknown.
    """
    if len(data) > MAX_ENVELOPE_BYTES:
        raise MalformedMessageError(f"message of {len(data)} bytes: at most {MAX_ENVELOPE_BYTES}", "too-large")
    return _parse(data, content_type.partition(";")[0].strip(), 0)


def error_text(payload: Any) -> str:
    """Return the text of an error answer's payload."""
    return payload if isinstance(payload, str) else "" if payload is None else json.dumps(payload)


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
        return error_text(payload)
    if not isinstance(payload, str):
        return payload
    # A string is base64 in every EdgeX (Go fails if it is not); bytes in a CBOR envelope read as base64 too.
    try:
        data = base64.b64decode(payload, validate=True)
    except (ValueError, binascii.Error) as error:
        raise MalformedMessageError("a payload that is a string must be base64", "not-base64") from error
    return _parse(data, content_type, code)


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error) as error:
        raise InvalidInputError("a payload of CBOR that is text must be base64") from error


def _parse(data: bytes, content_type: str, code: int) -> Any:
    if code != 0 or content_type == TEXT:
        return data.decode(errors="replace")
    if content_type == CBOR:
        return cbor.loads(data)
    if content_type != JSON:
        raise MalformedMessageError(f"content type {content_type!r} is neither JSON nor CBOR nor text", "content-type")
    return _json(data, "payload")


def _json(data: bytes, what: str) -> Any:
    if len(data) > MAX_ITEMS:
        _check_items(data, what)
    try:
        # json.loads on bytes would take UTF-16 and lone surrogates; on text it would take NaN and make 1e999 infinite,
        # or, told not to, build a decoder for each message.
        value = _DECODER.decode(data.decode())
        if b"\\u" in data:
            json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate hides in \\ud800
    except (ValueError, RecursionError) as error:
        raise MalformedMessageError(f"{what} is not JSON: {str(error)[:200]}", "not-json") from error
    # Counting is cheap and nearly always answers.
    if data.count(b"[") + data.count(b"{") > MAX_NESTING and _is_deeper(value, MAX_NESTING):
        raise MalformedMessageError(f"{what} is nested deeper than {MAX_NESTING} levels", "too-deep")
    return value


def _check_items(data: bytes, what: str) -> None:
    """Refuse JSON of too many items before anything is built from it: `[],` is 3 bytes here and 64 there."""
    if _items(data) > MAX_ITEMS and _items(_STRINGS.sub(b"", data)) > MAX_ITEMS:
        raise MalformedMessageError(f"{what} of more than {MAX_ITEMS} items", "too-many-items")


def _items(data: bytes) -> int:
    return data.count(b",") + data.count(b"[") + data.count(b"{")


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no JSON number")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits[:40]} is beyond a 64-bit float")
    return number


_DECODER: Final = json.JSONDecoder(parse_constant=_no_number, parse_float=_finite)


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
