"""Values and their EdgeX text: inverses for every type, Go's exact spelling, and what is refused."""

import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagents.errors import InvalidInputError
from edgeagents.model.values import (
    SIMPLE_TYPES,
    VALUE_TYPES,
    Value,
    check_value,
    format_value,
    is_numeric,
    parse_value,
    same_value,
    value_type,
)

BITS = (8, 16, 32, 64)


def single(number: float) -> float:
    """Return the number rounded to a 32-bit float."""
    rounded: float = struct.unpack("f", struct.pack("f", number))[0]
    return rounded


texts = st.text(st.characters(exclude_categories=["Cs"]))
simple: dict[str, st.SearchStrategy[Any]] = {
    "Bool": st.booleans(),
    "String": texts,
    "Float32": st.floats(width=32, allow_nan=False),
    "Float64": st.floats(allow_nan=False),
    **{f"Int{bits}": st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in BITS},
    **{f"Uint{bits}": st.integers(0, 2**bits - 1) for bits in BITS},
}
TEXT_TYPES = [*SIMPLE_TYPES, *(f"{name}Array" for name in SIMPLE_TYPES)]


@st.composite
def typed_values(draw: st.DrawFn) -> tuple[str, Value]:
    """Draw a type that has a text form, and a value of it."""
    kind = draw(st.sampled_from(TEXT_TYPES))
    one = simple[kind.removesuffix("Array")]
    return kind, draw(st.lists(one, max_size=6) if kind.endswith("Array") else one)


@given(typed_values())
def test_every_value_survives_its_text(typed: tuple[str, Value]) -> None:
    kind, value = typed
    text = format_value(kind, value)
    back = parse_value(kind, text)
    if kind.startswith("Float32"):
        assert _singles(back) == _singles(value)
    else:
        assert back == value
        assert type(back) is type(value)
    assert format_value(kind, back) == text


def _singles(value: Any) -> Any:
    return [single(item) for item in value] if isinstance(value, list) else single(value)


def test_every_type_is_tried() -> None:
    assert set(VALUE_TYPES) - set(TEXT_TYPES) == {"Binary", "Object", "ObjectArray"}
    assert set(simple) == set(SIMPLE_TYPES)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_is_written_in_go_s_shortest_exponent_form(number: float) -> None:
    text = format_value("Float64", number)
    mantissa, _, exponent = text.partition("e")
    assert float(text) == number
    assert exponent[0] in "+-"
    assert len(exponent) >= 3
    assert len(mantissa.lstrip("-").partition(".")[0]) == 1
    assert not mantissa.endswith((".", ".0"))
    assert math.copysign(1, float(text)) == math.copysign(1, number)


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        ("Bool", True, "true"),
        ("Int8", -128, "-128"),
        ("Uint64", 2**64 - 1, "18446744073709551615"),
        ("Float32", 25.0, "2.5e+01"),
        ("Float32", 0.1, "1e-01"),
        ("Float32", 3.4028234663852886e38, "3.4028235e+38"),
        ("Float32", 1e-45, "1e-45"),
        ("Float64", 0.0, "0e+00"),
        ("Float64", -0.0, "-0e+00"),
        ("Float64", 5e-324, "5e-324"),
        ("Float64", 21, "2.1e+01"),
        ("Float64", 1e100, "1e+100"),
        ("Float64", math.inf, "+Inf"),
        ("Float64", -math.inf, "-Inf"),
        ("Float64", math.nan, "NaN"),
        ("Int16Array", [1, -2, 3], "[1, -2, 3]"),
        ("BoolArray", [True, False], "[true, false]"),
        ("Float32Array", [1.5, -2.0], "[1.5e+00, -2e+00]"),
        ("StringArray", ["a, b", 'say "hi"', "温"], '["a, b","say \\"hi\\"","温"]'),
        ("Uint8Array", [], "[]"),
    ],
)
def test_values_are_written_as_go_writes_them(kind: str, value: Value, text: str) -> None:
    assert format_value(kind, value) == text


@pytest.mark.parametrize("kind", ["Float32", "Float64", "Float32Array"])
def test_not_a_number_survives_its_text(kind: str) -> None:
    value: Value = [math.nan] if kind.endswith("Array") else math.nan
    back = parse_value(kind, format_value(kind, value))
    number = back[0] if isinstance(back, list) else back
    assert isinstance(number, float)
    assert math.isnan(number)


def test_text_of_older_services_is_understood() -> None:
    assert parse_value("StringArray", "[a, b c]") == ["a", "b c"]
    assert parse_value("StringArray", "[1, 2]") == ["1", "2"]
    assert parse_value("Float64", "21.5") == 21.5
    assert parse_value("Bool", "TRUE") is True
    assert parse_value("Int32Array", "[1,2 , 3]") == [1, 2, 3]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("Bool", "yes"), ("Bool", ""), ("Int8", "128"), ("Int8", "-129"), ("Uint8", "-1"), ("Uint8", "1.0"),
        ("Int32", "1_000"), ("Int32", "٣"), ("Int64", "9" * 5000), ("Int32", "+-1"), ("Int32", ""),
        ("Float64", "1_0"), ("Float64", "1e999"), ("Float64", "-1e999"), ("Float64", "٣"), ("Float64", ""),
        ("Float32", "1e39"), ("Float32", "3.5e38"), ("Float64", "0x1p-2"),
        ("Int8Array", "1, 2"), ("Int8Array", "[1,,2]"), ("Int8Array", "[1, 300]"), ("BoolArray", "[maybe]"),
        ("StringArray", '["a"'), ("StringArray", '["a", 1]'), ("StringArray", '{"a": 1}'),
        ("Object", "{}"), ("Binary", "AA=="), ("ObjectArray", "[]"), ("Wrong", "1"), ("WrongArray", "[1]"),
    ],
)  # fmt: skip
def test_text_that_is_no_value_of_its_type_is_refused(kind: str, text: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_value(kind, text)


@given(st.sampled_from([*VALUE_TYPES, "Wrong"]), st.text() | st.from_regex(r"\[.*\]", fullmatch=True))
def test_any_text_is_a_value_or_refused(kind: str, text: str) -> None:
    try:
        value = parse_value(kind, text)
    except InvalidInputError:
        return
    check_value(kind, value)


@pytest.mark.parametrize("kind", ["StringArray", "Int8Array", "BoolArray"])
def test_a_deeply_nested_text_is_no_array(kind: str) -> None:
    text = "[" * 100_000 + "]" * 100_000
    try:
        assert all(isinstance(item, str) for item in parse_value(kind, text))  # type: ignore[union-attr]
    except InvalidInputError:
        assert kind != "StringArray"


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("Bool", 1), ("Bool", "true"), ("Int8", True), ("Int8", 1.0), ("Int8", "1"), ("Uint8", -1), ("Uint8", 256),
        ("Float64", True), ("Float64", "1"), ("Float64", 10**400), ("Float32", 10**400), ("Float32", 1e39),
        ("String", 1), ("String", None), ("Binary", "AA=="), ("Object", b"x"), ("Int8Array", (1, 2)),
        ("Int8Array", [1, "2"]), ("StringArray", [1]), ("Float32Array", [1e39]), ("ObjectArray", [b"x"]),
        ("Wrong", 1), ("WrongArray", [1]), ("Array", [1]),
    ],
)  # fmt: skip
def test_a_value_that_does_not_fit_its_type_is_refused(kind: str, value: Any) -> None:
    with pytest.raises(InvalidInputError):
        check_value(kind, value)


def test_types_are_matched_whatever_their_case() -> None:
    assert [value_type(name.upper()) for name in VALUE_TYPES] == list(VALUE_TYPES)
    with pytest.raises(InvalidInputError, match="Int128"):
        value_type("Int128")


def test_only_single_numbers_are_numeric() -> None:
    assert {name for name in VALUE_TYPES if is_numeric(name)} == set(SIMPLE_TYPES) - {"Bool", "String"}


def test_values_are_the_same_within_the_tolerance_only() -> None:
    assert same_value(21.0, 21.4, 0.5)
    assert not same_value(21.0, 21.6, 0.5)
    assert same_value(21, 21.0)
    assert not same_value(True, 1, 5.0)
    assert not same_value(0, False)
    assert same_value("on", "on")
    assert not same_value("1", 1, 5.0)
    assert not same_value(None, 0.0, 5.0)
    assert same_value([1, 2], [1, 2])
    assert not same_value(math.nan, 1.0, 5.0)
    assert same_value(math.inf, math.inf)
