"""How long the texts of a JSON schema are at least: what is endless or very long is refused before it is begun.

Letters that follow in any case are computed without being asked for. So a schema of three thousand equal items, or of
an object that needs itself, would take the model's time from everybody for seconds.

About right is enough: texts of a pattern count as long as its least repetitions make them, values as they are written.

Source: JSON Schema 2020-12; RFC 6901 for references.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

from edgeagents.errors import InvalidInputError

MOST_LEAST: Final = 32 << 10  # characters
MOST_CHAIN: Final = 64  # references of which one needs the next
MOST_LOOKS: Final = 200_000  # at parts, all rounds together: some tenths of a second
VALUES: Final = ("enum", "const", "default", "examples")  # what is in them is no schema
_TIMES: Final = re.compile(r"\{([0-9]{1,9})")


@dataclass(slots=True)
class _Known:
    """What is known of the parts of one schema that references name.

    Args:
        parts: what each reference names, by its text. A part has any number of names: it is known by its identity.
        least: about how many characters each of these parts has at least, by identity.
        settled: of all parts, once `least` changes no more.
        looks: how often a part was looked at so far.
    """

    parts: Mapping[str, Any]
    least: dict[int, float]
    settled: dict[int, float] | None = None
    looks: int = 0

    def look(self) -> None:
        """Count one more look: parts within parts that need each other cost far more than they are long.

        Raises:
            InvalidInputError: there were more than `MOST_LOOKS`.
        """
        self.looks += 1
        if self.looks > MOST_LOOKS:
            raise InvalidInputError("schema: too involved: fewer references, or parts that need fewer of each other")


def check_lengths(schema: Mapping[str, Any]) -> None:
    """Look at a schema and all its parts, those that may be left out too.

    Raises:
        InvalidInputError: a part has only texts longer than `MOST_LEAST`, or none that ends; or it cannot be said
            with `MOST_LOOKS`.
    """
    parts = list(parts_of(schema))
    places = {part["$ref"]: part_at(schema, part["$ref"]) for part in parts if isinstance(part.get("$ref"), str)}
    named = {id(part): part for part in places.values() if isinstance(part, Mapping)}
    known = _Known(places, dict.fromkeys(named, math.inf))
    for _ in range(MOST_CHAIN):
        before = dict(known.least)
        for number, part in named.items():
            known.least[number] = _least(part, known)
        if known.least == before:
            break
    known.settled = {}
    if any(_least(part, known) > MOST_LEAST for part in parts):
        raise InvalidInputError(f"a JSON schema whose texts have more than {MOST_LEAST} characters, or no end")


def parts_of(schema: Any) -> Iterator[Mapping[str, Any]]:
    """Yield a schema and all parts of it, as they are written: references are not followed."""
    waiting = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting += part
        elif isinstance(part, Mapping):
            yield part
            waiting += [item for name, item in part.items() if name not in VALUES]


def _least(schema: Any, known: _Known) -> float:
    """Return about how many characters a text has at least, by what is known of references so far."""
    known.look()
    if not isinstance(schema, Mapping):
        return 0
    if known.settled is None:
        return _reckoned(schema, known)
    if id(schema) not in known.settled:
        known.settled[id(schema)] = _reckoned(schema, known)
    return known.settled[id(schema)]


def _reckoned(schema: Mapping[str, Any], known: _Known) -> float:
    found = 0.0
    if "const" in schema:
        found += len(json.dumps(schema["const"], ensure_ascii=False))
    if isinstance(pattern := schema.get("pattern"), str) and (times := _TIMES.findall(pattern)):
        found += len(pattern) * math.prod(max(1.0, float(time)) for time in times)
    if isinstance(place := schema.get("$ref"), str):
        found += known.least.get(id(known.parts.get(place)), 0)
    for name in ("anyOf", "oneOf"):
        found += min((_least(item, known) for item in list_at(schema, name)), default=0)
    found += sum(_least(item, known) for item in list_at(schema, "allOf"))
    return found + _least_of_object(schema, known) + _least_of_array(schema, known)


def _least_of_object(schema: Mapping[str, Any], known: _Known) -> float:
    properties = schema.get("properties")
    said = properties if isinstance(properties, Mapping) else {}
    needed = [name for name in list_at(schema, "required") if isinstance(name, str)]
    other = schema.get("additionalProperties")
    return sum(len(name) + 4 + _least(said.get(name, other), known) for name in needed)


def _least_of_array(schema: Mapping[str, Any], known: _Known) -> float:
    first, count = list_at(schema, "prefixItems"), schema.get("minItems")
    if not isinstance(count, (int, float)) or count < 1:
        return 0
    begun = first[: int(min(count, len(first)))]
    rest = (count - len(begun)) * (1 + _least(schema.get("items"), known)) if count > len(begun) else 0
    return sum(1 + _least(item, known) for item in begun) + rest


def part_at(schema: Any, place: str) -> Any:
    """Return the part of a schema that a reference names; None: there is none, which compiling tells."""
    if not place.startswith("#"):
        return None
    for step in unquote(place[1:]).split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(schema, Mapping):
            schema = schema.get(name)
        elif isinstance(schema, list) and re.fullmatch("[0-9]{1,6}", name) and int(name) < len(schema):
            schema = schema[int(name)]
        else:
            return None
    return schema


def list_at(schema: Mapping[str, Any], name: str) -> list[Any]:
    """Return a list that a part has under a name; empty: it has none."""
    found = schema.get(name)
    return found if isinstance(found, list) else []
