"""core-data beyond the plain lists: aggregates, lists without a count, events in CBOR, removal by age."""

import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from edgeagents.adapters import cbor
from edgeagents.model.envelope import EventMessage
from tests.contract.edgex import Edgex
from tests.contract.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")
PICTURE = b"\x89PNG\x00\xff"


@pytest_asyncio.fixture(loop_scope="session")
async def device(edgex: Edgex) -> AsyncIterator[str]:
    """A name that no device has; its events are removed."""
    name = edgex.name("aggregated")
    yield name
    await edgex.ask("core-data", "DELETE", f"/event/device/name/{name}")


def event(device: str, *readings: tuple[str, str, Any], origin: int = 0) -> dict[str, Any]:
    origin = origin or time.time_ns()
    said = {"origin": origin, "deviceName": device, "profileName": "any"}
    rows = [
        said | {"id": str(uuid.uuid4()), "resourceName": name, "valueType": kind}
        | (value if isinstance(value, dict) else {"value": value})
        for name, kind, value in readings
    ]  # fmt: skip
    return {"apiVersion": "v3", "id": str(uuid.uuid4()), "sourceName": "any", **said, "readings": rows}


async def post(edgex: Edgex, body: dict[str, Any]) -> None:
    path = f"/event/device-any/any/{body['deviceName']}/any"
    answer = await edgex.ask("core-data", "POST", path, {"apiVersion": "v3", "event": body})
    assert answer.status == 201, answer


async def aggregate(edgex: Edgex, path: str, function: str, **query: str) -> dict[str, tuple[str, Any]]:
    """Return type and value by resource."""
    answer = await edgex.ask("core-data", "GET", path, query={"aggregateFunc": function} | query)
    assert answer.status == 200, answer
    assert answer.body.keys() == {"apiVersion", "statusCode", "aggregateFunc", "readings"}
    assert answer.body["aggregateFunc"] == function
    return {row["resourceName"]: (row["valueType"], row["value"]) for row in answer.body["readings"]}


@pytest_asyncio.fixture(loop_scope="session")
async def measured(edgex: Edgex, device: str) -> str:
    """The device after three events with numbers, a text, a truth value, a null and an array each."""
    for number, fraction in ((3, "1.5"), (250, "2.25"), (7, "-4.0")):
        await post(
            edgex,
            event(
                device, ("I", "Int16", str(-number)), ("U", "Uint8", str(number)), ("F", "Float32", fraction),
                ("B", "Bool", "true"), ("S", "String", "7"), ("N", "Int8", None), ("A", "Int8Array", "[1, 2]"),
            ),
        )  # fmt: skip
    return device


@pytest.mark.parametrize(
    ("function", "signed", "unsigned", "fraction"),
    [
        ("MIN", ("Int64", -250), ("Uint64", 3), ("Float64", -4)),
        ("max", ("Int64", -3), ("Uint64", 250), ("Float64", 2.25)),
        ("SUM", ("Int64", -260), ("Uint64", 260), ("Float64", -0.25)),
        ("AVG", ("Float64", -260 / 3), ("Float64", 260 / 3), ("Float64", -0.25 / 3)),
        ("COUNT", ("Uint64", 3), ("Uint64", 3), ("Uint64", 3)),
    ],
)
async def test_numbers_of_a_device_are_aggregated(
    edgex: Edgex, measured: str, function: str, signed: Any, unsigned: Any, fraction: Any
) -> None:
    found = await aggregate(edgex, f"/reading/device/name/{measured}", function)
    for resource, (kind, value) in (("I", signed), ("U", unsigned), ("F", fraction)):
        assert found[resource][0] == kind
        assert found[resource][1] == pytest.approx(value, rel=1e-12)
    nothing = {"B": "Bool", "S": "String", "N": "Int8", "A": "Int8Array"}
    is_count = function == "COUNT"
    assert {name: found[name] for name in nothing} == {
        name: ("Uint64", 0) if is_count else (kind, "") for name, kind in nothing.items()
    }


async def test_aggregates_are_chosen_by_resource_and_time(edgex: Edgex, device: str) -> None:
    base = time.time_ns()
    for step in range(4):
        await post(edgex, event(device, ("I", "Int8", str(step)), ("J", "Int8", "100"), origin=base + step))
    one = f"/reading/device/name/{device}/resourceName/I"
    assert await aggregate(edgex, one, "SUM") == {"I": ("Int64", 6)}
    assert await aggregate(edgex, f"{one}/start/{base + 1}/end/{base + 2}", "SUM") == {"I": ("Int64", 3)}
    found = await aggregate(edgex, f"/reading/device/name/{device}/start/{base + 3}/end/{base + 9}", "SUM")
    assert found == {"I": ("Int64", 3), "J": ("Int64", 100)}
    assert await aggregate(edgex, f"/reading/device/name/{device}", "SUM", limit="1") in (
        {"I": ("Int64", 6)}, {"J": ("Int64", 400)},
    )  # fmt: skip


async def test_aggregate_of_nothing_is_an_empty_list(edgex: Edgex, device: str) -> None:
    assert await aggregate(edgex, f"/reading/device/name/{device}", "COUNT") == {}


async def test_unknown_aggregate_function_is_refused(edgex: Edgex) -> None:
    answer = await edgex.ask("core-data", "GET", "/reading/all", query={"aggregateFunc": "MEDIAN"})
    assert (answer.status, answer.message) == (400, "invalid aggregate function specified")


async def test_offset_of_minus_one_lists_from_the_start_without_a_count(edgex: Edgex, measured: str) -> None:
    query = {"offset": "-1", "limit": "2"}
    for path, key in ((f"/event/device/name/{measured}", "events"), (f"/reading/device/name/{measured}", "readings")):
        answer = await edgex.ask("core-data", "GET", path, query=query)
        assert (answer.status, answer.body["totalCount"], len(answer.body[key])) == (200, 0, 2)
    refused = await edgex.ask("core-data", "GET", f"/event/device/name/{measured}", query={"offset": "-2"})
    assert refused.status == 400


async def test_event_in_cbor_is_kept_and_told(edgex: Edgex, device: str) -> None:
    body = event(device, ("Picture", "Binary", {"binaryValue": PICTURE, "mediaType": "image/png"}))
    async with edgex.watch(f"events/core/device-any/any/{device}/#") as seen:
        answer = await edgex.http.post(
            f"{edgex.urls['core-data']}/api/v3/event/device-any/any/{device}/any",
            content=cbor.dumps({"apiVersion": "v3", "event": body}), headers={"Content-Type": "application/cbor"},
        )  # fmt: skip
        assert answer.status_code == 201, answer.text
        told: EventMessage = await seen.first()
    assert told.event.readings[0].decoded() == PICTURE
    kept = (await edgex.ask("core-data", "GET", f"/event/id/{body['id']}")).body["event"]["readings"][0]
    assert (kept["binaryValue"], kept["mediaType"]) == ("iVBORwD/", "image/png")


@pytest.mark.parametrize("content", [b"\xff\x00", cbor.dumps([1]), b"", cbor.dumps({"apiVersion": "v3"})])
async def test_cbor_that_holds_no_event_is_refused(edgex: Edgex, device: str, content: bytes) -> None:
    answer = await edgex.http.post(
        f"{edgex.urls['core-data']}/api/v3/event/device-any/any/{device}/any",
        content=content, headers={"Content-Type": "application/cbor"},
    )  # fmt: skip
    assert (answer.status_code, answer.json()["statusCode"]) == (400, 400)
    assert not await edgex.data.event_count(device)


async def test_events_older_than_an_age_are_removed_in_the_background(edgex: Edgex, device: str) -> None:
    fifty_years_ns = 50 * 365 * 86_400 * 10**9  # nobody else's events are of that age
    await post(edgex, event(device, ("I", "Int8", "1"), origin=1_000))
    young = event(device, ("I", "Int8", "2"))
    await post(edgex, young)
    answer = await edgex.ask("core-data", "DELETE", f"/event/age/{fifty_years_ns}")
    assert (answer.status, answer.body["statusCode"]) == (202, 202)

    async def only_the_young_one() -> bool:
        return await edgex.data.event_count(device) == 1

    await until(only_the_young_one, "the old event is gone")
    assert (await edgex.ask("core-data", "GET", f"/event/id/{young['id']}")).status == 200


async def test_age_that_is_no_number_is_refused(edgex: Edgex) -> None:
    assert (await edgex.ask("core-data", "DELETE", "/event/age/old")).status == 400


async def test_numbers_are_kept_as_numbers(edgex: Edgex, device: str) -> None:
    texts = ("F", "Float32", "-4.0"), ("G", "Float64", "21.5"), ("I", "Int8", "+7"), ("A", "Int8Array", "[1, 2]")
    body = event(device, *texts)
    await post(edgex, body)

    def values(event: dict[str, Any]) -> dict[str, Any]:
        return {row["resourceName"]: row["value"] for row in event["readings"]}

    (listed,) = (await edgex.ask("core-data", "GET", f"/event/device/name/{device}")).body["events"]
    assert values(listed) == {"F": "-4e+00", "G": "2.15e+01", "I": "7", "A": "[1, 2]"}
    single = (await edgex.ask("core-data", "GET", f"/event/id/{body['id']}")).body["event"]
    assert values(single) == {"F": -4, "G": 21.5, "I": 7, "A": "[1, 2]"}
