"""Between what a device says and what EdgeX shows: set parameters, limits, scaling, masks, assertions, mappings.

Pure. `for_reading` turns a driver's value into a reading's, `for_device` a set parameter into a driver's; the
texts of refusals are those a Go device service answers, since clients match on them. A value that cannot be
scaled back into its type is refused when written and reported as the text `overflow` when read, as EdgeX does.

Source: EdgeX device profile properties; recordings of EdgeX 4.0.2 (http-core.jsonl, cases `command set …`).
"""

import base64
import binascii
import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final, cast

from edgeagents.errors import EdgeAgentsError, InvalidInputError
from edgeagents.model.device import DeviceResource, ResourceProperties
from edgeagents.model.values import Value, check_value, format_value, is_numeric, parse_value

_INTEGER: Final = re.compile(r"[+-]?[0-9]+")
_UNSIGNED: Final = re.compile(r"[0-9]+")
_FLOATS: Final = ("Float32", "Float64")
_NO_TEXT: Final = ("Binary", "Object", "ObjectArray")
_CREATE: Final = "failed to create CommandValue -> "
_TRANSFORM: Final = "failed to transform set parameter -> "


# --- set parameters ------------------------------------------------------------------------------


def parameter_value(resource: DeviceResource, given: Any) -> Value:
    """Return the value a set parameter stands for.

    Args:
        resource: what is to be set.
        given: text as EdgeX writes it, or natural JSON (`true`, `40`, `[1, 2]`).

    Raises:
        InvalidInputError: no value of the resource's type; its text is a Go device service's.
    """
    kind = resource.properties.value_type
    text = parameter_text(given)
    if kind != "String" and not text.strip():
        raise InvalidInputError(f"{_CREATE}empty string is invalid for {kind} value type")
    try:
        if kind in ("Object", "ObjectArray"):
            return _object(kind, given)
        if kind == "Binary":
            return base64.b64decode(text, validate=True)
        if kind.endswith("Array"):
            return _array(kind, given, text)
        return _simple(kind, text)
    except (InvalidInputError, ValueError, binascii.Error, RecursionError) as error:
        reason = _go_reason(kind, text)
        raise InvalidInputError(
            f"{_CREATE}failed to convert set parameter {text[:200]} to ValueType {kind} -> {reason}"
        ) from error


def parameter_text(given: Any) -> str:
    """Return natural JSON as the text a Go service would read: `true`, `40`, `0.5`; text stays as it is."""
    if isinstance(given, str):
        return given
    if isinstance(given, float) and math.isfinite(given) and given.is_integer() and abs(given) < 1e21:
        return str(int(given))
    if given is None:
        return ""
    return json.dumps(given, ensure_ascii=False)


def _simple(kind: str, text: str) -> Value:
    # Go takes no blanks around a number and no sign before an unsigned one; Python's own parsing does.
    if kind != "String" and (text != text.strip() or (kind.startswith("Uint") and not _UNSIGNED.fullmatch(text))):
        raise InvalidInputError(f"{text!r} is no {kind}")
    value = parse_value(kind, text)
    if kind in _FLOATS and not math.isfinite(cast(float, value)):
        raise InvalidInputError(f"{text!r} is no number a device can be set to")
    return value


def _array(kind: str, given: Any, text: str) -> Value:
    items = given if isinstance(given, list) else json.loads(text)
    if not isinstance(items, list):
        raise InvalidInputError(f"{text!r} is no {kind}")
    element = kind.removesuffix("Array")
    values: list[Value] = [
        item if element == "String" and isinstance(item, str) else _simple(element, parameter_text(item))
        for item in items
    ]
    check_value(kind, values)
    return values


def _object(kind: str, given: Any) -> Value:
    found: Value = json.loads(given) if isinstance(given, str) else given
    if not isinstance(found, list if kind == "ObjectArray" else dict):
        raise InvalidInputError(f"no {kind}")
    return found


def _go_reason(kind: str, text: str) -> str:
    if kind.endswith("Array") or kind in _NO_TEXT:
        return f"the text is no {kind}"
    function = "ParseBool" if kind == "Bool" else "ParseFloat" if kind in _FLOATS else "ParseInt"
    if kind.startswith("Uint"):
        function = "ParseUint"
    digits = (_UNSIGNED if kind.startswith("Uint") else _INTEGER).fullmatch(text) is not None
    too_large = digits if function in ("ParseInt", "ParseUint") else function == "ParseFloat" and _is_number(text)
    return f"strconv.{function}: parsing {json.dumps(text, ensure_ascii=False)}: " + (
        "value out of range" if too_large else "invalid syntax"
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text == text.strip() and "_" not in text


# --- towards the device --------------------------------------------------------------------------


def for_device(resource: DeviceResource, shown: Value, *, transform: bool = True) -> Value:
    """Return the value to write to the device: limits checked, then offset, scale, base and shift undone.

    A mask cannot be undone and is left alone, as in EdgeX.

    Raises:
        InvalidInputError: outside the resource's limits, or the result does not fit its type.
    """
    properties = resource.properties
    if not is_numeric(properties.value_type):
        return shown
    number = cast("int | float", shown)
    _check_limits(properties, number)
    if not transform:
        return shown
    raw: int | float = number
    try:
        if properties.offset:
            raw -= properties.offset
        if properties.scale not in (None, 0, 1):
            raw /= properties.scale
        if properties.base not in (None, 0):
            raw = math.log(raw) / math.log(properties.base)
        if properties.shift and properties.value_type.startswith("Uint"):
            raw = _shifted(round(raw), -properties.shift)
        return _fitted(properties.value_type, raw)
    except (InvalidInputError, ValueError, ArithmeticError) as error:
        raise InvalidInputError(
            f"{_TRANSFORM}{format_value(properties.value_type, shown)} is out of range for {properties.value_type}"
            f" after the transform of {resource.name}"
        ) from error


def _check_limits(properties: ResourceProperties, number: int | float) -> None:
    if properties.maximum is not None and number > properties.maximum:
        raise InvalidInputError(f"{_TRANSFORM}set command parameter out of maximum value {properties.maximum:g}")
    if properties.minimum is not None and number < properties.minimum:
        raise InvalidInputError(f"{_TRANSFORM}set command parameter out of minimum value {properties.minimum:g}")


# --- from the device -----------------------------------------------------------------------------


def for_reading(
    resource: DeviceResource, raw: Value, mappings: Mapping[str, str] | None = None, *, transform: bool = True
) -> tuple[str, Value]:
    """Return (value type, value) of the reading: mask, shift, base, scale, offset applied, then the mapping.

    A mapped value is text; one that does not fit its type any more is the text `overflow`, as in EdgeX.

    Args:
        resource: where the value comes from.
        raw: what the driver read; None is a null reading.
        mappings: of the device command that is read, if any.
        transform: whether properties are applied at all (`Device/DataTransform`).

    Raises:
        InvalidInputError: the driver's value is not of the resource's type.
        EdgeAgentsError: the profile's assertion does not hold.
    """
    properties = resource.properties
    kind = properties.value_type
    if raw is None:
        return kind, None
    check_value(kind, raw)
    value: Value = raw
    if transform and is_numeric(kind) and math.isfinite(cast("int | float", raw)):
        try:
            value = _scaled(properties, cast("int | float", raw))
        except (InvalidInputError, ArithmeticError):
            return "String", "overflow"
    if kind in _NO_TEXT:
        return kind, value
    text = format_value(kind, value)
    if properties.assertion and text != properties.assertion:
        raise EdgeAgentsError(f"Assertion failed for device resource: {resource.name}, with value: {text}")
    if mappings and text in mappings:
        return "String", mappings[text]
    return kind, value


def _scaled(properties: ResourceProperties, value: int | float) -> Value:
    kind = properties.value_type
    if kind.startswith("Uint"):
        if properties.mask:
            value = int(value) & properties.mask
        if properties.shift:
            value = _shifted(int(value), properties.shift)
    if properties.base not in (None, 0):
        value = properties.base**value
    if properties.scale not in (None, 0, 1):
        value *= properties.scale
    if properties.offset:
        value += properties.offset
    return _fitted(kind, value)


def _shifted(value: int, bits: int) -> int:
    if abs(bits) > 64:
        raise InvalidInputError(f"a shift of {bits} bits leaves nothing")
    return value << bits if bits > 0 else value >> -bits


def _fitted(kind: str, value: int | float) -> Value:
    """Return a number as the type holds it; integers lose their fraction, as Go's conversion does."""
    if kind not in _FLOATS and isinstance(value, float):
        # 0.1 * 30 is 3.0000000000000004 and 2.9999999999999996 is meant as 3.
        value = round(value) if abs(value - round(value)) < 1e-9 * max(1.0, abs(value)) else math.trunc(value)
    if kind in _FLOATS:
        value = float(value)
    check_value(kind, value)
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidInputError(f"{value} is no number a reading can hold")
    return value
