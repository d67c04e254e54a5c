"""JSON schemas of the messages of proto/, in proto3's JSON mapping, with the words that stand beside fields there.

Bounds come from the models that read them, names and comments from proto/, and 64-bit numbers are texts, as proto3
writes them (plain numbers are read, too).

Source: proto3 JSON mapping; JSON Schema draft 2020-12.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from pydantic.json_schema import models_json_schema

from edgeagents.adapters.wire import PB_CLASSES

ROOT: Final = Path(__file__).resolve().parents[2]
REF: Final = "#/components/schemas/{model}"
INT64: Final[Mapping[str, Any]] = {"type": ["string", "integer"], "pattern": "^-?[0-9]+$", "format": "int64"}
_MESSAGE: Final = re.compile(r"message (\w+) \{")
_FIELD: Final = re.compile(r"\s*(?:optional |repeated )?[\w.]+ (\w+) = \d+;\s*//\s*(.*)")


def schemas() -> dict[str, dict[str, Any]]:
    """Return the JSON schema of each message of proto/, by its name, in the order of names."""
    _, made = models_json_schema([(model, "validation") for model in PB_CLASSES], ref_template=REF)
    comments, long_numbers = dict(_comments()), _long_numbers()
    found = {}
    for name, schema in sorted(made["$defs"].items()):
        fields = schema.get("properties", {})
        properties = {
            field: _of_wire(value, comments.get((name, field), ""), is_long=(name, field) in long_numbers)
            for field, value in fields.items()
        }
        required = [field for field in schema.get("required", ()) if _must_be_there(fields[field])]
        rest = {key: value for key, value in schema.items() if key not in ("properties", "required")}
        found[name] = rest | {"properties": properties} | ({"required": required} if required else {})
    return found


def _of_wire(schema: Mapping[str, Any], comment: str, *, is_long: bool) -> dict[str, Any]:
    """Return a field's schema as JSON has it, with what proto/ says of it."""
    found = dict(schema)
    if is_long:
        found = {"title": schema.get("title", ""), **INT64}
    return found | ({"description": comment} if comment else {})


def _must_be_there(schema: Mapping[str, Any]) -> bool:
    """Say whether a field is needed: proto3 leaves out what is 0, false or empty, and those may not be so."""
    return (
        bool(schema.keys() & {"$ref", "enum", "const", "pattern", "exclusiveMinimum"}) or schema.get("minLength", 0) > 0
    )


def _long_numbers() -> set[tuple[str, str]]:
    """Return which fields are 64-bit numbers, as (message, field)."""
    found = set()
    for model, build in PB_CLASSES.items():
        for field in build().DESCRIPTOR.fields:
            if field.type in (FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_UINT64):
                found.add((model.__name__, field.name))
    return found


def _comments() -> Iterator[tuple[tuple[str, str], str]]:
    """Yield what stands beside the fields in proto/, as ((message, field), words)."""
    for path in sorted((ROOT / "proto").rglob("*.proto")):
        message = ""
        for line in path.read_text(encoding="utf-8").splitlines():
            if begins := _MESSAGE.match(line):
                message = begins[1]
            elif field := _FIELD.match(line):
                yield (message, field[1]), field[2].strip()
