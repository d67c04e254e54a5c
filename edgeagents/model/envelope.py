"""EdgeX's MessageEnvelope and what a message on the bus can mean, once decoded.

`adapters/events.py` makes these from bytes; services match on their types.

Source: edgex-wire.md sections 1.1 to 1.4, 3.3 and 9.
"""

from dataclasses import dataclass, field
from typing import Any, TypeAlias

from edgeagents.model.device import Device, Event


@dataclass(frozen=True, slots=True)
class Envelope:
    """What surrounds every payload on EdgeX's bus.

    `payload` is decoded already: an object, list, number, text (always text when `error_code` is not 0) or None.
    """

    payload: Any = None
    correlation_id: str = ""
    request_id: str = ""
    error_code: int = 0
    content_type: str = "application/json"
    received_topic: str = ""
    query_params: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EventMessage:
    """A device event, with the topic's own words: they are decoded names, the event's are to agree with them."""

    topic: str
    envelope: Envelope
    event: Event


@dataclass(frozen=True, slots=True)
class ConfigChange:
    """A key of core-keeper was written or deleted; re-read the subtree, `value` may be absent."""

    topic: str
    envelope: Envelope
    key: str
    value: Any


@dataclass(frozen=True, slots=True)
class SystemEvent:
    """core-metadata's notice of an added, updated or deleted device, profile or service."""

    topic: str
    envelope: Envelope
    type: str
    action: str
    source: str
    owner: str
    details: dict[str, Any]
    timestamp_ns: int


@dataclass(frozen=True, slots=True)
class CommandRequest:
    """A GET or SET over the bus, to core-command or (`service` not empty) to a device service."""

    topic: str
    envelope: Envelope
    device: str
    command: str
    is_set: bool
    settings: dict[str, Any]
    service: str = ""


@dataclass(frozen=True, slots=True)
class CommandQuery:
    """A question to core-command for the commands of one device."""

    topic: str
    envelope: Envelope
    device: str


@dataclass(frozen=True, slots=True)
class Answer:
    """A response on the bus: to a command, a query or a device validation; `error` is None when all went well."""

    topic: str
    envelope: Envelope
    service: str
    request_id: str
    error: str | None
    event: Event | None = None


@dataclass(frozen=True, slots=True)
class ValidateDevice:
    """core-metadata asks a device service whether it would take a device."""

    topic: str
    envelope: Envelope
    service: str
    device: Device


@dataclass(frozen=True, slots=True)
class Metric:
    """A service's own measurement."""

    topic: str
    envelope: Envelope
    service: str
    name: str
    fields: dict[str, float]
    tags: dict[str, str]
    timestamp_ns: int


@dataclass(frozen=True, slots=True)
class Other:
    """Well formed, but on a topic this project gives no meaning to."""

    topic: str
    envelope: Envelope


EdgexMessage: TypeAlias = (
    EventMessage | ConfigChange | SystemEvent | CommandRequest | CommandQuery | Answer | ValidateDevice | Metric | Other
)
