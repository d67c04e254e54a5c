"""EdgeX's message bus -> what a message means, by its topic.

Any bytes in: a message or a `MalformedMessageError`, never another exception. How envelopes and payloads are written
is `envelopes.py`'s; this module sees them decoded, the same whatever their encoding was.

Source: edgex-wire.md sections 1.1 to 1.4; recordings of EdgeX 4.0.2.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import unquote

from pydantic import ValidationError

from edgeagents.adapters.envelopes import decode_envelope, error_text
from edgeagents.adapters.event_payloads import event_of
from edgeagents.errors import MalformedMessageError
from edgeagents.model.device import Device
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
from edgeagents.subjects import MAX_TOPIC_BYTES


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
        MalformedMessageError: no envelope, a payload that is not what its topic promises, or a topic too long.
    """
    if len(topic) > MAX_TOPIC_BYTES:
        raise MalformedMessageError(f"a topic of {len(topic)} characters: at most {MAX_TOPIC_BYTES}", "topic-too-long")
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
    error = error_text(envelope.payload) if envelope.error_code else None
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
