"""core-data's `aggregateFunc`: many readings in, one number for each resource of each device out. Pure functions.

As in EdgeX: readings are taken together that agree in device, resource, profile and type; what is no single number
counts as nothing (COUNT 0, the others empty text); COUNT is a Uint64, AVG a Float64, and MIN, MAX and SUM have the
widest type of their kind, so that no sum runs over.

Source: behaviour of EdgeX 4.0.2.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

from edgeagents.errors import InvalidInputError
from edgeagents.model.values import is_numeric, parse_value

Number = int | float
Group = tuple[str, str, str, str]  # device, resource, profile, value type

FUNCTIONS: Final = ("MIN", "MAX", "COUNT", "SUM", "AVG")


def aggregate_function(text: str) -> str:
    """Return the name of an aggregate function, written in any case.

    Raises:
        InvalidInputError: there is none of that name.
    """
    if text.upper() not in FUNCTIONS:
        raise InvalidInputError("invalid aggregate function specified")
    return text.upper()


class Tally:
    """The numbers of one group so far."""

    def __init__(self) -> None:
        """Start with none."""
        self.numbers: list[Number] = []

    def take(self, kind: str, text: Any) -> None:
        """Count a reading's value, if it is a number."""
        if isinstance(text, str) and is_numeric(kind):
            self.numbers.append(parse_value(kind, text))  # type: ignore[arg-type]  # numeric types parse to numbers

    def result(self, function: str) -> Number | str:
        """Return what a function makes of the numbers; empty text when there are none."""
        numbers = self.numbers
        if function == "COUNT":
            return len(numbers)
        if not numbers:
            return ""
        match function:
            case "MIN":
                return min(numbers)
            case "MAX":
                return max(numbers)
            case "SUM":
                return _sum(numbers)
            case _:
                return _sum(numbers) / len(numbers)


def tallied(readings: Iterable[tuple[str, str, str, str, Any]]) -> dict[Group, Tally]:
    """Return the tallies of readings: device, resource, profile, value type and value text each."""
    groups: dict[Group, Tally] = {}
    for device, resource, profile, kind, text in readings:
        group = (device, resource, profile, kind)
        if group not in groups:
            groups[group] = Tally()
        groups[group].take(kind, text)
    return groups


def aggregated(groups: Mapping[Group, Tally], function: str) -> list[dict[str, Any]]:
    """Return one reading for each group, in the order of devices and resources."""
    found = []
    for (device, resource, profile, kind), tally in sorted(groups.items()):
        value = tally.result(function)
        found.append(
            {
                "deviceName": device, "resourceName": resource, "profileName": profile,
                "valueType": _type_of(function, kind, is_empty=value == ""), "value": value,
            }
        )  # fmt: skip
    return found


def _type_of(function: str, kind: str, *, is_empty: bool) -> str:
    if function == "COUNT":
        return "Uint64"
    if is_empty:
        return kind
    if function == "AVG" or kind.startswith("Float"):
        return "Float64"
    return "Uint64" if kind.startswith("Uint") else "Int64"


def _sum(numbers: list[Number]) -> Number:
    if all(isinstance(number, int) for number in numbers):
        return sum(numbers)
    try:
        return math.fsum(numbers)
    except (OverflowError, ValueError):  # beyond any float, or infinities of both signs
        return sum(float(number) for number in numbers)
