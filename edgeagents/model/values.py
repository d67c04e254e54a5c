"""Device values and their text, as EdgeX 4.0 writes it: `parse_value` and `format_value` are inverses.

A null reading is Python's None. Leaves out unit conversion, mappings and masks on purpose: they belong to
the device service (`adapters/device_service.py`).

Source: edgex-wire.md section 2, recordings of EdgeX 4.0.2.
"""

import json
import math
import struct
from typing import Final, TypeAlias, cast

from edgeagents.errors import InvalidInputError

Value: TypeAlias = "bool | int | float | str | bytes | list[Value] | dict[str, Value] | None"

SIMPLE_TYPES: Final = (
    "Bool", "String", "Uint8", "Uint16", "Uint32", "Uint64", "Int8", "Int16", "Int32", "Int64", "Float32", "Float64",
)  # fmt: skip
VALUE_TYPES: Final = (
    *SIMPLE_TYPES,
    "Binary",
    "Object",
    *(f"{name}Array" for name in SIMPLE_TYPES),
    "ObjectArray",
)
_BY_LOWER: Final = {name.lower(): name for name in VALUE_TYPES}
INTEGER_RANGES: Final = {
    f"{sign}int{bits}".capitalize(): (0, 2**bits - 1) if sign else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    for sign in ("", "u")
    for bits in (8, 16, 32, 64)
}
_FLOAT_FORMATS: Final = {"Float32": "<f", "Float64": "<d"}


def value_type(text: str) -> str:
    """Return the canonical spelling of an EdgeX value type, matched case-insensitively.

    Raises:
        InvalidInputError: there is no such type.
    """
    try:
        return _BY_LOWER[text.lower()]
    except KeyError as error:
        raise InvalidInputError(f"value type {text!r} is not one of {', '.join(VALUE_TYPES)}") from error


def is_numeric(kind: str) -> bool:
    """Say whether values of this (canonical) type are single numbers."""
    return kind in INTEGER_RANGES or kind in ("Float32", "Float64")


def parse_value(kind: str, text: str) -> Value:
    """Return the value that EdgeX's text stands for.

    Args:
        kind: canonical value type, `Binary`, `Object` and `ObjectArray` excepted (they are no text).
        text: as in a reading's `value` or a command's parameter.

    Raises:
        InvalidInputError: the text is no value of that type.
    """
    if kind == "String":
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise InvalidInputError("a text with half a character: no UTF-8 can hold it")
        return text
    if kind == "Bool":
        return _parse_bool(text)
    if kind in INTEGER_RANGES:
        return _parse_integer(kind, text)
    if kind in ("Float32", "Float64"):
        return _parse_float(kind, text)
    if kind.endswith("Array") and kind != "ObjectArray":
        return _parse_array(kind, text)
    raise InvalidInputError(f"a value of type {kind} has no text form")


def format_value(kind: str, value: Value) -> str:
    """Return EdgeX's text of a value: `true`, `42`, `2.15e+01`, `[1, 2, 3]`.

    Raises:
        InvalidInputError: the value does not fit the type.
    """
    check_value(kind, value)
    if kind == "String":
        return cast(str, value)
    if kind == "Bool":
        return "true" if value else "false"
    if kind in INTEGER_RANGES:
        return str(value)
    if kind in ("Float32", "Float64"):
        return _format_float(kind, float(cast(float, value)))
    if kind == "StringArray":
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if kind.endswith("Array") and kind != "ObjectArray":
        element = kind.removesuffix("Array")
        return "[" + ", ".join(format_value(element, item) for item in cast("list[Value]", value)) + "]"
    raise InvalidInputError(f"a value of type {kind} has no text form")


def check_value(kind: str, value: Value) -> None:
    """Refuse a value that a reading of this type cannot hold.

    Raises:
        InvalidInputError: no such type, wrong Python type, or outside the range of the type.
    """
    if kind.endswith("Array"):
        if not isinstance(value, list):
            raise InvalidInputError(f"{kind} needs a list, got {type(value).__name__}")
        for item in value:
            check_value(kind.removesuffix("Array"), item)
        return
    if kind in INTEGER_RANGES:
        low, high = INTEGER_RANGES[kind]
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise InvalidInputError(f"{value!r} is no {kind}: an integer from {low} to {high}")
        return
    expected: dict[str, type | tuple[type, ...]] = {
        "Bool": bool, "String": str, "Float32": (int, float), "Float64": (int, float), "Binary": bytes,
        "Object": (dict, list, str, int, float, bool, type(None)),
    }  # fmt: skip
    if not isinstance(value, expected.get(kind, ())) or (kind.startswith("Float") and isinstance(value, bool)):
        raise InvalidInputError(f"{value!r} is no {kind}")
    if kind in _FLOAT_FORMATS:
        try:
            # Rounds as Go does: 3.4028235e+38, the text of the largest Float32, is a little beyond it as a double.
            struct.pack(_FLOAT_FORMATS[kind], value)
        except (OverflowError, struct.error) as error:
            raise InvalidInputError(f"a number of this size is beyond the range of {kind}") from error


def same_value(left: Value, right: Value, tolerance: float = 0.0) -> bool:
    """Say whether two values are equal, numbers within `tolerance` (in the value's own unit)."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, (int, float)) and isinstance(right, (int, float)):
        try:
            return left == right or abs(left - right) <= tolerance
        except OverflowError:  # an integer beyond any float
            return False
    return left == right


def _parse_bool(text: str) -> bool:
    # Go's strconv.ParseBool, which device services use.
    if text in ("1", "t", "T", "TRUE", "true", "True"):
        return True
    if text in ("0", "f", "F", "FALSE", "false", "False"):
        return False
    raise InvalidInputError(f"{text!r} is no Bool: true or false")


def _parse_integer(kind: str, text: str) -> int:
    digits = text.strip()
    low, high = INTEGER_RANGES[kind]
    # int() alone would take "1_000" and digits of other scripts, which no EdgeX service writes.
    if len(digits) <= 20 and digits.lstrip("+-").isascii() and digits.lstrip("+-").isdigit():
        try:
            number = int(digits)
        except ValueError:
            number = high + 1
        if low <= number <= high:
            return number
    raise InvalidInputError(f"{text!r} is no {kind}: an integer from {low} to {high}")


def _parse_float(kind: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError as error:
        raise InvalidInputError(f"{text!r} is no {kind}") from error
    # float() takes "1_000" and digits of other scripts, and makes "1e999" infinite; Go does none of this.
    if "_" in text or not text.isascii() or (math.isinf(number) and "n" not in text.lower()):
        raise InvalidInputError(f"{text!r} is no {kind}")
    check_value(kind, number)
    return number


def _parse_array(kind: str, text: str) -> list[Value]:
    element = kind.removesuffix("Array")
    body = text.strip()
    if not (body.startswith("[") and body.endswith("]")):
        raise InvalidInputError(f"{text!r} is no {kind}: [a, b, c]")
    if element == "String":
        return _parse_string_array(body)
    inner = body[1:-1].strip()
    return [] if not inner else [parse_value(element, part.strip()) for part in inner.split(",")]


def _parse_string_array(body: str) -> list[Value]:
    try:
        items = json.loads(body)
    except (ValueError, RecursionError):
        items = None
    if isinstance(items, list) and all(isinstance(item, str) for item in items):
        return cast("list[Value]", items)
    # Before 4.0.2 device services wrote the strings without quotes: [a, b], or [1, 2] for "1" and "2".
    inner = body[1:-1].strip()
    if '"' in inner:
        raise InvalidInputError(f"{body!r} is no StringArray")
    return [part.strip() for part in inner.split(",")]


def _format_float(kind: str, number: float) -> str:
    """Return Go's shortest exponent form: at least two digits in the exponent, always signed."""
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "+Inf" if number > 0 else "-Inf"
    text = _shortest32(number) if kind == "Float32" else repr(number)
    mantissa, _, exponent = f"{text}e0".partition("e") if "e" not in text else text.partition("e")
    exponent = exponent.split("e")[0]
    sign = "-" if mantissa.startswith("-") else ""
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    digits = (whole + fraction).lstrip("0")
    if not digits:
        return f"{sign}0e+00"
    point = len(whole) + int(exponent) - (len(whole + fraction) - len(digits)) - 1
    digits = digits.rstrip("0") or "0"
    tail = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{tail}e{'-' if point < 0 else '+'}{abs(point):02d}"


def _shortest32(number: float) -> str:
    """Return the shortest decimal text that reads back as the same 32-bit float."""
    single = _single(number)
    texts = (f"{single:.{precision}g}" for precision in range(1, 10))
    return next((text for text in texts if _single(float(text)) == single), repr(single))


def _single(number: float) -> float:
    try:
        return cast(float, struct.unpack("<f", struct.pack("<f", number))[0])
    except OverflowError:  # 3.403e+38, rounded up from the largest one
        return math.copysign(math.inf, number)
