"""States of protocols as bytes, and back: so that one survives a crash and moves with its container.

JSON with the name of the class beside the fields. Only classes that are asked for are built: bytes name a class, they
never import one. A newer field is an error, not a guess: a state is read by the version that wrote it, or by one
that gave its new fields defaults.

Source: style.md section 3 ("a state can be saved and moved").
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Final

from pydantic import ValidationError

from edgeagents.errors import MalformedMessageError
from edgeagents.model.message import Message

_CLASS: Final = "is"
_ODD: Final = {"inf": math.inf, "-inf": -math.inf}


def to_bytes(state: object) -> bytes:
    """Return a state of frozen dataclasses, messages, tuples, sets, maps and plain values as bytes."""
    return json.dumps(_plain(state), separators=(",", ":"), allow_nan=False).encode()


def by_name(classes: Iterable[type]) -> dict[str, type]:
    """Return classes by the names they are saved under."""
    return {name_of(cls): cls for cls in classes}


def name_of(cls: type) -> str:
    """Return the name a class is saved under: two protocols may both have a state `Planned`."""
    return f"{cls.__module__.rpartition('.')[2]}.{cls.__name__}"


def from_bytes(data: bytes, classes: Mapping[str, type]) -> Any:
    """Return the state that bytes stand for.

    Args:
        data: what `to_bytes` returned.
        classes: all that may occur in it, by name.

    Raises:
        MalformedMessageError: not such bytes.
    """
    try:
        return _built(json.loads(data), classes)
    except (ValueError, TypeError, KeyError, RecursionError, ValidationError) as error:
        raise MalformedMessageError(f"not a saved state: {error}: was it written by a newer version?") from error


def _plain(value: object) -> Any:
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else {_CLASS: "float", "value": str(value)}
        case Message():
            return {_CLASS: name_of(type(value)), "value": value.model_dump(mode="json")}
        case tuple() | list():
            return [_plain(item) for item in value]
        case frozenset():
            return {_CLASS: "set", "value": sorted((_plain(item) for item in value), key=json.dumps)}
        case Mapping():
            return {_CLASS: "map", "value": [[_plain(key), _plain(item)] for key, item in value.items()]}
        case _ if is_dataclass(value):
            return {_CLASS: name_of(type(value)), **{f.name: _plain(getattr(value, f.name)) for f in fields(value)}}
        case _:
            raise TypeError(f"a {type(value).__name__} cannot be part of a saved state")


def _built(value: Any, classes: Mapping[str, type]) -> Any:
    if isinstance(value, list):
        return tuple(_built(item, classes) for item in value)
    if not isinstance(value, dict):
        return value
    match value:
        case {"is": "float", "value": str(text)}:
            return _ODD[text]
        case {"is": "set", "value": list(items)}:
            return frozenset(_built(item, classes) for item in items)
        case {"is": "map", "value": list(items)}:
            return {_built(key, classes): _built(item, classes) for key, item in items}
    cls = classes[value[_CLASS]]
    if issubclass(cls, Message):
        return cls.model_validate(value["value"])
    return cls(**{name: _built(item, classes) for name, item in value.items() if name != _CLASS})
