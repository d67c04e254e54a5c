"""The event that core-data takes: its shape, what its values must be, and how it is kept.

Source: recordings of EdgeX 4.0.2; go-mod-core-contracts 4.0.3 for what the recordings do not reach.
"""

import base64
import binascii
from typing import Any, Final

from edgeagents.embedded.contracts import Request, Row
from edgeagents.embedded.validation import INT64, NOT_BLANK, UUID, VALUE_TYPE, Field, Shape
from edgeagents.errors import InvalidInputError
from edgeagents.model.values import SIMPLE_TYPES, format_value, is_numeric, parse_value, value_type

_READING: Final = Shape(
    (
        Field("Id", "text"),
        Field("Origin", "int", required=True, checks=(INT64,)),
        Field("DeviceName", "text", required=True, checks=(NOT_BLANK,)),
        Field("ResourceName", "text", required=True, checks=(NOT_BLANK,)),
        Field("ProfileName", "text", required=True, checks=(NOT_BLANK,)),
        Field("ValueType", "text", required=True, checks=(VALUE_TYPE,)),
        Field("Units", "text"),
        Field("Tags", "map"),
        Field("Value", "any"),
        Field("BinaryValue", "text"),
        Field("MediaType", "text"),
        Field("ObjectValue", "any"),
    )
)
_EVENT: Final = Shape(
    (
        Field("Id", "text", required=True, checks=(UUID,)),
        Field("DeviceName", "text", required=True, checks=(NOT_BLANK,)),
        Field("ProfileName", "text", required=True, checks=(NOT_BLANK,)),
        Field("SourceName", "text", required=True, checks=(NOT_BLANK,)),
        Field("Origin", "int", required=True, checks=(INT64,)),
        Field("Readings", _READING, many=True, at_least_one=True, kept=True),
        Field("Tags", "map"),
    )
)
_WITH_TEXT: Final = frozenset((*SIMPLE_TYPES, *(f"{kind}Array" for kind in SIMPLE_TYPES)))
EVENT: Final = Request("AddEventRequest", "Event", _EVENT)


def check_event(event: Row) -> Row:
    """Return an event as core-data keeps it: value types in EdgeX's spelling, readings without their ids.

    Raises:
        InvalidInputError: a value is none of its type.
    """
    return {"apiVersion": "v3", **event, "readings": [_check_reading(reading) for reading in event["readings"]]}


def _check_reading(reading: Row) -> Row:
    kind = value_type(reading["valueType"])
    kept = {key: reading[key] for key in ("origin", "deviceName", "resourceName", "profileName")}
    kept["valueType"] = kind
    kept |= {key: reading[key] for key in ("units", "tags") if reading.get(key)}
    value, binary, thing = (reading.get(key) for key in ("value", "binaryValue", "objectValue"))
    if value is None and binary in (None, "") and thing is None:
        return kept | {"value": None, "binaryValue": None, "objectValue": None}
    if kind == "Binary":
        if not _is_base64(binary) or not reading.get("mediaType"):
            raise InvalidInputError("The value does not match the Binary valueType")
        return kept | {"binaryValue": binary, "mediaType": reading["mediaType"]}
    if kind in ("Object", "ObjectArray"):
        return kept | {"objectValue": thing}
    return kept | {"value": _kept_text(kind, value)}


def _kept_text(kind: str, value: Any) -> str:
    """Return a value's text; a single number's as Go writes it, because EdgeX's database keeps the number."""
    try:
        if isinstance(value, str) and kind in _WITH_TEXT:
            number = parse_value(kind, value)
            return format_value(kind, number) if is_numeric(kind) else value
    except InvalidInputError as error:
        raise InvalidInputError(f"The value does not match the {kind} valueType") from error
    raise InvalidInputError(f"The value does not match the {kind} valueType")


def _is_base64(text: Any) -> bool:
    try:
        return isinstance(text, str) and base64.b64decode(text, validate=True) is not None
    except (ValueError, binascii.Error):
        return False
