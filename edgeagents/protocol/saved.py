"""States of protocols as bytes, and back: so that one survives a crash and moves with its container.

JSON with the name of the class beside the fields, and the version of this form around all. Only classes that are asked
for are built: bytes name a class, they never import one. A field holds what its class says, or nothing is built: a
state that is none is found on reading, not steps later. A newer field is an error, not a guess: a state is read by the
version that wrote it, or by one that gave its new fields defaults. Leaves out checksums: whoever stores has those.

Source: style.md section 3 ("a state can be saved and moved").
"""

import json
import math
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import ValidationError

from edgeagents.errors import MalformedMessageError
from edgeagents.model.message import Message

VERSION: Final = 1  # of the form, not of the states in it
_CLASS: Final = "is"
_ODD: Final = {"inf": math.inf, "-inf": -math.inf}


def to_bytes(state: object) -> bytes:
    """Return a state of frozen dataclasses, messages, tuples, sets, maps and plain values as bytes.

    Raises:
        TypeError: it holds something else.
        ValueError: it holds a number that is none.
    """
    return json.dumps({"version": VERSION, "state": _plain(state)}, separators=(",", ":"), allow_nan=False).encode()


def by_name(classes: Iterable[type]) -> dict[str, type]:
    """Return classes by the names they are saved under."""
    return {name_of(cls): cls for cls in classes}


def name_of(cls: type) -> str:
    """Return the name a class is saved under: two protocols may both have a state `Planned`."""
    return f"{cls.__module__.rpartition('.')[2]}.{cls.__name__}"


def from_bytes(data: bytes, classes: Mapping[str, type], root: type | UnionType = object) -> Any:
    """Return the state that bytes stand for.

    Args:
        data: what `to_bytes` returned.
        classes: all that may occur in it, by name.
        root: what it must be, as the alias of a protocol's states.

    Raises:
        MalformedMessageError: not such bytes.
    """
    try:
        match json.loads(data):
            case {"version": int(version), "state": dict(state)} if version == VERSION:
                built = _built(state, classes)
            case _:
                raise ValueError(f"no state in version {VERSION} of the form")
    except (ValueError, TypeError, KeyError, RecursionError, ValidationError) as error:
        raise MalformedMessageError(f"not a saved state: {error}: was it written by a newer version?") from error
    if not is_dataclass(built) or not isinstance(built, root):
        raise MalformedMessageError(f"a saved {type(built).__name__}: another state was expected")
    return built


def _plain(value: object) -> Any:
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            if math.isnan(value):
                raise ValueError("nan cannot be part of a saved state")
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
    found = {name: _built(item, classes) for name, item in value.items() if name != _CLASS}
    owner: Any = cls  # a class is hashable, which mypy doubts of `type`
    hints = _hints(owner)
    for name, item in found.items():
        if name in hints and not _fits(item, hints[name]):
            raise ValueError(f"{cls.__name__}.{name} is a {type(item).__name__}")
    return cls(**found)


@cache
def _hints(cls: Any) -> dict[str, Any]:
    return get_type_hints(cls)


def _fits(value: object, hint: Any) -> bool:
    """Say whether a value is what a type says; a type that is not looked into lets all through."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _fits(value, parts[0])
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is Literal:
        return value in parts
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if len(parts) == 2 and parts[1] is Ellipsis:
            return all(_fits(item, parts[0]) for item in value)
        return len(value) == len(parts) and all(map(_fits, value, parts))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(
            _fits(key, parts[0]) and _fits(item, parts[1]) for key, item in value.items()
        )
    if isinstance(origin, type) and issubclass(origin, AbstractSet):
        return isinstance(value, AbstractSet) and all(_fits(item, parts[0]) for item in value)
    hint = type(None) if hint is None else getattr(hint, "__supertype__", hint)
    if hint in (int, float):
        return isinstance(value, (int, float) if hint is float else int) and not isinstance(value, bool)
    return not isinstance(hint, type) or isinstance(value, hint)
