"""Readings taken together as core-data's `aggregateFunc` does."""

import math
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagents.embedded.aggregates import FUNCTIONS, aggregate_function, aggregated, tallied
from edgeagents.errors import InvalidInputError

INTEGERS = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20)


def readings(kind: str, *texts: Any, resource: str = "r") -> list[tuple[str, str, str, str, Any]]:
    return [("d", resource, "p", kind, text) for text in texts]


def result(function: str, kind: str, *texts: Any) -> tuple[str, Any]:
    (found,) = aggregated(tallied(readings(kind, *texts)), function)
    return found["valueType"], found["value"]


@pytest.mark.parametrize(
    ("function", "kind", "expected"),
    [
        ("MIN", "Int16", ("Int64", -250)),
        ("MAX", "Int16", ("Int64", 7)),
        ("SUM", "Int16", ("Int64", -246)),
        ("AVG", "Int16", ("Float64", -82.0)),
        ("COUNT", "Int16", ("Uint64", 3)),
    ],
)
def test_integers_give_one_number_of_the_widest_type(function: str, kind: str, expected: tuple[str, Any]) -> None:
    assert result(function, kind, "-3", "-250", "7") == expected


def test_unsigned_numbers_and_floats_keep_their_kind() -> None:
    assert result("SUM", "Uint64", str(2**64 - 1), "1") == ("Uint64", 2**64)
    assert result("MAX", "Float32", "1.5e+00", "-4e+00") == ("Float64", 1.5)


def test_what_is_no_number_counts_as_nothing() -> None:
    for kind, text in (("Bool", "true"), ("String", "5"), ("Int8Array", "[1, 2]"), ("Int8", None)):
        assert result("COUNT", kind, text) == ("Uint64", 0)
        assert result("SUM", kind, text) == (kind, "")


def test_null_readings_do_not_lower_an_average() -> None:
    assert result("AVG", "Uint8", "4", None, "6") == ("Float64", 5.0)


def test_groups_come_in_the_order_of_devices_and_resources() -> None:
    found = aggregated(tallied(readings("Int8", "1", resource="b") + readings("Int8", "2", resource="a")), "SUM")
    assert [(row["resourceName"], row["value"]) for row in found] == [("a", 2), ("b", 1)]


def test_floats_that_run_over_give_infinity_and_opposite_infinities_nothing() -> None:
    assert result("SUM", "Float64", "1.7e308", "1.7e308")[1] == math.inf
    assert math.isnan(result("AVG", "Float64", "+Inf", "-Inf")[1])


@given(INTEGERS)
def test_integers_are_summed_exactly(numbers: list[int]) -> None:
    texts = [str(number) for number in numbers]
    assert result("SUM", "Int64", *texts)[1] == sum(numbers)
    assert result("AVG", "Int64", *texts)[1] == pytest.approx(fmean(numbers), abs=1e6)
    assert result("MIN", "Int64", *texts)[1] <= result("MAX", "Int64", *texts)[1]


@pytest.mark.parametrize("word", [name.lower() for name in FUNCTIONS])
def test_function_may_be_written_in_any_case(word: str) -> None:
    assert aggregate_function(word) == word.upper()


def test_unknown_function_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="invalid aggregate function"):
        aggregate_function("MEDIAN")
