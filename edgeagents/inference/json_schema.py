"""JSON schemas and tools as grammars of compact JSON.

Small models write blanks, digits and letters until they are cut off where a grammar lets them. So there is no free
white space, texts and whole numbers that the schema does not bound are bounded here, and what a schema says that
cannot be held to is refused, never ignored. Texts and numbers whose type is left open are not bounded, nor is `number`:
what bounds its digits would be joined with what else a schema says of it, and leave out legal numbers.

Source: JSON Schema 2020-12 as llguidance supports it; OpenAI API reference, structured outputs and tools.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from llguidance import LLMatcher

from edgeagents.errors import InvalidInputError
from edgeagents.inference.schema_length import VALUES, check_lengths, part_at
from edgeagents.inference.schema_patterns import check_patterns

MOST_SCHEMA_CHARS: Final = 64 << 10
MOST_DEPTH: Final = 64
MOST_TEXT: Final = 512
MOST_WHOLE: Final = 10**15
MOST_NUMBER: Final = 1 << 64  # whole numbers that a schema itself names; beyond, grammars cannot be made of them
_NONE: Final = {"type": "object", "properties": {}, "additionalProperties": False}
_COMPACT: Final[Any] = {"whitespace_flexible": False, "lenient": False}
_ELSEWHERE: Final = frozenset(("enum", "const", "$ref", "anyOf", "oneOf", "allOf"))  # say more of the same value
_BOUNDED_TEXT: Final = _ELSEWHERE | {"pattern", "format", "maxLength"}
_LOWEST: Final = -9 * 10**18  # llguidance ends the process where both bounds are near the lowest of 64 bits


def schema_grammar(schema: Any) -> str:
    """Return the grammar of compact JSON of a schema; whether it can be fulfilled is seen when it is compiled.

    Raises:
        InvalidInputError: no schema, or too large a one.
    """
    return _grammar(_checked(schema))


def tools_grammar(tools: Sequence[tuple[str, Any]], *, is_required: bool) -> str:
    """Return the grammar of `{"name":…,"arguments":{…}}` for one of the tools, or of a text that begins otherwise.

    Args:
        tools: names, and the schemas of their arguments.
        is_required: whether a tool has to be called.

    Raises:
        InvalidInputError: no tools, or schemas that are none or too large.
    """
    if not tools or len({name for name, _ in tools}) < len(tools):
        raise InvalidInputError("tools need names, each once")
    calls = []
    for number, (name, arguments) in enumerate(tools):
        inner = _moved(_arguments(name, arguments), f"#/anyOf/{number}/properties/arguments")
        calls.append(
            {
                "type": "object",
                "properties": {"name": {"const": name}, "arguments": inner},
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
        )
    schema = _checked({"anyOf": calls})
    if is_required:
        return _grammar(schema)
    whole = json.dumps({**schema, "x-guidance": _COMPACT}, ensure_ascii=True)
    return str(LLMatcher.grammar_from_lark(f"start: TEXT | call\nTEXT: /[^{{\\s](.|\\n)*/\ncall: %json {whole}\n"))


def _arguments(name: str, schema: Any) -> Any:
    """Return the schema of a tool's arguments, which are an object whether it says so or not."""
    if schema is None or schema == {}:
        return _NONE
    if not isinstance(schema, Mapping):
        return schema
    place = schema.get("$ref")
    target = part_at(schema, place) if isinstance(place, str) else schema
    said = target.get("type", "object") if isinstance(target, Mapping) else "object"
    if said != "object" and not (isinstance(said, list) and "object" in said):
        raise InvalidInputError(f"tool {name[:64]!r}: its parameters are an object, not {said!r:.40}")
    return schema if "$ref" in schema else {**schema, "type": "object"}


def _grammar(schema: dict[str, Any]) -> str:
    try:
        return str(LLMatcher.grammar_from_json_schema(schema, overrides=_COMPACT))
    except (ValueError, OverflowError, RecursionError) as error:
        raise InvalidInputError(f"not a JSON schema that can be held to: {str(error)[:120]}") from error


def _checked(schema: Any) -> dict[str, Any]:
    if not isinstance(schema, Mapping):
        raise InvalidInputError(f"a JSON schema is an object, not {type(schema).__name__}")
    try:
        size = len(json.dumps(schema, allow_nan=False))
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidInputError(f"not a JSON schema: {str(error)[:120]}") from error
    if size > MOST_SCHEMA_CHARS:
        raise InvalidInputError(f"a JSON schema of {size} characters: at most {MOST_SCHEMA_CHARS}")
    found: dict[str, Any] = _bounded(schema, 0)
    check_lengths(found)
    check_patterns(found)
    return found


def _bounded(schema: Any, depth: int) -> Any:
    """Return a schema with bounds where it has none."""
    if depth > MOST_DEPTH:
        raise InvalidInputError(f"a JSON schema nested deeper than {MOST_DEPTH}")
    if isinstance(schema, list):
        return [_bounded(item, depth + 1) for item in schema]
    if isinstance(schema, int) and abs(schema) > MOST_NUMBER:
        raise InvalidInputError(f"a JSON schema with a whole number beyond {MOST_NUMBER}")
    if not isinstance(schema, Mapping):
        return schema
    found = {name: item if name in VALUES else _bounded(item, depth + 1) for name, item in schema.items()}
    _raise_lowest(found)
    kind = schema.get("type")
    kinds = {item for item in (kind if isinstance(kind, list) else [kind]) if isinstance(item, str)}
    if "string" in kinds and not _BOUNDED_TEXT & set(schema):
        least = schema.get("minLength")
        found["maxLength"] = max(MOST_TEXT, least if isinstance(least, int) else 0)
    if "integer" in kinds and "number" not in kinds and not (_ELSEWHERE | {"multipleOf"}) & set(schema):
        if not {"minimum", "exclusiveMinimum"} & set(schema):
            found["minimum"] = -MOST_WHOLE
        if not {"maximum", "exclusiveMaximum"} & set(schema):
            found["maximum"] = MOST_WHOLE
    return found


def _raise_lowest(part: dict[str, Any]) -> None:
    """Keep a part's bounds, in place, from where llguidance falls: no whole number of 64 bits lies much lower.

    Raises:
        InvalidInputError: all that it allows lies there.
    """
    for name in ("minimum", "exclusiveMinimum"):
        if _is_number(part.get(name)) and part[name] < _LOWEST:
            part[name] = _LOWEST
    for name in ("maximum", "exclusiveMaximum"):
        if _is_number(part.get(name)) and part[name] < _LOWEST + 10**17:
            raise InvalidInputError(f"a JSON schema with numbers below {_LOWEST} alone")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _moved(schema: Any, place: str) -> Any:
    """Return a schema whose references to itself hold where it is put."""
    if isinstance(schema, list):
        return [_moved(item, place) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    found = {name: _moved(item, place) for name, item in schema.items()}
    target = schema.get("$ref")
    if isinstance(target, str) and target.startswith("#"):
        found["$ref"] = place + target[1:]
    return found
