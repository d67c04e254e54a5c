"""How long the texts of a JSON schema are at least: what is endless or very long is refused before it is begun.

Letters that follow in any case are computed at one go, during which nothing else in the process runs. So a schema of
three thousand equal items, or of an object that needs itself, would hold up everybody for seconds.

About right is enough: texts of a pattern count as long as its least repetitions make them, values as they are written.

Source: JSON Schema 2020-12; RFC 6901 for references.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import unquote

from edgeagents.errors import InvalidInputError

MOST_LEAST: Final = 32 << 10  # characters
MOST_CHAIN: Final = 64  # references of which one needs the next
VALUES: Final = ("enum", "const", "default", "examples")  # what is in them is no schema
_TIMES: Final = re.compile(r"\{([0-9]{1,9})")


def check_lengths(schema: Mapping[str, Any]) -> None:
    """Look at a schema and all its parts, those that may be left out too.

    Raises:
        InvalidInputError: a part has only texts longer than `MOST_LEAST`, or none that ends.
    """
    parts = list(_parts(schema))
    named = {part["$ref"]: math.inf for part in parts if isinstance(part.get("$ref"), str)}
    for _ in range(MOST_CHAIN):
        before = dict(named)
        for place in named:
            named[place] = _least(part_at(schema, place), named)
        if named == before:
            break
    if any(_least(part, named) > MOST_LEAST for part in parts):
        raise InvalidInputError(f"a JSON schema whose texts have more than {MOST_LEAST} characters, or no end")


def _parts(schema: Any) -> Iterator[Mapping[str, Any]]:
    waiting = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting += part
        elif isinstance(part, Mapping):
            yield part
            waiting += [item for name, item in part.items() if name not in VALUES]


def _least(schema: Any, named: Mapping[str, float]) -> float:
    """Return about how many characters a text has at least, by what is known of references so far."""
    if not isinstance(schema, Mapping):
        return 0
    found = 0.0
    if "const" in schema:
        found += len(json.dumps(schema["const"], ensure_ascii=False))
    if isinstance(pattern := schema.get("pattern"), str) and (times := _TIMES.findall(pattern)):
        found += len(pattern) * math.prod(max(1.0, float(time)) for time in times)
    if isinstance(place := schema.get("$ref"), str):
        found += named.get(place, 0)
    for name in ("anyOf", "oneOf"):
        found += min((_least(item, named) for item in _list(schema, name)), default=0)
    found += sum(_least(item, named) for item in _list(schema, "allOf"))
    return found + _least_of_object(schema, named) + _least_of_array(schema, named)


def _least_of_object(schema: Mapping[str, Any], named: Mapping[str, float]) -> float:
    properties = schema.get("properties")
    known = properties if isinstance(properties, Mapping) else {}
    needed = [name for name in _list(schema, "required") if isinstance(name, str)]
    other = schema.get("additionalProperties")
    return sum(len(name) + 4 + _least(known.get(name, other), named) for name in needed)


def _least_of_array(schema: Mapping[str, Any], named: Mapping[str, float]) -> float:
    first, count = _list(schema, "prefixItems"), schema.get("minItems")
    if not isinstance(count, (int, float)) or count < 1:
        return 0
    begun = first[: int(min(count, len(first)))]
    rest = (count - len(begun)) * (1 + _least(schema.get("items"), named)) if count > len(begun) else 0
    return sum(1 + _least(item, named) for item in begun) + rest


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


def _list(schema: Mapping[str, Any], name: str) -> list[Any]:
    found = schema.get(name)
    return found if isinstance(found, list) else []
