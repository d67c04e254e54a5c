"""Events on disk: order, selection, limits."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeagents.embedded.data import Data
from edgeagents.embedded.data_routes import _numeric
from edgeagents.embedded.event_store import SCHEMA, EventStore, Selection
from edgeagents.embedded.storage import Database
from edgeagents.errors import NotFoundError, StoreError


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "data.sqlite", SCHEMA, durable=False)
    yield opened
    opened.close()


def event(number: int, device: str = "d", origin: int | None = None) -> dict[str, Any]:
    origin = number if origin is None else origin
    readings = [
        {"origin": origin, "deviceName": device, "resourceName": name, "profileName": "p", "valueType": "Int8",
         "value": str(number)}
        for name in ("a", "b")
    ]  # fmt: skip
    return {
        "apiVersion": "v3", "id": f"id-{number}", "deviceName": device, "profileName": "p", "sourceName": "s",
        "origin": origin, "tags": {"n": number}, "readings": readings,
    }  # fmt: skip


async def test_events_come_back_newest_first_and_whole(database: Database) -> None:
    store = EventStore(database, max_events=100, max_age_s=1e9)
    sent = [event(1), event(3), event(2, "e")]
    await store.add(sent)
    assert [row["id"] for row in await store.events(Selection(), 0, 10)] == ["id-3", "id-2", "id-1"]
    assert (await store.events(Selection(device="e"), 0, 10)) == [sent[2]]
    assert [row["id"] for row in await store.events(Selection(start_ns=2, end_ns=3), 1, 10)] == ["id-2"]
    readings = await store.readings(Selection(device="d", resource="b"), 0, 1)
    assert [(row["resourceName"], row["value"]) for row in readings] == [("b", "3")]
    assert await store.count("readings", Selection(resource="a")) == 3


async def test_only_the_newest_events_are_kept_also_over_a_restart(database: Database) -> None:
    store = EventStore(database, max_events=5, max_age_s=1e9)
    await store.add([event(number) for number in range(4)])
    store = EventStore(database, max_events=5, max_age_s=1e9)
    await store.add([event(number) for number in range(4, 12)])
    assert [row["id"] for row in await store.events(Selection(), 0, 10)] == [f"id-{n}" for n in range(11, 6, -1)]
    assert await store.count("readings", Selection()) == 10
    await store.delete(Selection(device="d", end_ns=9))
    await store.add([event(12), event(13)])
    assert await store.count("events", Selection()) == 4


async def test_old_events_expire_with_their_readings(database: Database) -> None:
    store = EventStore(database, max_events=100, max_age_s=60)
    now = time.time_ns()
    await store.add([event(1, origin=now - 61 * 10**9), event(2, origin=now)])
    await store.expire()
    assert [row["id"] for row in await store.events(Selection(), 0, 10)] == ["id-2"]
    assert await store.count("readings", Selection()) == 2


async def test_event_posted_twice_is_there_twice_and_can_then_not_be_told_apart(database: Database) -> None:
    data = Data(EventStore(database, max_events=100, max_age_s=1e9), None)  # type: ignore[arg-type]
    await data.store.add([event(1), event(2)])
    assert (await data.event("id-2"))["id"] == "id-2"
    await data.delete_event("id-2")
    with pytest.raises(NotFoundError):
        await data.event("id-2")
    await data.store.add([event(1)])
    with pytest.raises(Exception, match="failed to scan row to event model"):
        await data.event("id-1")


async def test_batch_that_cannot_be_written_leaves_nothing(database: Database) -> None:
    store = EventStore(database, max_events=100, max_age_s=1e9)
    await database.run(lambda connection: connection.execute("DROP TABLE readings"))
    with pytest.raises(StoreError):
        await store.add([event(1)])
    assert await store.count("events", Selection()) == 0


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("Float32", "2.5e+01", 25), ("Float64", "2.15e+01", 21.5), ("Int64", "-5", -5), ("Bool", "true", "true"),
        ("Uint8Array", "[1, 2]", [1, 2]), ("Float32Array", "[1.0e+00, 5.0e-01]", [1, 0.5]), ("Float64", "NaN", "nan"),
        ("Uint64", "18446744073709551615", 2**64 - 1), ("Int8", None, None),
    ],
)  # fmt: skip
def test_numeric_readings_are_numbers(kind: str, text: str | None, value: object) -> None:
    found = _numeric({"valueType": kind, "value": text})["value"]
    assert (found, type(found)) == (value, type(value))
