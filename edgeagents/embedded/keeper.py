"""core-keeper's key-value store: values are text, a subtree is read by its root, every change is told on the bus.

Deliberately unlike the real one: a DELETE that is refused because of child keys removes nothing (the real one has
removed the key itself by then), and keys are matched literally (there `_` in a key matches any character).

Source: edgex-wire.md sections 3.2 and 3.3; recordings of EdgeX 4.0.2.
"""

import base64
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any, Final

from fastapi import FastAPI, Request, Response

from edgeagents.adapters.middleware import correlation_id
from edgeagents.embedded.common_config import is_address
from edgeagents.embedded.http import flag, ok, param, read_json, routes
from edgeagents.embedded.link import Link
from edgeagents.embedded.storage import Row, Table
from edgeagents.errors import ConflictError, InvalidInputError, NotFoundError

_KEY: Final = re.compile(r"[a-zA-Z0-9\-_~;=./%]+")
_CONFIGS: Final = "edgex/configs"  # fixed in every EdgeX client, not the bus's base topic


class KeyValues:
    """The tree of configuration keys."""

    def __init__(self, table: Table, link: Link) -> None:
        """Keep keys in `table` and tell changes over `link`."""
        self._table = table
        self._link = link
        self._watchers: list[Callable[[str], None]] = []

    def watch(self, callback: Callable[[str], None]) -> None:
        """Call `callback(key)` after each key, or root of a tree, that is written or removed."""
        self._watchers.append(callback)

    def leaves(self, root: str) -> dict[str, str]:
        """Return the text of every key below a root, by its path from there."""
        prefix = f"{root}/"
        return {name[len(prefix) :]: row["value"] for name, row in self._table.items() if name.startswith(prefix)}

    def seed(self, leaves: Mapping[str, str]) -> None:
        """Write the common configuration and the core's own: addresses always, the rest where absent; at start."""
        now = now_ms()
        self._table.write_now(
            {
                key: self._row(key, text, now)
                for key, text in leaves.items()
                if key not in self._table or (is_address(key) and self._table[key]["value"] != text)
            }
        )

    def below(self, key: str) -> list[str]:
        """Return a key, if it is there, and all its children.

        Raises:
            InvalidInputError: it holds characters a key may not.
            NotFoundError: there is neither.
        """
        check_key(key)
        found = [name for name in self._table if name == key or name.startswith(f"{key}/")]
        if not found:
            raise NotFoundError(f"no key starting with '{key}' found")
        return found

    def read(self, key: str, *, plain: bool) -> list[Row]:
        """Return a subtree with its values, as text or in base64.

        Raises:
            InvalidInputError: it holds characters a key may not.
            NotFoundError: there is no such key.
        """
        return [_shown(name, self._table[name], plain) for name in self.below(key)]

    async def put(self, key: str, value: Any, correlation: str, *, flatten: bool) -> list[str]:
        """Store a value, or with `flatten` each leaf of an object under its own key; return the keys.

        Raises:
            InvalidInputError: a key holds characters that it may not.
            StoreError: nothing was stored.
        """
        check_key(key)
        leaves = dict(_leaves(key, value)) if flatten else {key: _stored(value)}
        for name in leaves:
            check_key(name)
        now = now_ms()
        await self._table.write({name: self._row(name, text, now) for name, text in leaves.items()})
        await self._tell(key, correlation, {"value": value})
        return list(leaves)

    async def delete(self, key: str, correlation: str, *, prefix: bool) -> list[str]:
        """Remove a key, with `prefix` its children too; return the keys.

        Raises:
            NotFoundError: there is no such key.
            ConflictError: it has children and `prefix` is not set.
            StoreError: nothing was removed.
        """
        check_key(key)
        found = [name for name in self._table if name == key or name.startswith(f"{key}/")]
        if not found:
            raise NotFoundError(f"key '{key}' not found")
        if not prefix and found != [key]:
            raise ConflictError(f"keys having the same prefix {key} exist and cannot be deleted")
        await self._table.write({}, found)
        await self._tell(key, correlation, {})
        return found

    async def _tell(self, key: str, correlation: str, value: Row) -> None:
        for watcher in self._watchers:
            watcher(key)
        payload = {"key": key, "Created": 0, "Modified": 0} | value
        await self._link.publish(f"{_CONFIGS}/{key}", payload, correlation, absolute=True)

    def _row(self, key: str, text: str, now: int) -> Row:
        created = self._table[key]["created"] if key in self._table else now
        return {"value": text, "created": created, "modified": now}


def check_key(key: str) -> None:
    """Refuse a key with characters that it may not hold.

    Raises:
        InvalidInputError: it does.
    """
    if not _KEY.fullmatch(key):
        raise InvalidInputError(
            "key only allows characters between a to z, A to Z, 0 to 9, or one of -_ ~;=./%",
        )


def now_ms() -> int:
    """Return wall time as EdgeX's databases write it."""
    return time.time_ns() // 1_000_000


def _shown(name: str, row: Row, plain: bool) -> Row:
    value = row["value"] if plain else base64.b64encode(row["value"].encode()).decode()
    return {"key": name, "Created": row["created"], "Modified": row["modified"], "value": value}


def _leaves(key: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            if inner != {}:
                yield from _leaves(f"{key}/{name}".replace("//", "/"), inner)
    elif isinstance(value, list):
        yield key, ""  # as the real one does: a list has no text
    elif value is not None:
        yield key, _stored(value)


def _stored(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return _number_text(value)
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _number_text(value: float) -> str:
    text = format(Decimal(repr(value)), "f") if isinstance(value, float) else str(value)
    return text.rstrip("0").rstrip(".") if "." in text else text


def add_routes(app: FastAPI, store: KeyValues) -> None:
    """Add the key-value routes."""

    async def get(request: Request) -> Response:
        key = param(request, "key")
        if flag(request, "keyOnly"):
            return ok(response=store.below(key))
        return ok(response=store.read(key, plain=flag(request, "plaintext")))

    async def put(request: Request) -> Response:
        key, flatten = param(request, "key"), flag(request, "flatten")
        body = await read_json(request)
        if not isinstance(body, dict) or body.get("value") is None:
            raise InvalidInputError("the value field is undefined")
        return ok(response=await store.put(key, body["value"], correlation_id.get(), flatten=flatten))

    async def delete(request: Request) -> Response:
        key, prefix = param(request, "key"), flag(request, "prefixMatch")
        return ok(response=await store.delete(key, correlation_id.get(), prefix=prefix))

    path = "/kvs/key/{key:path}"
    routes(app, ("GET", path, get), ("PUT", path, put), ("DELETE", path, delete))
