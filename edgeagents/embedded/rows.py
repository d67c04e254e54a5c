"""What core-metadata does with rows of any kind: find, add, list, and tell of a change on the bus.

Source: edgex-wire.md section 9; recordings of EdgeX 4.0.2.
"""

import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from edgeagents.embedded.http import page
from edgeagents.embedded.link import Link
from edgeagents.embedded.storage import Row, Table
from edgeagents.errors import ConflictError, InvalidInputError, NotFoundError

KEY: Final = "core-metadata"
Writable = Callable[[str], Any]  # what stands at a path below `Writable` now; None: nothing


class Notices:
    """System events of core-metadata."""

    def __init__(self, link: Link) -> None:
        """Tell over `link`."""
        self._link = link

    async def tell(self, kind: str, action: str, owner: str, details: Row, correlation: str, profile: str = "") -> None:
        """Publish the notice of one change; the last level of its topic is left out when there is no profile."""
        levels = ["system-events", KEY, kind, action, owner, *([profile] if profile else [])]
        await self._link.publish("/".join(levels), system_event(kind, action, owner, details), correlation)


def system_event(kind: str, action: str, owner: str, details: Row) -> Row:
    """Return the payload of a system event."""
    return {
        "apiVersion": "v3",
        "type": kind,
        "action": action,
        "source": KEY,
        "owner": owner,
        "tags": None,
        "details": details,
        "timestamp": time.time_ns(),
    }


def find(table: Table, name: str, kind: str) -> Row:
    """Return a row.

    Raises:
        NotFoundError: there is none of that name.
    """
    if name not in table:
        raise NotFoundError(f"no {kind} with name '{name}' found")
    return table[name]


def find_by_id(table: Table, wanted: str, kind: str) -> Row:
    """Return a row by its id.

    Raises:
        NotFoundError: there is none of that id.
    """
    row = next((row for row in table.values() if row.get("id") == wanted), None)
    if row is None:
        raise NotFoundError(f"no {kind} with id '{wanted}' found")
    return row


def named(table: Table, patch: Row, kind: str) -> Row:
    """Return the row that a change names by id or by name.

    Raises:
        NotFoundError: there is no such row.
        InvalidInputError: id and name are of two rows.
    """
    if not patch.get("id"):
        return find(table, patch["name"], kind)
    row = find_by_id(table, patch["id"], kind)
    if patch.get("name", row["name"]) != row["name"]:
        raise InvalidInputError(f"{kind} name '{patch['name']}' not match the exsting '{row['name']}' ")
    return row


async def add(table: Table, row: Row, twice: str) -> None:
    """Store a new row.

    Raises:
        ConflictError: there is one of its name; says `twice`.
    """
    if row["name"] in table:
        raise ConflictError(twice)
    try:
        await table.add(row["name"], row)
    except ConflictError as error:
        raise ConflictError(twice) from error


def listed(table: Table, offset: int, limit: int, wanted: Callable[[Row], bool]) -> tuple[int, list[Row]]:
    """Return how many rows are wanted, and the part of them that was asked for, the oldest first.

    Raises:
        RangeError: the offset lies beyond the end.
    """
    found = sorted((row for row in table.values() if wanted(row)), key=lambda row: row.get("created", 0))
    return len(found), page(found, offset, limit)


def has_labels(wanted: Iterable[str]) -> Callable[[Row], bool]:
    """Return the question whether a row has all these labels."""
    labels = set(wanted)
    return lambda row: labels <= set(row.get("labels", ()))
