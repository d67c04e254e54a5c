"""Values between device and EdgeX: set parameters with Go's refusals, limits, scaling both ways, mappings."""

import contextlib
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagents.adapters.transforms import for_device, for_reading, parameter_text, parameter_value
from edgeagents.errors import EdgeAgentsError, InvalidInputError
from edgeagents.model.device import DeviceResource
from edgeagents.model.values import SIMPLE_TYPES, check_value


def resource(kind: str, **properties: Any) -> DeviceResource:
    body = {"name": "X", "properties": {"valueType": kind, "readWrite": "RW", **properties}}
    return DeviceResource.model_validate(body)


@pytest.mark.parametrize(
    ("kind", "given_value", "value"),
    [
        ("Bool", "true", True),
        ("Bool", False, False),
        ("Bool", "T", True),
        ("Uint8", "40", 40),
        ("Uint8", 70, 70),
        ("Uint8", 70.0, 70),
        ("Int16", "+5", 5),
        ("Float64", "2.15e+01", 21.5),
        ("Float64", 21, 21.0),
        ("String", "", ""),
        ("String", 12, "12"),
        ("BoolArray", "[true, false]", [True, False]),
        ("Uint8Array", [1, 2], [1, 2]),
        ("StringArray", '["a","b"]', ["a", "b"]),
        ("Object", {"a": 1}, {"a": 1}),
        ("Object", '{"a": 1}', {"a": 1}),
        ("Binary", "aGk=", b"hi"),
    ],
)
def test_parameters_are_text_or_natural_json(kind: str, given_value: Any, value: Any) -> None:
    assert parameter_value(resource(kind), given_value) == value


@pytest.mark.parametrize(
    ("kind", "text", "reason"),
    [
        ("Bool", "maybe", 'strconv.ParseBool: parsing "maybe": invalid syntax'),
        ("Int8", "300", 'strconv.ParseInt: parsing "300": value out of range'),
        ("Int8", "1.5", 'strconv.ParseInt: parsing "1.5": invalid syntax'),
        ("Uint8", "-1", 'strconv.ParseUint: parsing "-1": invalid syntax'),
        ("Uint8", "+1", 'strconv.ParseUint: parsing "+1": invalid syntax'),
        ("Uint8", "256", 'strconv.ParseUint: parsing "256": value out of range'),
        ("Uint8", " 1", 'strconv.ParseUint: parsing " 1": invalid syntax'),
        ("Uint8", "\u0663", 'strconv.ParseUint: parsing "\u0663": invalid syntax'),
        ("Float32", "1e999", 'strconv.ParseFloat: parsing "1e999": value out of range'),
        ("Float64", "warm", 'strconv.ParseFloat: parsing "warm": invalid syntax'),
        ("Float64", "1_0", 'strconv.ParseFloat: parsing "1_0": invalid syntax'),
    ],
)
def test_bad_parameters_are_refused_in_the_words_of_go(kind: str, text: str, reason: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parameter_value(resource(kind), text)
    expected = f"failed to create CommandValue -> failed to convert set parameter {text} to ValueType {kind} -> "
    assert str(caught.value) == expected + reason


@pytest.mark.parametrize("text", ["NaN", "Inf", "-inf"])
def test_a_device_is_never_set_to_what_is_no_number(text: str) -> None:
    with pytest.raises(InvalidInputError):
        parameter_value(resource("Float64"), text)


@pytest.mark.parametrize("value", ["", "  ", None])
def test_an_empty_parameter_is_refused_unless_it_is_text(value: Any) -> None:
    with pytest.raises(InvalidInputError, match="empty string is invalid for Bool value type"):
        parameter_value(resource("Bool"), value)


@pytest.mark.parametrize(
    ("kind", "value"),
    [("Object", "[1]"), ("Object", 5), ("ObjectArray", "{}"), ("Uint8Array", "[1, 300]"), ("Uint8Array", "1, 2"),
     ("Binary", "no base64!"), ("Uint8Array", "[" * 100_000)],
)  # fmt: skip
def test_bad_composite_parameters_are_refused(kind: str, value: Any) -> None:
    with pytest.raises(InvalidInputError, match="failed to convert set parameter"):
        parameter_value(resource(kind), value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(kind=st.sampled_from([*SIMPLE_TYPES, "Binary", "Object", "Uint8Array", "StringArray"]), value=json_values)
def test_any_parameter_is_a_value_or_a_refusal(kind: str, value: Any) -> None:
    item = resource(kind, minimum=0, maximum=100, scale=0.5)
    with contextlib.suppress(InvalidInputError):
        check_value(kind, for_device(item, parameter_value(item, value)))


def test_limits_hold_for_the_value_as_shown() -> None:
    level = resource("Uint8", minimum=10, maximum=100)
    assert for_device(level, 100) == 100
    with pytest.raises(InvalidInputError, match="out of maximum value 100"):
        for_device(level, 101)
    with pytest.raises(InvalidInputError, match="out of minimum value 10"):
        for_device(level, 9)


def test_limits_hold_without_transforms_too() -> None:
    with pytest.raises(InvalidInputError, match="out of maximum value"):
        for_device(resource("Float64", maximum=28, scale=0.1), 28.5, transform=False)


@pytest.mark.parametrize(
    ("kind", "properties", "raw", "shown"),
    [
        ("Int16", {"scale": 0.1}, 215, 21),
        ("Float64", {"scale": 0.1}, 215.0, 21.5),
        ("Float64", {"scale": 2, "offset": -5}, 10.0, 15.0),
        ("Uint8", {"offset": 3}, 4, 7),
        ("Float64", {"base": 10}, 2.0, 100.0),
        ("Uint16", {"mask": 0x0F}, 0xAB, 0x0B),
        ("Uint16", {"mask": 0xF0, "shift": -4}, 0xAB, 0x0A),
        ("Uint16", {"shift": 2}, 3, 12),
        ("Float32", {"scale": 1, "offset": 0, "base": 0, "mask": 0, "shift": 0}, 1.5, 1.5),
        ("Int32", {"scale": 0.1}, 30, 3),
    ],
)
def test_readings_are_transformed_in_edgex_order(kind: str, properties: dict[str, Any], raw: Any, shown: Any) -> None:
    found, value = for_reading(resource(kind, **properties), raw)
    assert (found, value) == (kind, pytest.approx(shown))
    assert for_reading(resource(kind, **properties), raw, transform=False) == (kind, raw)


@given(
    number=st.floats(-1e6, 1e6),
    scale=st.floats(0.01, 100) | st.none(),
    offset=st.floats(-1000, 1000) | st.none(),
)
def test_what_is_set_is_what_is_read(number: float, scale: float | None, offset: float | None) -> None:
    item = resource("Float64", scale=scale, offset=offset)
    _, back = for_reading(item, for_device(item, number))
    assert back == pytest.approx(number, rel=1e-9, abs=1e-6)


def test_a_reading_beyond_its_type_says_overflow() -> None:
    assert for_reading(resource("Uint8", scale=10), 100) == ("String", "overflow")
    assert for_reading(resource("Float64", base=10), 400.0) == ("String", "overflow")


def test_a_parameter_beyond_its_type_after_the_transform_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="failed to transform set parameter"):
        for_device(resource("Uint8", scale=0.1), 200)
    with pytest.raises(InvalidInputError, match="failed to transform set parameter"):
        for_device(resource("Float64", base=10), -1.0)


def test_a_reading_that_is_no_number_stays_so() -> None:
    kind, value = for_reading(resource("Float64", scale=2), math.nan)
    assert kind == "Float64"
    assert isinstance(value, float)
    assert math.isnan(value)


def test_a_null_reading_stays_null() -> None:
    assert for_reading(resource("Uint8", scale=10), None) == ("Uint8", None)


def test_mapped_values_become_text_and_others_stay() -> None:
    mappings = {"true": "ON"}
    assert for_reading(resource("Bool"), True, mappings) == ("String", "ON")
    assert for_reading(resource("Bool"), False, mappings) == ("Bool", False)


def test_an_assertion_that_does_not_hold_is_an_error() -> None:
    assert for_reading(resource("Bool", assertion="true"), True) == ("Bool", True)
    with pytest.raises(EdgeAgentsError, match="Assertion failed for device resource: X, with value: false"):
        for_reading(resource("Bool", assertion="true"), False)


def test_a_driver_value_of_another_type_is_refused() -> None:
    with pytest.raises(InvalidInputError):
        for_reading(resource("Uint8"), "40")


def test_natural_json_becomes_the_text_go_would_read() -> None:
    assert [parameter_text(item) for item in (True, 40, 40.0, 0.5, "x", None, [1, 2])] == [
        "true", "40", "40", "0.5", "x", "", "[1, 2]",
    ]  # fmt: skip
