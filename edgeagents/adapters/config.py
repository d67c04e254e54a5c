"""EdgeX configuration as values: merge, convert, override, flatten, compare. Pure functions.

A configuration is a tree of dictionaries; a path names a leaf, its parts joined by `/`. Keeper holds only
text, so whatever is read back takes the type of the default that stands at the same place.

Source: edgex-wire.md sections 3.2 to 3.4; common configuration of EdgeX 4.0.2.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import yaml

from edgeagents.errors import ConfigurationError

Tree = dict[str, Any]
Instead = Callable[[str, ConfigurationError], Any]
Kind = Literal["app", "device"]

STEM: Final = "edgex/v4"
COMMON: Final = f"{STEM}/core-common-config-bootstrapper"
READY: Final = f"{COMMON}/IsCommonConfigReady"
SECTIONS: Final = {
    "Writable", "Service", "HttpServer", "MessageBus", "Trigger", "Clients", "Database", "Registry", "Device",
    "ApplicationSettings", "MaxEventSize",
}  # fmt: skip
HIDDEN: Final = "********"
_SECRET_WORDS: Final = re.compile(r"password|passwd|token|apikey|privatekey|keypem|credential", re.IGNORECASE)
_PASSWORD_IN_URL: Final = re.compile(r"(://[^/\s:@]*:)[^/\s@]+@")
_UNITS_S: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
MOST_DURATION_CHARS: Final = 64  # looking for it in digits takes time by the square of their number


def section_of(kind: Kind) -> str:
    """Return the name of the common section for a kind of service."""
    return f"{kind}-services"


def private_key(service_key: str) -> str:
    """Return the keeper key below which a service's own configuration lies."""
    return f"{STEM}/{service_key}"


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return every leaf by its path; lists become comma-separated text, empty objects and nulls are left out."""
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping):
            leaves |= flatten(value, f"{path}/")
        elif isinstance(value, (list, tuple)):
            leaves[path] = ",".join(to_text(item) for item in value)
        elif value is not None:
            leaves[path] = value
    return leaves


def unflatten(leaves: Mapping[str, Any]) -> Tree:
    """Return the tree that has these leaves; a leaf that others lie below is dropped."""
    tree: Tree = {}
    for path in sorted(leaves):
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            below = node.get(parent)
            if not isinstance(below, dict):
                below = node[parent] = {}
            node = below
        node[name] = leaves[path]
    return tree


def merge(*trees: Mapping[str, Any]) -> Tree:
    """Return all trees in one; where two have the same leaf, the later one's counts."""
    merged: Tree = {}
    for tree in trees:
        for name, value in tree.items():
            old = merged.get(name)
            if isinstance(value, Mapping):
                merged[name] = merge(old, value) if isinstance(old, Mapping) else merge(value)
            elif not (isinstance(old, Mapping) and value is None):  # an empty section in YAML is null
                merged[name] = value
    return merged


def typed(tree: Mapping[str, Any], like: Mapping[str, Any], where: str = "", instead: Instead | None = None) -> Tree:
    """Return a tree whose leaves have the types of `like`; what `like` does not know stays as it is.

    Args:
        tree: of text, or of what YAML made of it.
        like: defaults that lend their types.
        where: path of `tree` itself, for messages.
        instead: gives the value for a leaf that cannot be converted.

    Raises:
        ConfigurationError: a text is not what its default is, and there is no `instead`; names the path.
    """
    result: Tree = {}
    for name, value in tree.items():
        path = f"{where}/{name}" if where else name
        default = like.get(name)
        if isinstance(value, Mapping):
            result[name] = typed(value, default if isinstance(default, Mapping) else {}, path, instead)
            continue
        try:
            result[name] = convert(value, default, path)
        except ConfigurationError as error:
            if instead is None:
                raise
            result[name] = instead(path, error)
    return result


def convert(value: Any, default: Any, path: str) -> Any:
    """Return a value in the type of its default: bool, int, float, list, object or text.

    Raises:
        ConfigurationError: it cannot be.
    """
    try:
        match default:
            case bool():
                return _bool(value)
            case int():
                return int(value) if isinstance(value, str) else _number(value, int)
            case float():
                return float(value) if isinstance(value, str) else _number(value, float)
            case list() | tuple():
                return _list(value)
            case Mapping():
                return _object(value, default, path)
            case str():
                return to_text(value)
            case _:
                return value
    except (ValueError, TypeError) as error:
        kind = type(default).__name__
        raise ConfigurationError(f"configuration {path}: {value!r} is no {kind}: e.g. {to_text(default)!r}") from error


def override(tree: Mapping[str, Any], environ: Mapping[str, str], prefix: str = "") -> Tree:
    """Return a tree with leaves replaced by environment variables; only leaves that the tree has.

    `Service/Host` is `SERVICE_HOST`, `Clients/core-metadata/Port` is `CLIENTS_CORE_METADATA_PORT`.

    Raises:
        ConfigurationError: a variable is not of its leaf's type.
    """
    result: Tree = {}
    for name, value in tree.items():
        variable = variable_of(f"{prefix}{name}")
        if isinstance(value, Mapping) and value:
            result[name] = override(value, environ, f"{prefix}{name}/")
        elif variable in environ:
            result[name] = convert(environ[variable], value, f"{prefix}{name} (environment variable {variable})")
        else:
            result[name] = value
    return result


def variable_of(path: str) -> str:
    """Return the environment variable that overrides a path."""
    return re.sub("[/-]", "_", path).upper()


def lookup(tree: Mapping[str, Any], path: str, default: Any = None) -> Any:
    """Return what stands at a path, `default` when nothing does."""
    node: Any = tree
    for part in path.split("/"):
        if not isinstance(node, Mapping) or part not in node:
            return default
        node = node[part]
    return node


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> frozenset[str]:
    """Return the paths whose leaf is another, is new or is gone."""
    before, after = flatten(old), flatten(new)
    return frozenset(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))


def hidden(tree: Mapping[str, Any], *, secret: bool = False) -> Tree:
    """Return a tree fit to be shown: values of secrets, passwords and tokens are replaced."""
    result: Tree = {}
    for name, value in tree.items():
        below = secret or name == "SecretData"
        if isinstance(value, Mapping):
            result[name] = hidden(value, secret=below)
        elif not isinstance(value, bool) and value not in (None, "") and (below or _is_secret(name)):
            result[name] = HIDDEN
        else:
            result[name] = _PASSWORD_IN_URL.sub(rf"\1{HIDDEN}@", value) if isinstance(value, str) else value
    return result


def _is_secret(name: str) -> bool:
    return bool(_SECRET_WORDS.search(name)) and not name.endswith(("File", "Name", "Seconds", "Duration", "Mode"))


def shown(tree: Mapping[str, Any]) -> Tree:
    """Return the configuration as `/api/v3/config` answers it: own sections under `CustomConfiguration`."""
    safe = hidden(tree)
    result = {name: value for name, value in safe.items() if name in SECTIONS}
    custom = {name: value for name, value in safe.items() if name not in SECTIONS}
    return result | ({"CustomConfiguration": custom} if custom else {})


def duration_s(text: str) -> float:
    """Return the seconds of a Go duration such as `1m30s` or `500ms`; empty is 0.

    Raises:
        ConfigurationError: it is none.
    """
    words = text.strip()
    if words in ("", "0"):
        return 0.0
    seconds = go_duration_s(words)
    if seconds is None:
        raise ConfigurationError(f"{text[:MOST_DURATION_CHARS]!r} is no duration: write e.g. 500ms, 10s or 1m30s")
    return seconds


def go_duration_s(text: str) -> float | None:
    """Return the seconds of Go's numbers with units, written without blanks; None: it is none of them."""
    parts = _DURATION.findall(text) if len(text) <= MOST_DURATION_CHARS else []
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return float(sum(float(number) * _UNITS_S[unit] for number, unit in parts))


def parse_yaml(text: str, where: str) -> Tree:
    """Return the tree of a YAML file.

    Raises:
        ConfigurationError: it is no YAML, or no map; names file and line.
    """
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{where}: not YAML: {error}") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigurationError(f"{where}: a configuration is a map of sections, not a {type(tree).__name__}")
    return tree


def read_yaml(path: Path) -> Tree:
    """Return the tree of a YAML file on disk.

    Raises:
        ConfigurationError: it cannot be read, or see `parse_yaml`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"configuration file {path}: {error}: is the path right?") from error
    return parse_yaml(text, f"configuration file {path}")


def to_text(value: Any) -> str:
    """Return a scalar as keeper stores it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return ",".join(to_text(item) for item in value)
    return "" if value is None else str(value)


def parse_bool(text: str) -> bool:
    """Return what a text says, as Go's `strconv.ParseBool` reads it.

    Raises:
        ValueError: it says neither.
    """
    if text in ("1", "t", "T", "TRUE", "true", "True"):
        return True
    if text in ("0", "f", "F", "FALSE", "false", "False"):
        return False
    raise ValueError(text)


def _bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    return parse_bool(to_text(value).strip())


def _number(value: Any, kind: type[int] | type[float]) -> int | float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or kind(value) != value:
        raise ValueError(value)
    return kind(value)


def _list(value: Any) -> list[Any]:
    if isinstance(value, (list, tuple)):
        return list(value)
    return [item.strip() for item in to_text(value).split(",") if item.strip()]


def _object(value: Any, default: Mapping[str, Any], path: str) -> Tree:
    if isinstance(value, str) and value.strip():
        value = json.loads(value)  # keeper stores an object put at one key as its JSON text
    if value in (None, ""):
        return {}
    if not isinstance(value, dict):
        raise ValueError(value)
    return typed(value, default, path)
