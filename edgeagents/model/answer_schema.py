"""An agent's options as a JSON schema, for servers that know no grammars of ours: what `model/answer.py` reads.

Source: JSON Schema 2020-12, of it what OpenAI-compatible servers agree on: objects, enumerations, bounds, `anyOf`.
"""

import json
from typing import Any

from edgeagents.model.options import Options, Slot
from edgeagents.model.values import is_numeric, parse_value


def answer_schema(options: Options) -> dict[str, Any]:
    """Return the schema of all answers that options hold; devices with the same menu share an entry."""
    text = {"type": "string", "minLength": 1, "maxLength": options.most_text}
    forms = [_object(nothing=text)]
    if options.may_ask:
        forms.append(_object(ask=text))
    if options.skills:
        forms.append(_object(skill={"enum": list(options.skills)}, text=text))
    groups: dict[str, tuple[list[str], dict[str, Any]]] = {}
    for slot in options.slots:
        value = _value(slot)
        devices, _ = groups.setdefault(json.dumps([slot.resource, value]), ([], value))
        devices.append(slot.device)
    for key, (devices, value) in groups.items():
        resource = json.loads(key)[0]
        forms.append(_object(device={"enum": list(dict.fromkeys(devices))}, resource={"const": resource}, value=value))
    return {"anyOf": forms}


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object", "properties": properties, "required": list(properties), "additionalProperties": False,
    }  # fmt: skip


def _value(slot: Slot) -> dict[str, Any]:
    if slot.values:
        return {"enum": [parse_value(slot.kind, text) for text in slot.values]}
    if slot.kind == "Bool":
        return {"type": "boolean"}
    if not is_numeric(slot.kind):
        return {"type": "string", "maxLength": slot.most_chars}
    if not slot.decimals:
        return {"type": "integer", "minimum": slot.lowest, "maximum": slot.highest}
    scale = 10**slot.decimals
    return {"type": "number", "minimum": slot.lowest / scale, "maximum": slot.highest / scale}
