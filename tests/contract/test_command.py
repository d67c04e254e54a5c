"""core-command over HTTP: what can be commanded, reading and setting, and every way to be refused."""

import uuid
from typing import Any

import pytest

from edgeagents.errors import (
    DeviceSilentError,
    InvalidInputError,
    LockedError,
    NotAllowedError,
    NotFoundError,
)
from edgeagents.model.device import Device, DeviceService, Event
from edgeagents.model.envelope import EventMessage
from tests.contract.edgex import Edgex, Reply
from tests.contract.lab import DRIVER_TIMEOUT_S, Lab
from tests.contract.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def read(edgex: Edgex, device: str, command: str, **query: str) -> Reply:
    return await edgex.ask("core-command", "GET", f"/device/name/{device}/{command}", query=query or None)


async def write(edgex: Edgex, device: str, command: str, settings: Any) -> Reply:
    return await edgex.ask("core-command", "PUT", f"/device/name/{device}/{command}", settings)


async def values(edgex: Edgex, device: str, command: str) -> dict[str, Any]:
    """Return what a read shows, as text, by resource."""
    event = (await read(edgex, device, command)).body["event"]
    return {reading["resourceName"]: reading["value"] for reading in event["readings"]}


def refused(answer: Reply, status: int, reason: str) -> None:
    """Check an error that core-command passes on: the device service's own status and words within its own."""
    assert answer.status == status, answer
    assert answer.body == {"apiVersion": "v3", "message": answer.message, "statusCode": status}
    assert answer.message.startswith(f"request failed, status code: {status}, err: ")
    assert reason in answer.message.replace('\\"', '"')


# --- what can be commanded -----------------------------------------------------------------------


async def test_commands_of_a_device_are_its_commands_and_resources_without_hidden_ones(edgex: Edgex, lab: Lab) -> None:
    answer = await edgex.ask("core-command", "GET", f"/device/name/{lab.device}")
    assert answer.status == 200
    found = answer.body["deviceCoreCommand"]
    assert (found["deviceName"], found["profileName"]) == (lab.device, lab.profile)
    commands = {command["name"]: command for command in found["coreCommands"]}
    assert {"State", "Level", "Temperature", "Reset", "Picture"} <= commands.keys()
    assert not {"Hidden", "Secret"} & commands.keys()
    assert commands["State"]["path"] == f"/api/v3/device/name/{lab.device}/State"
    assert commands["State"]["url"].startswith("http://")
    assert commands["State"]["parameters"] == [
        {"resourceName": "Power", "valueType": "Bool"}, {"resourceName": "Level", "valueType": "Uint8"},
    ]  # fmt: skip
    assert [commands[name].get("get", False) for name in ("State", "Temperature", "Reset")] == [True, True, False]
    assert [commands[name].get("set", False) for name in ("State", "Temperature", "Reset")] == [True, False, True]


async def test_commands_of_all_devices_are_listed_in_pages(edgex: Edgex, lab: Lab) -> None:
    answer = await edgex.ask("core-command", "GET", "/device/all", query={"limit": "-1"})
    assert answer.status == 200
    assert lab.device in {found["deviceName"] for found in answer.body["deviceCoreCommands"]}
    page = await edgex.ask("core-command", "GET", "/device/all", query={"limit": "1"})
    assert len(page.body["deviceCoreCommands"]) == 1
    assert page.body["totalCount"] == answer.body["totalCount"]


async def test_commands_of_an_unknown_device_are_404(edgex: Edgex) -> None:
    refused(await edgex.ask("core-command", "GET", "/device/name/nobody"), 404, "no device with name 'nobody' found")


# --- reading -------------------------------------------------------------------------------------


async def test_read_resource_answers_an_event_of_that_source(edgex: Edgex, lab: Lab) -> None:
    async with lab.another() as device:
        answer = await read(edgex, device, "Temperature")
        assert answer.status == 200
        assert answer.body.keys() == {"apiVersion", "statusCode", "event"}
        body = answer.body["event"]
        event = Event.model_validate(body)
        assert uuid.UUID(event.id)
        assert (event.device_name, event.profile_name, event.source_name) == (device, lab.profile, "Temperature")
        reading = body["readings"][0]
        assert reading.pop("id")
        assert reading == {
            "origin": event.origin, "deviceName": device, "resourceName": "Temperature", "profileName": lab.profile,
            "valueType": "Float32", "units": "C", "value": "2.15e+01",
        }  # fmt: skip


async def test_read_command_answers_all_its_resources_mapped(edgex: Edgex, lab: Lab) -> None:
    async with lab.another() as device:
        assert await values(edgex, device, "State") == {"Power": "ON", "Level": "40"}
        assert await values(edgex, device, "Power") == {"Power": "true"}


async def test_hidden_command_and_hidden_resource_can_be_used_all_the_same(edgex: Edgex, lab: Lab) -> None:
    async with lab.another() as device:
        assert await values(edgex, device, "Hidden") == {"Power": "ON", "Level": "40"}
        assert (await write(edgex, device, "Secret", {"Secret": "x"})).status == 200
        assert lab.driver.values[device, "Secret"] == "x"


async def test_pattern_reads_all_resources_it_names(edgex: Edgex, lab: Lab) -> None:
    async with lab.another() as device:
        answer = await read(edgex, device, "(Level|Temper.*)")
        assert answer.body["event"]["sourceName"] == "(Level|Temper.*)"
        assert {reading["resourceName"] for reading in answer.body["event"]["readings"]} == {"Level", "Temperature"}
        refused(await read(edgex, device, "Temper.*", **{"ds-regexcmd": "false"}), 404, "Temper.* not found")


async def test_read_with_pushevent_also_goes_to_the_bus(edgex: Edgex, lab: Lab) -> None:
    topic = f"events/device/{lab.key}/{lab.profile}/{lab.device}/Temperature"
    async with edgex.watch(topic) as seen:
        answer = await read(edgex, lab.device, "Temperature", **{"ds-pushevent": "true"})
        message: EventMessage = await seen.first()
    assert message.event == Event.model_validate(answer.body["event"])
    assert message.envelope.payload["apiVersion"] == "v3"


async def test_read_without_pushevent_stays_off_the_bus(edgex: Edgex, lab: Lab) -> None:
    async with edgex.watch(f"events/device/{lab.key}/+/{lab.device}/#") as seen:
        await read(edgex, lab.device, "Level")
        await read(edgex, lab.device, "Temperature", **{"ds-pushevent": "true"})
        await seen.first(lambda item: item.event.source_name == "Temperature")
    assert "Level" not in {item.event.source_name for item in seen.messages}


async def test_read_without_returnevent_answers_nothing(edgex: Edgex, lab: Lab) -> None:
    answer = await read(edgex, lab.device, "Level", **{"ds-returnevent": "false"})
    assert (answer.status, answer.body) == (200, None)


@pytest.mark.parametrize("flag", ["ds-pushevent", "ds-returnevent"])
async def test_flag_that_is_neither_true_nor_false_is_refused(edgex: Edgex, lab: Lab, flag: str) -> None:
    answer = await read(edgex, lab.device, "Level", **{flag: "maybe"})
    assert (answer.status, answer.message) == (400, "invalid query parameter, maybe has to be true or false")


# --- setting -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings", [{"Power": "false", "Level": "70"}, {"Power": False, "Level": 70}, {"Power": "OFF", "Level": 70.0}]
)
async def test_set_takes_text_natural_json_and_mapped_words(edgex: Edgex, lab: Lab, settings: dict[str, Any]) -> None:
    async with lab.another() as device:
        answer = await write(edgex, device, "State", settings)
        assert (answer.status, answer.body) == (200, {"apiVersion": "v3", "statusCode": 200})
        assert await values(edgex, device, "State") == {"Power": "OFF", "Level": "70"}


async def test_set_reaches_the_device_service_with_a_correlation_id(edgex: Edgex, lab: Lab) -> None:
    async with lab.another() as device:
        await edgex.command.set(device, "State", {"Power": True, "Level": 7})
        ((_, settings, correlation_id),) = [item for item in lab.driver.written if item[0] == device]
    assert settings == {"Power": True, "Level": 7}
    assert uuid.UUID(correlation_id)  # the caller's own only over the bus: see docs/testing-against-edgex.md


@pytest.mark.parametrize("settings", [{"Nope": "true"}, {}])
async def test_set_of_no_known_parameter_sets_the_defaults(edgex: Edgex, lab: Lab, settings: dict[str, str]) -> None:
    async with lab.another() as device:
        assert (await write(edgex, device, "State", settings)).status == 200
        assert await values(edgex, device, "State") == {"Power": "OFF", "Level": "5"}


@pytest.mark.parametrize("settings", [{"Nope": "true"}, {}, {"Power": True}, {"Power": True, "Level": 1, "Nope": 1}])
async def test_our_client_refuses_parameters_that_are_not_the_commands(
    edgex: Edgex, lab: Lab, settings: dict[str, Any]
) -> None:
    async with lab.another() as device:
        for send in (edgex.command.set, edgex.command.set_by_bus):
            with pytest.raises(InvalidInputError, match="it sets Power, Level"):
                await send(device, "State", settings)
        assert device not in {item[0] for item in lab.driver.written}


@pytest.mark.parametrize(
    ("command", "settings", "reason"),
    [
        ("Power", {"Power": "maybe"}, 'strconv.ParseBool: parsing "maybe": invalid syntax'),
        ("Int8", {"Int8": "300"}, 'strconv.ParseInt: parsing "300": value out of range'),
        ("Uint16", {"Uint16": "-1"}, 'strconv.ParseUint: parsing "-1": invalid syntax'),
        ("Level", {"Level": "101"}, "out of maximum value 100"),
        ("Level", {"Level": "1.5"}, "Level"),
    ],
)
async def test_value_that_is_none_of_its_type_or_out_of_range_is_refused(
    edgex: Edgex, lab: Lab, command: str, settings: dict[str, str], reason: str
) -> None:
    async with lab.another() as device:
        before = await values(edgex, device, "State")
        answer = await write(edgex, device, command, settings)
        refused(answer, 400, reason if reason != "Level" else "failed to convert set parameter 1.5")
        assert await values(edgex, device, "State") == before


@pytest.mark.parametrize("content", ["{bad", "[1]", '"text"'])
async def test_settings_that_are_no_object_are_refused(edgex: Edgex, lab: Lab, content: str) -> None:
    path = f"/device/name/{lab.device}/State"
    answer = await edgex.ask("core-command", "PUT", path, content=content)
    assert (answer.status, answer.message) == (400, "failed to parse request body")


# --- refused by what the device is ---------------------------------------------------------------


async def test_write_only_resource_is_not_read(edgex: Edgex, lab: Lab) -> None:
    refused(await read(edgex, lab.device, "Reset"), 405, "no readable resources matched with Reset")


async def test_read_only_resource_is_not_set(edgex: Edgex, lab: Lab) -> None:
    answer = await write(edgex, lab.device, "Temperature", {"Temperature": "20"})
    refused(answer, 405, "DeviceResource Temperature is marked as read-only")


async def test_unknown_device_and_unknown_command_are_404(edgex: Edgex, lab: Lab) -> None:
    refused(await read(edgex, "nobody", "Level"), 404, "no device with name 'nobody' found")
    refused(await write(edgex, "nobody", "Level", {"Level": 1}), 404, "no device with name 'nobody' found")
    refused(await read(edgex, lab.device, "Nope"), 404, "Regex DeviceResource Nope not found")
    refused(await write(edgex, lab.device, "Nope", {"Nope": 1}), 404, "DeviceResource Nope not found")


@pytest.mark.parametrize(
    ("state", "reason"),
    [({"adminState": "LOCKED"}, "locked"), ({"operatingState": "DOWN"}, "OperatingState is DOWN")],
)
async def test_locked_and_down_devices_are_423_until_they_are_not(
    edgex: Edgex, lab: Lab, state: dict[str, str], reason: str
) -> None:
    async with lab.another() as device:
        await edgex.metadata.update_device(device, state)
        await until(lambda: has_status(edgex, device, 423), "the device service knows")
        refused(await read(edgex, device, "Level"), 423, f"device {device} {reason}")
        refused(await write(edgex, device, "Level", {"Level": 1}), 423, f"device {device} {reason}")
        await edgex.metadata.update_device(device, {"adminState": "UNLOCKED", "operatingState": "UP"})
        await until(lambda: has_status(edgex, device, 200), "the device can be read again")


async def has_status(edgex: Edgex, device: str, status: int) -> bool:
    return (await read(edgex, device, "Level")).status == status


async def test_device_that_hangs_is_503_with_its_services_words(edgex: Edgex, lab: Lab) -> None:
    async with lab.another(protocols={"lab": {"hangs": "true"}}) as device:
        refused(await read(edgex, device, "Level"), 503, f"no answer in {DRIVER_TIMEOUT_S:g} s")


async def test_device_service_that_does_not_answer_is_503(edgex: Edgex, silent_device: str) -> None:
    assert (await read(edgex, silent_device, "Level")).status == 503


async def test_device_service_that_is_not_there_is_503(edgex: Edgex, lab: Lab) -> None:
    service = edgex.name("device-gone")
    await edgex.metadata.add_service(DeviceService(name=service, base_address="http://127.0.0.1:9"))
    device = Device(name=edgex.name("lamp"), service_name=service, profile_name=lab.profile, protocols={"lab": {}})
    await edgex.metadata.add_device(device, validate=False)
    answer = await read(edgex, device.name, "Level")
    assert (answer.status, answer.body["statusCode"]) == (503, 503)


async def test_our_client_tells_refusals_apart(edgex: Edgex, lab: Lab) -> None:
    with pytest.raises(NotFoundError):
        await edgex.command.get("nobody", "Level")
    with pytest.raises(NotAllowedError):
        await edgex.command.get(lab.device, "Reset")
    with pytest.raises(InvalidInputError):
        await edgex.command.set(lab.device, "Level", {"Level": 101})
    async with lab.another(protocols={"lab": {"hangs": "true"}}) as device:
        with pytest.raises(DeviceSilentError):  # it may have been set: no definite answer
            await edgex.command.set(device, "Level", {"Level": 1})
        await edgex.metadata.update_device(device, {"adminState": "LOCKED"})
        await until(lambda: has_status(edgex, device, 423), "the device service knows")
        with pytest.raises(LockedError):
            await edgex.command.set(device, "Level", {"Level": 1})
