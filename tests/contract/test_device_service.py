"""Our device service beside this EdgeX: its entries, its doors, its auto events."""

from collections.abc import Callable
from typing import Any

import pytest

from edgeagents.model.envelope import EventMessage
from tests.contract.edgex import Edgex
from tests.contract.lab import WRITABLE_TYPES, Lab, lab_profile
from tests.contract.waiting import Seen, until

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_it_is_registered_and_found_up(edgex: Edgex, lab: Lab) -> None:
    async def is_up() -> bool:
        return (await edgex.keeper.registration(lab.key)).status == "UP"

    await until(is_up, f"keeper finds {lab.key} up")
    assert (await edgex.keeper.registration(lab.key)).base_url == lab.running.service.base_url


async def test_its_entries_are_in_core_metadata(edgex: Edgex, lab: Lab) -> None:
    service = await edgex.metadata.service(lab.key)
    assert (service.base_address, service.admin_state) == (lab.running.service.base_url, "UNLOCKED")
    assert service.labels == ("contract",)
    profile = await edgex.metadata.profile(lab.profile)
    assert {item.name for item in profile.device_resources} >= set(WRITABLE_TYPES)
    device = await edgex.metadata.device(lab.device)
    assert (device.service_name, device.profile_name) == (lab.key, lab.profile)


async def test_it_answers_http_as_core_command_asks(edgex: Edgex, lab: Lab) -> None:
    url = f"{lab.running.service.base_url}/api/v3/device/name/{lab.device}"
    put = await edgex.http.put(f"{url}/Level", json={"Level": "42"})
    assert (put.status_code, put.json()) == (200, {"apiVersion": "v3", "statusCode": 200})
    got = await edgex.http.get(f"{url}/Level")
    assert got.json()["event"]["readings"][0]["value"] == "42"
    assert (await edgex.http.get(f"{url}/Nope")).status_code == 404


async def test_locked_service_refuses_all_its_devices(edgex: Edgex, lab: Lab) -> None:
    async def status() -> int:
        answer = await edgex.ask("core-command", "GET", f"/device/name/{lab.device}/Level")
        return answer.status

    async def is_locked() -> bool:
        return await status() == 423

    async def is_unlocked() -> bool:
        return await status() == 200

    await edgex.metadata.update_service(lab.key, {"adminState": "LOCKED"})
    try:
        await until(is_locked, "the service knows that it is locked")
    finally:
        await edgex.metadata.update_service(lab.key, {"adminState": "UNLOCKED"})
    await until(is_unlocked, "the service knows that it is unlocked")


async def test_changed_profile_counts_at_once(edgex: Edgex, lab: Lab) -> None:
    name = edgex.name("profile")

    async def send(method: str, limit: int) -> None:
        resources = lab_profile(name)["deviceResources"]
        next(item for item in resources if item["name"] == "Level")["properties"]["maximum"] = limit
        body = [{"apiVersion": "v3", "profile": lab_profile(name, deviceResources=resources)}]
        await edgex.ask("core-metadata", method, "/deviceprofile", body)

    async def is_taken() -> bool:
        answer = await edgex.ask("core-command", "PUT", f"/device/name/{device}/Level", {"Level": 150})
        return answer.status == 200

    await send("POST", 100)
    async with lab.another(profileName=name) as device:
        assert not await is_taken()
        await send("PUT", 200)
        await until(is_taken, "the new limit counts")


async def test_set_is_told_as_an_event(edgex: Edgex, lab: Lab) -> None:
    async with lab.another() as device, edgex.watch(f"events/device/{lab.key}/+/{device}/State") as seen:
        await edgex.command.set(device, "State", {"Power": True, "Level": 9})
        message: EventMessage = await seen.first()
    assert {item.resource_name: item.decoded() for item in message.event.readings} == {"Power": True, "Level": 9}


# --- auto events ---------------------------------------------------------------------------------


def every(source: str, **changes: Any) -> dict[str, Any]:
    return {"interval": "50ms", "onChange": False, "sourceName": source} | changes


def of(device: str, source: str) -> Callable[[EventMessage], bool]:
    return lambda item: (item.event.device_name, item.event.source_name) == (device, source)


async def more(seen: Seen, wanted: Callable[[EventMessage], bool], count: int) -> None:
    """Wait until `count` more such events have come."""
    await seen.some(seen.count(wanted) + count, wanted)


async def test_auto_event_comes_every_interval(edgex: Edgex, lab: Lab) -> None:
    async with edgex.watch(f"events/device/{lab.key}/#") as seen, lab.another(autoEvents=[every("Level")]) as device:
        some = await seen.some(5, lambda item: item.event.device_name == device)
    assert {item.event.source_name for item in some} == {"Level"}
    origins = [item.event.origin for item in some]
    assert origins == sorted(origins)
    assert (origins[-1] - origins[0]) / 4 >= 40_000_000  # on average no faster than asked for


async def test_on_change_is_told_only_when_the_value_changed(edgex: Edgex, lab: Lab) -> None:
    plan = [every("Level", onChange=True), every("Temperature")]
    async with edgex.watch(f"events/device/{lab.key}/#") as seen, lab.another(autoEvents=plan) as device:
        await seen.some(5, of(device, "Temperature"))  # so often Level was read too
        assert seen.count(of(device, "Level")) == 1
        lab.driver.values[device, "Level"] = 41
        _, second = await seen.some(2, of(device, "Level"))
    assert second.event.readings[0].decoded() == 41


async def test_change_within_the_threshold_is_not_told(edgex: Edgex, lab: Lab) -> None:
    plan = [every("Level", onChange=True, onChangeThreshold=2.5), every("Temperature")]
    async with edgex.watch(f"events/device/{lab.key}/#") as seen, lab.another(autoEvents=plan) as device:
        await seen.first(of(device, "Level"))
        lab.driver.values[device, "Level"] = 42
        await more(seen, of(device, "Temperature"), 3)
        lab.driver.values[device, "Level"] = 43
        _, second = await seen.some(2, of(device, "Level"))
    assert second.event.readings[0].decoded() == 43


async def test_auto_events_follow_a_changed_device(edgex: Edgex, lab: Lab) -> None:
    async with edgex.watch(f"events/device/{lab.key}/#") as seen, lab.another() as device:
        await edgex.metadata.update_device(device, {"autoEvents": [every("Power")]})
        await seen.some(2, lambda item: item.event.device_name == device)
        await edgex.metadata.update_device(device, {"autoEvents": [every("Level")]})
        await seen.some(2, of(device, "Level"))


async def test_auto_events_are_kept_by_core_data(edgex: Edgex, lab: Lab) -> None:
    async with lab.another(autoEvents=[every("State")]) as device:

        async def has_some() -> bool:
            return await edgex.data.event_count(device) >= 3

        await until(has_some, "core-data keeps them")
        newest = (await edgex.data.events(device=device, limit=1))[0]
    assert {item.resource_name: item.value for item in newest.readings} == {"Power": "ON", "Level": "40"}


async def test_locked_device_tells_nothing_by_itself(edgex: Edgex, lab: Lab) -> None:
    async with (
        edgex.watch(f"events/device/{lab.key}/#") as seen,
        lab.another(autoEvents=[every("Level")]) as device,
        lab.another(autoEvents=[every("Level")]) as other,
    ):
        await seen.first(of(device, "Level"))
        await edgex.metadata.update_device(device, {"adminState": "LOCKED"})
        known = lab.running.service.devices
        await until(lambda: known.devices_by_name[device].admin_state == "LOCKED", "the service knows")
        await more(seen, of(other, "Level"), 1)  # what was read before may be on its way
        before = seen.count(of(device, "Level"))
        await more(seen, of(other, "Level"), 4)
        assert seen.count(of(device, "Level")) == before
