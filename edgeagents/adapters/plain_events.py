"""The form nearly all events come in, JSON within JSON, read in one go: bytes to `Event`.

It answers only where `events.py` would give the same event; whatever is else, odd or wrong gets no answer here and is
judged there, in its words. Left out for that reason: CBOR, base64, optimised events, and values that are no plain text
or number, since JSON within them is to be looked at more closely.

Source: edgex-wire.md sections 1.1 and 2; pydantic's own JSON parser.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Final, Literal
from urllib.parse import unquote

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, ValidationError

from edgeagents.adapters.cbor import MAX_NESTING
from edgeagents.model.device import Event
from edgeagents.subjects import MAX_TOPIC_BYTES

MOST_BYTES: Final = 65_536  # longer ones may hold too many items
_LEVELS: Final = 6  # events/device/<service>/<profile>/<device>/<source>
Names = tuple[str, str, str]


class _Request(BaseModel):
    """An AddEventRequest."""

    event: Event


class _Envelope(BaseModel):
    """A MessageEnvelope whose payload is embedded."""

    model_config = ConfigDict(extra="ignore")

    payload: _Request
    error_code: StrictInt = Field(0, alias="errorCode", ge=0, le=0)
    content_type: Literal["application/json"] = Field("application/json", alias="contentType")
    correlation_id: StrictStr | None = Field(None, alias="correlationID")
    request_id: StrictStr | None = Field(None, alias="requestID")
    received_topic: StrictStr | None = Field(None, alias="receivedTopic")
    query_params: None = Field(None, alias="queryParams")


def plain_event(topic: str, data: bytes, headers: Mapping[str, str] | None, base: str) -> Event | None:
    """Return the event in a message of the common form, None where `events.py` has to judge.

    Args:
        topic: the EdgeX topic it arrived on, base included.
        data: its bytes.
        headers: its NATS headers, if any.
        base: `MessageBus.BaseTopicPrefix`.
    """
    names = event_names(topic, base)
    if names is None or len(data) > MOST_BYTES or data[:1] != b"{" or (headers and "Content-Type" in headers):
        return None
    if b"Infinity" in data or b"NaN" in data:  # no JSON where they stand bare, which pydantic lets pass
        return None
    if data.count(b"[") + data.count(b"{") > MAX_NESTING:
        return None
    try:
        event = _Envelope.model_validate_json(data).payload.event
    except ValidationError:
        return None
    spoken = (event.profile_name, event.device_name, event.source_name)
    return event if spoken in names and _is_plain(event) else None


@lru_cache(maxsize=8192)  # asked for each event, and a gateway has few topics
def event_names(topic: str, base: str) -> tuple[Names, Names] | None:
    """Return profile, device and source that the topic of a device event names, decoded and as they stand.

    None where it is no such topic, or names them otherwise: on an EdgeX that speaks NATS a dot parts levels.
    """
    prefix = f"{base}/"
    levels = topic.removeprefix(prefix).split("/")
    if len(topic) > MAX_TOPIC_BYTES or not topic.startswith(prefix) or len(levels) != _LEVELS or not all(levels):
        return None
    if [unquote(level) for level in levels[:2]] != ["events", "device"]:
        return None
    profile, device, source = levels[3:]
    return (unquote(profile), unquote(device), unquote(source)), (profile, device, source)


def _is_plain(event: Event) -> bool:
    if event.model_extra or event.tags is not None:
        return False
    for reading in event.readings:
        if not (reading.origin and reading.device_name and reading.profile_name and reading.resource_name):
            return False
        if reading.model_extra or reading.tags is not None or reading.object_value is not None:
            return False
        if isinstance(reading.value, list):
            return False
    return True
