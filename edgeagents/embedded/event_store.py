"""Events and readings on disk: written in batches, read newest first, the oldest removed beyond a count or an age.

A commit here survives the death of the process, not a power cut: the newest events of a gateway that loses power may
be lost, and the stream of the agents' own bus holds them. An event id is not unique, as in EdgeX: whoever posts an
event twice finds two.

Source: edgex-wire.md section 5.2; recordings of EdgeX 4.0.2.
"""

import json
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from edgeagents.embedded.aggregates import Group, Tally, tallied
from edgeagents.embedded.storage import Database, Row

Kind = Literal["events", "readings"]

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL, device TEXT NOT NULL, origin INTEGER NOT NULL, body TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS event_by_id ON events (id);
CREATE INDEX IF NOT EXISTS event_by_origin ON events (origin);
CREATE INDEX IF NOT EXISTS event_by_device ON events (device, origin);
CREATE TABLE IF NOT EXISTS readings (
    seq INTEGER PRIMARY KEY, event INTEGER NOT NULL, device TEXT NOT NULL, resource TEXT NOT NULL,
    origin INTEGER NOT NULL, body TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS reading_by_event ON readings (event);
CREATE INDEX IF NOT EXISTS reading_by_origin ON readings (origin);
CREATE INDEX IF NOT EXISTS reading_by_device ON readings (device, resource, origin);
"""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which events or readings are meant; what is None does not matter. Times are ns since the epoch, both included."""

    id: str | None = None
    device: str | None = None
    resource: str | None = None
    start_ns: int | None = None
    end_ns: int | None = None

    def where(self) -> tuple[str, list[Any]]:
        """Return the SQL condition and its values."""
        terms = (
            ("id = ?", self.id),
            ("device = ?", self.device),
            ("resource = ?", self.resource),
            ("origin >= ?", self.start_ns),
            ("origin <= ?", self.end_ns),
        )
        used = [(term, value) for term, value in terms if value is not None]
        return " AND ".join(term for term, _ in used) or "1", [value for _, value in used]


class EventStore:
    """The events of core-data."""

    def __init__(self, database: Database, *, max_events: int, max_age_s: float) -> None:
        """Use a database with `SCHEMA`; keep at most `max_events`, none older than `max_age_s`."""
        self._database = database
        self._max_events = max_events
        self._max_age_s = max_age_s
        self._count = database.run_now(lambda connection: _count(connection, "events", Selection()))

    async def add(self, events: Sequence[Row]) -> None:
        """Store events, all or none, and remove what is beyond the limits.

        Raises:
            StoreError: they could not be stored.
        """
        # The rows are made here and not on the database's thread, which is to hold its transaction but briefly.
        rows = [_event_rows(event) for event in events]
        self._count = await self._database.run(lambda connection: self._insert(connection, rows))

    def _insert(self, connection: sqlite3.Connection, rows: list[tuple[tuple[Any, ...], list[tuple[Any, ...]]]]) -> int:
        for event, readings in rows:
            cursor = connection.execute("INSERT INTO events (id, device, origin, body) VALUES (?, ?, ?, ?)", event)
            connection.executemany(
                "INSERT INTO readings (event, device, resource, origin, body) VALUES (?, ?, ?, ?, ?)",
                [(cursor.lastrowid, *reading) for reading in readings],
            )
        return self._count + len(rows) - self._trim(connection, len(rows))

    def _trim(self, connection: sqlite3.Connection, added: int) -> int:
        excess = self._count + added - self._max_events
        if excess <= 0:
            return 0
        row = connection.execute("SELECT seq FROM events ORDER BY seq LIMIT 1 OFFSET ?", (excess - 1,)).fetchone()
        return 0 if row is None else _delete(connection, "seq <= ?", [row[0]])

    async def expire(self) -> None:
        """Remove what is older than the limit.

        Raises:
            StoreError: it could not be removed.
        """
        await self.delete(Selection(end_ns=int((time.time() - self._max_age_s) * 1e9)))

    async def delete(self, which: Selection) -> int:
        """Remove events with their readings; return how many.

        Raises:
            StoreError: nothing was removed.
        """

        def work(connection: sqlite3.Connection) -> int:
            removed = _delete(connection, *which.where())
            self._count -= removed
            return removed

        return await self._database.run(work)

    async def count(self, kind: Kind, which: Selection) -> int:
        """Return how many events or readings there are."""
        return await self._database.run(lambda connection: _count(connection, kind, which))

    async def events(self, which: Selection, offset: int, limit: int) -> list[Row]:
        """Return events with their readings, newest first."""

        def work(connection: sqlite3.Connection) -> list[Row]:
            return [
                json.loads(body) | {"readings": _readings_of(connection, seq)}
                for seq, body in _select(connection, "events", which, offset, limit)
            ]

        return [_ordered(event) for event in await self._database.run(work)]

    async def readings(self, which: Selection, offset: int, limit: int) -> list[Row]:
        """Return readings, newest first."""

        def work(connection: sqlite3.Connection) -> list[Row]:
            return [json.loads(body) for _, body in _select(connection, "readings", which, offset, limit)]

        return await self._database.run(work)

    async def tallies(self, which: Selection) -> dict[Group, Tally]:
        """Return the numbers of readings, taken together by device, resource, profile and value type."""

        def work(connection: sqlite3.Connection) -> dict[Group, Tally]:
            where, values = which.where()
            parts = ", ".join(f"json_extract(body, '$.{key}')" for key in ("profileName", "valueType", "value"))
            statement = f"SELECT device, resource, {parts} FROM readings WHERE {where}"  # noqa: S608
            return tallied(connection.execute(statement, values))

        return await self._database.run(work)


def _event_rows(event: Row) -> tuple[tuple[Any, ...], list[tuple[Any, ...]]]:
    readings = [
        (reading["deviceName"], reading["resourceName"], reading["origin"], _text(reading))
        for reading in event["readings"]
    ]
    body = {key: value for key, value in event.items() if key != "readings"}
    return (event["id"], event["deviceName"], event["origin"], _text(body)), readings


def _ordered(event: Row) -> Row:
    """Return an event with its tags last, as EdgeX writes it."""
    tags = {"tags": event["tags"]} if event.get("tags") else {}
    return {key: value for key, value in event.items() if key != "tags"} | tags


def _readings_of(connection: sqlite3.Connection, event: int) -> list[Row]:
    rows = connection.execute("SELECT body FROM readings WHERE event = ? ORDER BY seq", (event,))
    return [json.loads(body) for (body,) in rows]


def _count(connection: sqlite3.Connection, kind: Kind, which: Selection) -> int:
    where, values = which.where()
    return int(connection.execute(f"SELECT COUNT(*) FROM {kind} WHERE {where}", values).fetchone()[0])  # noqa: S608


def _select(
    connection: sqlite3.Connection, kind: Kind, which: Selection, offset: int, limit: int
) -> list[tuple[int, str]]:
    where, values = which.where()
    statement = f"SELECT seq, body FROM {kind} WHERE {where} ORDER BY origin DESC, seq DESC LIMIT ? OFFSET ?"  # noqa: S608
    return connection.execute(statement, [*values, limit, offset]).fetchall()


def _delete(connection: sqlite3.Connection, where: str, values: list[Any]) -> int:
    connection.execute(f"DELETE FROM readings WHERE event IN (SELECT seq FROM events WHERE {where})", values)  # noqa: S608
    return connection.execute(f"DELETE FROM events WHERE {where}", values).rowcount  # noqa: S608


def _text(row: Row) -> str:
    return json.dumps(row, separators=(",", ":"))
