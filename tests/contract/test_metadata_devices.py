"""core-metadata's devices: shown to their service first, then added, changed, listed, refused, deleted."""

import asyncio
from typing import Any

import pytest

from edgeagents.errors import ConflictError, InvalidInputError, NotFoundError
from edgeagents.model.device import Device
from edgeagents.model.envelope import Answer, ValidateDevice
from tests.contract.edgex import Edgex, Reply
from tests.contract.lab import Lab

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def send(edgex: Edgex, method: str, *devices: dict[str, Any], **query: str) -> Reply:
    requests = [{"apiVersion": "v3", "device": device} for device in devices]
    return await edgex.ask("core-metadata", method, "/device", requests, query=query or None)


@pytest.fixture
def name(edgex: Edgex) -> str:
    """The name of a device that is not there."""
    return edgex.name("lamp")


# --- adding --------------------------------------------------------------------------------------


async def test_added_device_is_read_back(edgex: Edgex, lab: Lab, name: str) -> None:
    event = {"interval": "1h", "onChange": True, "onChangeThreshold": 0.5, "sourceName": "Level"}
    body = lab.body(name, description="by the door", location={"room": "hall"}, tags={"n": 1}, autoEvents=[event])
    added = (await send(edgex, "POST", body)).item
    assert added == {"apiVersion": "v3", "statusCode": 201, "id": added["id"]}
    found = (await edgex.ask("core-metadata", "GET", f"/device/name/{name}")).body["device"]
    assert found["id"] == added["id"]
    assert found["created"] == found["modified"] > 1_700_000_000_000
    assert found["autoEvents"][0].items() >= event.items()
    assert {key: found[key] for key in body if key != "autoEvents"} | {"autoEvents": [event]} == body


async def test_device_service_is_asked_over_the_bus_and_accepts(edgex: Edgex, lab: Lab, name: str) -> None:
    async with edgex.watch(f"{lab.key}/validate/device") as asked, edgex.watch(f"response/{lab.key}/#") as answered:
        assert (await send(edgex, "POST", lab.body(name))).item["statusCode"] == 201
        question: ValidateDevice = await asked.first(lambda item: item.device.name == name)
        answer: Answer = await answered.first(lambda item: item.request_id == question.envelope.request_id)
    assert question.service == lab.key
    assert answer.error is None


async def test_device_that_its_service_refuses_is_not_added(edgex: Edgex, lab: Lab, name: str) -> None:
    refused = (await send(edgex, "POST", lab.body(name, protocols={"lab": {"refused": "no such address"}}))).item
    assert refused["statusCode"] == 500
    assert "no such address" in refused["message"]
    assert (await edgex.ask("core-metadata", "GET", f"/device/name/{name}")).status == 404


async def test_device_whose_service_does_not_answer_is_not_added(edgex: Edgex, silent_service: str, name: str) -> None:
    device = Device(name=name, service_name=silent_service, protocols={"lab": {}})
    assert (await send(edgex, "POST", device.to_wire())).outcome == 503
    assert (await edgex.ask("core-metadata", "GET", f"/device/name/{name}")).status == 404


@pytest.mark.parametrize("way", ["bypassValidation", "force"])
async def test_device_service_is_not_asked_when_told_so(edgex: Edgex, silent_service: str, name: str, way: str) -> None:
    device = Device(name=name, service_name=silent_service, protocols={"lab": {}}).to_wire()
    assert (await send(edgex, "POST", device, **{way: "true"})).item["statusCode"] == 201
    assert (await edgex.metadata.device(name)).service_name == silent_service


async def test_device_of_a_known_name_is_refused(edgex: Edgex, lab: Lab, name: str) -> None:
    await send(edgex, "POST", lab.body(name))
    again = (await send(edgex, "POST", lab.body(name))).item
    assert (again["statusCode"], again["message"]) == (409, f"device name {name} already exists")


async def test_forced_device_of_a_known_name_replaces_it(edgex: Edgex, lab: Lab, name: str) -> None:
    first = (await send(edgex, "POST", lab.body(name))).item
    again = (await send(edgex, "POST", lab.body(name, description="changed"), force="true")).item
    assert again["statusCode"] in (200, 201)
    found = (await edgex.ask("core-metadata", "GET", f"/device/name/{name}")).body["device"]
    assert (found["id"], found["description"]) == (first["id"], "changed")


async def test_list_of_devices_is_answered_one_by_one(edgex: Edgex, lab: Lab, name: str) -> None:
    answer = await send(edgex, "POST", lab.body(name), lab.body(lab.device), lab.body(edgex.name("lamp")))
    assert answer.status == 207
    assert [item["statusCode"] for item in answer.body] == [201, 409, 201]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"profileName": "nope"}, "device profile 'nope' not found during validating device '{name}'"),
        ({"serviceName": "nope"}, "device service 'nope' does not exists"),
    ],
)
async def test_device_of_an_unknown_profile_or_service_is_refused(
    edgex: Edgex, lab: Lab, name: str, changes: dict[str, str], message: str
) -> None:
    refused = (await send(edgex, "POST", lab.body(name, **changes))).item
    assert (refused["statusCode"], refused["message"]) == (400, message.format(name=name))


@pytest.mark.parametrize("interval", ["10 minutes", "0.1ms", ""])
async def test_device_with_an_auto_event_of_no_interval_is_refused(
    edgex: Edgex, lab: Lab, name: str, interval: str
) -> None:
    answer = await send(edgex, "POST", lab.body(name, autoEvents=[{"interval": interval, "sourceName": "Level"}]))
    assert answer.status == 400
    assert "AddDeviceRequest.Device.AutoEvents[0].Interval field" in answer.message


async def test_device_with_an_auto_event_of_no_source_is_refused(edgex: Edgex, lab: Lab, name: str) -> None:
    refused = (await send(edgex, "POST", lab.body(name, autoEvents=[{"interval": "1h", "sourceName": "Nope"}]))).item
    assert refused["statusCode"] == 400
    assert "Nope" in refused["message"]


@pytest.mark.parametrize("missing", ["name", "serviceName", "protocols"])
async def test_device_without_a_required_field_is_refused(edgex: Edgex, lab: Lab, name: str, missing: str) -> None:
    body = lab.body(name)
    del body[missing]
    answer = await send(edgex, "POST", body)
    assert answer.status == 400
    assert f"AddDeviceRequest.Device.{missing[0].upper()}{missing[1:]} field is required" in answer.message


async def test_one_wrong_device_refuses_the_whole_list(edgex: Edgex, lab: Lab, name: str) -> None:
    answer = await send(edgex, "POST", lab.body(name), {"name": "nope"})
    assert answer.status == 400
    assert (await edgex.ask("core-metadata", "GET", f"/device/name/{name}")).status == 404


async def test_device_that_is_no_list_is_refused(edgex: Edgex, lab: Lab, name: str) -> None:
    answer = await edgex.ask("core-metadata", "POST", "/device", {"apiVersion": "v3", "device": lab.body(name)})
    assert answer.status in (400, 500)  # 500 in 4.0, 400 in later ones
    assert answer.message


# --- changing and deleting -----------------------------------------------------------------------


async def test_patched_device_keeps_what_was_not_named(edgex: Edgex, lab: Lab) -> None:
    async with lab.another() as name:
        patched = await send(edgex, "PATCH", {"name": name, "labels": ["hall", "lamp"], "adminState": "LOCKED"})
        assert patched.item == {"apiVersion": "v3", "statusCode": 200}
        found = await edgex.metadata.device(name)
        assert (found.labels, found.admin_state) == (("hall", "lamp"), "LOCKED")
        assert (found.profile_name, found.protocols) == (lab.profile, {"lab": {"Address": "1"}})


@pytest.mark.parametrize(
    ("changes", "status"),
    [({"profileName": "nope"}, 400), ({"serviceName": "nope"}, 400), ({"adminState": "ASLEEP"}, 400)],
)
async def test_patch_that_does_not_fit_is_refused(edgex: Edgex, lab: Lab, changes: dict[str, str], status: int) -> None:
    async with lab.another() as name:
        before = await edgex.metadata.device(name)
        assert (await send(edgex, "PATCH", {"name": name, **changes})).outcome == status
        assert await edgex.metadata.device(name) == before


async def test_change_that_the_service_refuses_is_not_made(edgex: Edgex, lab: Lab) -> None:
    async with lab.another() as name:
        refused = (await send(edgex, "PATCH", {"name": name, "protocols": {"lab": {"refused": "not there"}}})).item
        assert "not there" in refused["message"]
        assert (await edgex.metadata.device(name)).protocols == {"lab": {"Address": "1"}}


async def test_unknown_device_is_404(edgex: Edgex, name: str) -> None:
    answer = await edgex.ask("core-metadata", "GET", f"/device/name/{name}")
    assert (answer.status, answer.message) == (404, f"no device with name '{name}' found")
    assert (await edgex.ask("core-metadata", "GET", f"/device/check/name/{name}")).status == 404
    assert (await edgex.ask("core-metadata", "DELETE", f"/device/name/{name}")).status == 404
    assert (await send(edgex, "PATCH", {"name": name, "labels": []})).item["statusCode"] == 404


async def test_known_device_is_confirmed(edgex: Edgex, lab: Lab) -> None:
    answer = await edgex.ask("core-metadata", "GET", f"/device/check/name/{lab.device}")
    assert (answer.status, answer.body) == (200, {"apiVersion": "v3", "statusCode": 200})


async def test_deleted_device_is_gone_and_its_name_free_again(edgex: Edgex, lab: Lab, name: str) -> None:
    await send(edgex, "POST", lab.body(name))
    deleted = await edgex.ask("core-metadata", "DELETE", f"/device/name/{name}")
    assert (deleted.status, deleted.body["statusCode"]) == (200, 200)
    assert (await edgex.ask("core-metadata", "GET", f"/device/name/{name}")).status == 404
    assert (await send(edgex, "POST", lab.body(name))).item["statusCode"] == 201


async def test_parent_of_a_device_is_not_deleted(edgex: Edgex, lab: Lab) -> None:
    async with lab.another("parent") as parent, lab.another("child", parent=parent):
        answer = await edgex.ask("core-metadata", "DELETE", f"/device/name/{parent}")
        assert answer.status == 409
        assert (await edgex.metadata.device(parent)).name == parent


async def test_our_client_tells_refusals_apart(edgex: Edgex, lab: Lab, name: str) -> None:
    with pytest.raises(ConflictError):
        await edgex.metadata.add_device(Device.model_validate(lab.body(lab.device)))
    with pytest.raises(InvalidInputError):
        await edgex.metadata.add_device(Device.model_validate(lab.body(name, profileName="nope")))
    with pytest.raises(NotFoundError):
        await edgex.metadata.update_device(name, {"adminState": "LOCKED"})


# --- lists ---------------------------------------------------------------------------------------


async def test_devices_are_listed_in_pages(edgex: Edgex, lab: Lab) -> None:
    label = edgex.name("label")
    names = [edgex.name("lamp") for _ in range(5)]
    for name in names:
        await send(edgex, "POST", lab.body(name, labels=["contract", label]))
    pages = [await listed(edgex, "/device/all", labels=label, offset=str(at), limit="2") for at in (0, 2, 4)]
    assert [len(page) for page in pages] == [2, 2, 1]
    assert sorted(name for page in pages for name in page) == sorted(names)
    assert sorted(await listed(edgex, "/device/all", labels=f"{label},contract")) == sorted(names)
    assert sorted(await listed(edgex, "/device/all", labels=label, limit="-1")) == sorted(names)
    assert await listed(edgex, "/device/all", labels=f"{label},other") == []
    assert sorted(device.name for device in await edgex.metadata.devices(labels=[label])) == sorted(names)


async def listed(edgex: Edgex, path: str, **query: str) -> list[str]:
    answer = await edgex.ask("core-metadata", "GET", path, query=query)
    assert answer.status == 200, answer
    assert answer.body["totalCount"] >= len(answer.body["devices"])
    return [device["name"] for device in answer.body["devices"]]


async def test_devices_are_listed_by_service_and_by_profile(edgex: Edgex, lab: Lab) -> None:
    async with lab.another() as name:
        for path in (f"/device/service/name/{lab.key}", f"/device/profile/name/{lab.profile}"):
            assert {name, lab.device} <= set(await listed(edgex, path, limit="-1"))
        assert name in {device.name for device in await edgex.metadata.devices(service=lab.key)}
        assert name in {device.name for device in await edgex.metadata.devices(profile=lab.profile)}


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"limit": "-2"}, "querystring limit's value -2 is out of min -1 ~ max 1024 range."),
        ({"limit": "1025"}, "querystring limit's value 1025 is out of min -1 ~ max 1024 range."),
        ({"offset": "-1"}, "querystring offset's value -1 is out of min 0 ~ max 2147483647 range."),
        ({"limit": "many"}, "failed to parse querystring limit's value many into integer"),
    ],
)
async def test_bounds_of_a_list_that_cannot_be_are_refused(edgex: Edgex, query: dict[str, str], message: str) -> None:
    answer = await edgex.ask("core-metadata", "GET", "/device/all", query=query)
    assert answer.status == 400
    assert message in answer.message


async def test_page_beyond_the_end_is_416(edgex: Edgex, lab: Lab) -> None:
    path = f"/device/profile/name/{lab.profile}"
    total = (await edgex.ask("core-metadata", "GET", path)).body["totalCount"]
    answer = await edgex.ask("core-metadata", "GET", path, query={"offset": str(total + 1)})
    assert answer.status == 416
    assert answer.message == f"query objects bounds out of range. length:{total} offset:{total + 1}"


async def test_many_devices_added_at_once_are_all_there(edgex: Edgex, lab: Lab) -> None:
    label = edgex.name("label")
    bodies = [lab.body(edgex.name("lamp"), labels=[label]) for _ in range(10)]
    answers = await asyncio.gather(*(send(edgex, "POST", body) for body in bodies))
    assert [answer.item["statusCode"] for answer in answers] == [201] * 10
    assert sorted(await listed(edgex, "/device/all", labels=label)) == sorted(body["name"] for body in bodies)
