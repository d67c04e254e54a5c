"""Reads a JSON object against a declared shape and says what is wrong with it in EdgeX's own words.

EdgeX names a field in its error texts by the path of its Go structs (`AddDeviceRequest.Device.Name`), gathers all
that is wrong and joins it with `; `. Keys are matched whatever their case, unknown ones are ignored, absent ones
take Go's zero value, and what is empty is left out again unless the shape says otherwise.

Source: recordings of EdgeX 4.0.2; behaviour of go-mod-core-contracts 4.0.3.
"""

import json
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final, Literal, NamedTuple, TypeAlias
from urllib.parse import urlsplit

from edgeagents.errors import InvalidInputError
from edgeagents.model.values import value_type

Kind: TypeAlias = (
    'Literal["text", "bool", "int", "number", "texts", "map", "map of text", "map of maps", "any"] | Shape'
)

_UNIT_S: Final = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86400.0,
}
_DURATION: Final = re.compile(r"[+-]?(?:(?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|μs|ms|s|m|h|d))+")
_DURATION_PART: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h|d)")
_ZERO: Final[dict[str, Any]] = {
    "text": "", "bool": False, "int": 0, "number": 0, "texts": [], "map": {}, "map of text": {}, "map of maps": {},
}  # fmt: skip

# Text that no encoding can carry (half a surrogate pair) is none.
_MATCHES: Final[dict[str, Callable[[Any], bool]]] = {
    "text": lambda value: isinstance(value, str) and (value.isascii() or _is_encodable(value)),
    "bool": lambda value: isinstance(value, bool),
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**64,
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value),
    "texts": lambda value: isinstance(value, list) and all(_MATCHES["text"](item) for item in value),
    "map": lambda value: isinstance(value, dict),
    "map of text": lambda value: isinstance(value, dict) and all(isinstance(item, str) for item in value.values()),
    "map of maps": lambda value: isinstance(value, dict) and all(isinstance(item, dict) for item in value.values()),
    "any": lambda value: True,
}


class Check(NamedTuple):
    """One rule for a value that is there; `text` follows the field's path."""

    holds: Callable[[Any], bool]
    text: str


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a shape, named as Go names it; its JSON key begins with a small letter unless `key` says else."""

    name: str
    kind: Kind
    required: bool = False
    checks: tuple[Check, ...] = ()
    kept: bool = False  # written even when empty
    nullable: bool = False  # absent and zero differ: absent is left out and not checked
    many: bool = False  # a list of the kind, which is a shape
    at_least_one: bool = False
    checked_empty: bool = False  # its rules hold for an empty value too
    key: str = ""

    @property
    def json_key(self) -> str:
        """Return the key on the wire."""
        return self.key or self.name[0].lower() + self.name[1:]


@dataclass(frozen=True, slots=True)
class Shape:
    """An object: its fields in the order they are written."""

    fields: tuple[Field, ...]


def read(shape: Shape, body: Any, path: str, *, lenient: bool = False) -> tuple[dict[str, Any], list[str]]:
    """Return what a JSON object holds of a shape, and everything that breaks the shape's rules.

    Args:
        shape: what is expected.
        body: decoded JSON; None stands for an empty object, as in Go.
        path: names the object in the texts.
        lenient: texts may be given as numbers or truth values, as YAML allows.

    Raises:
        InvalidInputError: a value is of another JSON type than the shape's.
    """
    if body is None:
        body = {}
    if not isinstance(body, dict):
        raise _wrong_type(path, "an object", body)
    given = {str(key).lower(): value for key, value in body.items()}
    result: dict[str, Any] = {}
    wrong: list[str] = []
    for field in shape.fields:
        value = given.get(field.json_key.lower())
        if value is None and field.nullable:
            continue
        value, faults = _read_field(field, value, f"{path}.{field.name}", lenient)
        wrong += faults
        if field.kept or field.nullable or not _is_zero(value):
            result[field.json_key] = value
    return result, wrong


def _read_field(field: Field, value: Any, path: str, lenient: bool) -> tuple[Any, list[str]]:
    if isinstance(field.kind, Shape):
        if not field.many:
            return read(field.kind, value, path, lenient=lenient)
        return _read_many(field, value, path, lenient)
    absent = value is None
    value = _ZERO.get(field.kind) if absent else _typed(field.kind, value, path, lenient)
    # To Go's validator an empty map or list is there, an empty text or a zero is not.
    missing = absent or (_is_zero(value) and not isinstance(value, (dict, list)))
    if missing and field.required:
        return value, [f"{path} field is required"]
    if missing and not (field.nullable or field.checked_empty):
        return value, []
    failed = next((check for check in field.checks if not check.holds(value)), None)
    return value, [] if failed is None else [f"{path} {failed.text}"]


def _read_many(field: Field, value: Any, path: str, lenient: bool) -> tuple[list[Any], list[str]]:
    assert isinstance(field.kind, Shape)
    items = [] if value is None else value
    if not isinstance(items, list):
        raise _wrong_type(path, "a list", items)
    wrong = [f"{path} field should greater than 0"] if field.at_least_one and not items else []
    result = []
    for index, item in enumerate(items):
        read_item, faults = read(field.kind, item, f"{path}[{index}]", lenient=lenient)
        result.append(read_item)
        wrong += faults
    return result, wrong


def _typed(kind: str, value: Any, path: str, lenient: bool) -> Any:
    if kind == "text" and lenient and isinstance(value, (bool, int, float)):
        return str(value).lower() if isinstance(value, bool) else str(value)
    if kind == "map of text" and lenient and isinstance(value, dict):
        value = {_typed("text", key, path, True): _typed("text", item, path, True) for key, item in value.items()}
    if not _MATCHES[kind](value):
        raise _wrong_type(path, {"texts": "a list of texts", "int": "an integer"}.get(kind, f"a {kind}"), value)
    return value


def _is_encodable(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def load_json(data: bytes) -> Any:
    """Return decoded JSON that can be written again: no NaN, no half of a surrogate pair.

    Raises:
        ValueError: it is no such JSON.
        RecursionError: it is nested too deep.
    """
    value = json.loads(data, parse_constant=_refuse_constant)
    if b"\\ud" in data.lower():
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _refuse_constant(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


def _wrong_type(path: str, expected: str, value: Any) -> InvalidInputError:
    return InvalidInputError(
        f"Failed to unmarshal request body as JSON. {path}: expected {expected}, got {str(value)[:60]!r}"
    )


def _is_zero(value: Any) -> bool:
    return value is None or value is False or value in ("", 0, [], {})


# --- rules ---------------------------------------------------------------------------------------


def duration_s(text: str) -> float | None:
    """Return the seconds of a Go duration such as `1m30s` or `100ms` (also `2d`), None when it is none."""
    if text.strip() in ("0", "+0", "-0"):
        return 0.0
    if not _DURATION.fullmatch(text):
        return None
    total = sum(float(number) * _UNIT_S[unit] for number, unit in _DURATION_PART.findall(text))
    return -total if text.startswith("-") else total


def is_uuid(text: str) -> bool:
    """Say whether this is a UUID in its usual notation."""
    try:
        return str(uuid.UUID(text)) == text.lower()
    except (ValueError, AttributeError):
        return False


def is_value_type(text: str) -> bool:
    """Say whether EdgeX knows this value type."""
    try:
        return bool(value_type(text))
    except InvalidInputError:
        return False


def _is_uri(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return bool(parts.scheme) and bool(parts.netloc)


def one_of(*allowed: str) -> Check:
    """Return the rule that a text is one of these."""
    words = " ".join(f"'{word}'" for word in allowed)
    return Check(lambda value: value in allowed, f"field should be one of {words}")


def duration(minimum: str = "") -> Check:
    """Return the rule that a text is a duration of at least `minimum`."""
    floor = duration_s(minimum) if minimum else None

    def holds(value: Any) -> bool:
        seconds = duration_s(value)
        return seconds is not None and (floor is None or seconds >= floor)

    return Check(
        holds,
        "field should follows the ISO 8601 Durations format, e.g.,100ms, 24h, "
        f"or be greater than or equal to the minimum value {minimum} ",
    )


NOT_BLANK: Final = Check(lambda value: bool(value.strip()), "field should not be empty string")
INT64: Final = Check(lambda value: value < 2**63, "field is no 64-bit integer")
UUID: Final = Check(is_uuid, "field needs a uuid")
URI: Final = Check(_is_uri, "field validation failed on the uri tag with value ''")
VALUE_TYPE: Final = Check(is_value_type, "field validation failed on the edgex-dto-value-type tag with value ''")
NOT_NEGATIVE: Final = Check(lambda value: value >= 0, "field validation failed on the gte tag with value '0'")
