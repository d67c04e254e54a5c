"""core-data: events of the bus are kept and found, events that are posted are told."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from edgeagents.model.device import Event
from edgeagents.model.envelope import EventMessage
from tests.contract.edgex import Edgex, Reply
from tests.contract.lab import Lab
from tests.contract.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")
SERVICE, PROFILE = "device-posted", "posted-profile"


def an_event(device: str, *numbers: float, origin: int = 0, **changes: Any) -> dict[str, Any]:
    """Return an event with one Float64 reading a number."""
    origin = origin or time.time_ns()
    readings = [
        {"id": str(uuid.uuid4()), "origin": origin, "deviceName": device, "resourceName": "Temperature",
         "profileName": PROFILE, "valueType": "Float64", "units": "C", "value": str(number)}
        for number in numbers or (21.5,)
    ]  # fmt: skip
    return {
        "apiVersion": "v3", "id": str(uuid.uuid4()), "deviceName": device, "profileName": PROFILE,
        "sourceName": "Temperature", "origin": origin, "readings": readings,
    } | changes  # fmt: skip


async def post(edgex: Edgex, event: dict[str, Any], device: str = "", **headers: str) -> Reply:
    path = f"/event/{SERVICE}/{PROFILE}/{device or event['deviceName']}/Temperature"
    return await edgex.ask("core-data", "POST", path, {"apiVersion": "v3", "event": event}, headers=headers)


async def get(edgex: Edgex, path: str, **query: str) -> Any:
    answer = await edgex.ask("core-data", "GET", path, query=query or None)
    assert answer.status == 200, answer
    return answer.body


@pytest.fixture
def device(edgex: Edgex) -> str:
    """The name of a device that nobody reported of; core-data does not ask whether there is one."""
    return edgex.name("sensor")


@pytest_asyncio.fixture(loop_scope="session")
async def reported(edgex: Edgex, device: str) -> AsyncIterator[list[dict[str, Any]]]:
    """Three events of a device that core-data holds, the oldest first, a second apart."""
    now = time.time_ns()
    events = [an_event(device, number, origin=now + number * 1_000_000_000) for number in range(3)]
    for event in events:
        assert (await post(edgex, event)).status == 201
    yield events


# --- kept from the bus ---------------------------------------------------------------------------


async def test_event_of_our_device_service_is_found_by_its_id(edgex: Edgex, lab: Lab) -> None:
    event = await edgex.command.get(lab.device, "State", push_event=True)
    kept = await until(lambda: found(edgex, event.id), "core-data keeps it")
    assert kept["apiVersion"] == "v3"
    same = Event.model_validate(kept)
    assert (same.device_name, same.profile_name, same.source_name) == (lab.device, lab.profile, "State")
    assert abs(same.origin - event.origin) < 1000  # JSON of the bus goes through a 64-bit float in Go
    # By id the real one gives JSON numbers, asked or not; decoded they are the same.
    assert [(item.resource_name, item.value_type, item.decoded()) for item in same.readings] == [
        (item.resource_name, item.value_type, item.decoded()) for item in event.readings
    ]


async def found(edgex: Edgex, event_id: str) -> Any:
    answer = await edgex.ask("core-data", "GET", f"/event/id/{event_id}")
    return answer.body["event"] if answer.status == 200 else None


async def test_event_published_by_anybody_as_a_device_service_is_kept(edgex: Edgex, device: str) -> None:
    event = an_event(device)
    request = {"apiVersion": "v3", "requestId": str(uuid.uuid4()), "event": event}
    await edgex.bus.publish(f"events/device/{SERVICE}/{PROFILE}/{device}/Temperature", request)
    assert (await until(lambda: found(edgex, event["id"]), "core-data keeps it"))["deviceName"] == device


async def test_event_of_another_device_than_its_topic_names_is_not_kept(edgex: Edgex, device: str) -> None:
    wrong, right = an_event(device), an_event(device)
    topic = f"events/device/{SERVICE}/{PROFILE}"
    await edgex.bus.publish(f"{topic}/{device}-other/Temperature", {"apiVersion": "v3", "event": wrong})
    await edgex.bus.publish(f"{topic}/{device}/Temperature", {"apiVersion": "v3", "event": right})
    await until(lambda: found(edgex, right["id"]), "core-data keeps the right one")
    assert await found(edgex, wrong["id"]) is None


async def test_many_events_at_once_are_all_kept(edgex: Edgex, device: str) -> None:
    topic = f"events/device/{SERVICE}/{PROFILE}/{device}/Temperature"
    for number in range(100):
        await edgex.bus.publish(topic, {"apiVersion": "v3", "event": an_event(device, number)})
    await until(lambda: counted(edgex, device, 100), "core-data keeps 100 events")


async def counted(edgex: Edgex, device: str, count: int) -> bool:
    return await edgex.data.event_count(device) == count


# --- posted --------------------------------------------------------------------------------------


async def test_posted_event_is_kept_and_told_on_the_bus(edgex: Edgex, device: str) -> None:
    event, mine = an_event(device), str(uuid.uuid4())
    async with edgex.watch(f"events/core/{SERVICE}/{PROFILE}/{device}/Temperature") as seen:
        answer = await post(edgex, event, **{"X-Correlation-ID": mine})
        message: EventMessage = await seen.first()
    assert (answer.status, answer.body) == (201, {"apiVersion": "v3", "statusCode": 201, "id": event["id"]})
    assert message.event == Event.model_validate(event)
    assert message.envelope.correlation_id == mine
    assert await found(edgex, event["id"])


async def test_posted_event_is_not_taken_for_one_of_a_device_service(edgex: Edgex, device: str) -> None:
    event = an_event(device)
    async with edgex.watch(f"events/core/{SERVICE}/#") as seen:
        await post(edgex, event)
        await seen.first(lambda item: item.event.id == event["id"])
    assert await edgex.data.event_count(device) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"readings": []}, "AddEventRequest.Event.Readings field should greater than 0"),
        ({"id": "nope"}, "AddEventRequest.Event.Id field needs a uuid"),
        ({"origin": 0}, "AddEventRequest.Event.Origin field is required"),
        ({"deviceName": ""}, "AddEventRequest.Event.DeviceName field is required"),
    ],
)
async def test_event_out_of_its_contract_is_refused(
    edgex: Edgex, device: str, changes: dict[str, Any], message: str
) -> None:
    answer = await post(edgex, an_event(device, origin=1) | changes, device)
    assert answer.status == 400
    assert message in answer.message
    assert await edgex.data.event_count(device) == 0


async def test_event_of_another_device_than_its_path_names_is_refused(edgex: Edgex, device: str) -> None:
    answer = await post(edgex, an_event(device), f"{device}-other")
    assert (answer.status, answer.message) == (400, f"event's deviceName {device} mismatches {device}-other")


async def test_event_with_a_value_that_is_none_of_its_type_is_refused(edgex: Edgex, device: str) -> None:
    event = an_event(device)
    event["readings"][0]["value"] = "warm"
    answer = await post(edgex, event)
    assert answer.status == 400
    assert "Float64" in answer.message


# --- found ---------------------------------------------------------------------------------------


async def test_events_of_a_device_are_listed_newest_first_in_pages(
    edgex: Edgex, device: str, reported: list[dict[str, Any]]
) -> None:
    page = await get(edgex, f"/event/device/name/{device}", limit="2")
    assert page["totalCount"] == 3
    assert [event["id"] for event in page["events"]] == [reported[2]["id"], reported[1]["id"]]
    rest = await get(edgex, f"/event/device/name/{device}", offset="2", limit="2")
    assert [event["id"] for event in rest["events"]] == [reported[0]["id"]]
    assert [event.id for event in await edgex.data.events(device=device)] == [
        event["id"] for event in reversed(reported)
    ]


async def test_events_are_found_by_time(edgex: Edgex, reported: list[dict[str, Any]]) -> None:
    start, end = reported[1]["origin"], reported[2]["origin"]
    ids = {event.id for event in await edgex.data.events(start_ns=start, end_ns=end, limit=-1)}
    assert {reported[1]["id"], reported[2]["id"]} <= ids
    assert reported[0]["id"] not in ids


async def test_readings_are_found_by_device_resource_and_time(
    edgex: Edgex, device: str, reported: list[dict[str, Any]]
) -> None:
    for resource in ("", "Temperature"):
        readings = await edgex.data.readings(device=device, resource=resource)
        assert [reading.decoded() for reading in readings] == [2.0, 1.0, 0.0]
        assert {reading.units for reading in readings} == {"C"}
    late = await edgex.data.readings(device=device, start_ns=reported[1]["origin"], end_ns=reported[2]["origin"])
    assert [reading.decoded() for reading in late] == [2.0, 1.0]
    assert await edgex.data.readings(device=device, resource="Nope") == []


async def test_readings_come_as_numbers_when_asked_for(
    edgex: Edgex, device: str, reported: list[dict[str, Any]]
) -> None:
    body = await get(edgex, f"/reading/device/name/{device}", numeric="true", limit="1")
    assert body["readings"][0]["value"] == 2
    body = await get(edgex, f"/event/device/name/{device}", numeric="true", limit="1")
    assert body["events"][0]["readings"][0]["value"] == 2
    body = await get(edgex, f"/reading/device/name/{device}", limit="1")
    assert float(body["readings"][0]["value"]) == 2.0
    assert isinstance(body["readings"][0]["value"], str)


async def test_events_and_readings_are_counted(edgex: Edgex, device: str) -> None:
    await post(edgex, an_event(device, 1, 2, 3))
    assert (await get(edgex, f"/event/count/device/name/{device}"))["count"] == 1
    assert (await get(edgex, f"/reading/count/device/name/{device}"))["count"] == 3
    assert (await get(edgex, "/event/count"))["count"] >= 1
    assert (await get(edgex, "/reading/count"))["count"] >= 3


async def test_unknown_event_is_404_and_an_id_that_is_none_400(edgex: Edgex) -> None:
    nobody = str(uuid.uuid4())
    answer = await edgex.ask("core-data", "GET", f"/event/id/{nobody}")
    assert (answer.status, answer.message) == (404, f"no event with id '{nobody}' found")
    answer = await edgex.ask("core-data", "GET", "/event/id/nope")
    assert (answer.status, answer.message) == (400, "fail to parse id as an UUID")


async def test_device_without_events_has_an_empty_list(edgex: Edgex, device: str) -> None:
    assert await edgex.data.events(device=device) == []
    assert await edgex.data.readings(device=device) == []
    assert await edgex.data.event_count(device) == 0


@pytest.mark.parametrize("query", [{"limit": "-2"}, {"limit": "1025"}, {"limit": "many"}])
async def test_bounds_of_a_list_that_cannot_be_are_refused(edgex: Edgex, query: dict[str, str]) -> None:
    for path in ("/event/all", "/reading/all"):
        assert (await edgex.ask("core-data", "GET", path, query=query)).status == 400


async def test_time_that_ends_before_it_starts_is_refused(edgex: Edgex) -> None:
    assert (await edgex.ask("core-data", "GET", "/event/start/20/end/10")).status == 400


# --- removed -------------------------------------------------------------------------------------


async def test_deleted_event_is_gone_with_its_readings(
    edgex: Edgex, device: str, reported: list[dict[str, Any]]
) -> None:
    answer = await edgex.ask("core-data", "DELETE", f"/event/id/{reported[0]['id']}")
    assert (answer.status, answer.body["statusCode"]) == (200, 200)
    assert await found(edgex, reported[0]["id"]) is None
    assert await edgex.data.event_count(device) == 2
    assert len(await edgex.data.readings(device=device)) == 2


async def test_events_of_a_device_are_removed_in_the_background(
    edgex: Edgex, device: str, reported: list[dict[str, Any]]
) -> None:
    answer = await edgex.ask("core-data", "DELETE", f"/event/device/name/{device}")
    assert (answer.status, answer.body["statusCode"]) == (202, 202)
    await until(lambda: counted(edgex, device, 0), "they are gone")
    assert await edgex.data.readings(device=device) == []


async def test_unknown_event_cannot_be_deleted(edgex: Edgex) -> None:
    assert (await edgex.ask("core-data", "DELETE", f"/event/id/{uuid.uuid4()}")).status == 404


async def test_event_that_comes_twice_is_kept_twice(edgex: Edgex, device: str) -> None:
    event = an_event(device)
    first, second = await asyncio.gather(post(edgex, event), post(edgex, event))
    assert (first.status, second.status) == (201, 201)
    assert await edgex.data.event_count(device) == 2
