"""core-metadata's device services and profiles: added, changed, listed, refused, deleted."""

from typing import Any

import pytest
import yaml

from edgeagents.errors import ConflictError, NotFoundError
from edgeagents.model.device import Profile
from tests.contract.edgex import Edgex, Reply
from tests.contract.lab import Lab, lab_profile, resource

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def send_profile(edgex: Edgex, method: str, *profiles: dict[str, Any]) -> Reply:
    requests = [{"apiVersion": "v3", "profile": profile} for profile in profiles]
    return await edgex.ask("core-metadata", method, "/deviceprofile", requests)


async def send_service(edgex: Edgex, method: str, service: dict[str, Any]) -> Reply:
    return await edgex.ask("core-metadata", method, "/deviceservice", [{"apiVersion": "v3", "service": service}])


def a_service(name: str, **changes: Any) -> dict[str, Any]:
    own = {"name": name, "baseAddress": "http://127.0.0.1:59980", "adminState": "UNLOCKED", "labels": ["contract"]}
    return own | changes


@pytest.fixture
def name(edgex: Edgex) -> str:
    """A name that nothing has."""
    return edgex.name("thing")


# --- device services -----------------------------------------------------------------------------


async def test_added_device_service_is_read_back(edgex: Edgex, name: str) -> None:
    added = (await send_service(edgex, "POST", a_service(name))).item
    assert added == {"apiVersion": "v3", "statusCode": 201, "id": added["id"]}
    found = (await edgex.ask("core-metadata", "GET", f"/deviceservice/name/{name}")).body["service"]
    assert found["id"] == added["id"]
    assert found.items() >= a_service(name).items()
    assert found["created"] == found["modified"] > 1_700_000_000_000


async def test_device_service_of_a_known_name_is_refused(edgex: Edgex, name: str) -> None:
    await send_service(edgex, "POST", a_service(name))
    again = (await send_service(edgex, "POST", a_service(name))).item
    assert (again["statusCode"], again["message"]) == (409, f"device service name {name} already exists")


async def test_patched_device_service_keeps_what_was_not_named(edgex: Edgex, name: str) -> None:
    await send_service(edgex, "POST", a_service(name))
    patched = await send_service(edgex, "PATCH", {"name": name, "baseAddress": "http://127.0.0.1:59981"})
    assert patched.item == {"apiVersion": "v3", "statusCode": 200}
    found = await edgex.metadata.service(name)
    assert (found.base_address, found.labels) == ("http://127.0.0.1:59981", ("contract",))


async def test_device_service_without_an_address_is_refused(edgex: Edgex, name: str) -> None:
    answer = await send_service(edgex, "POST", {"name": name, "adminState": "UNLOCKED"})
    assert answer.status == 400
    assert "AddDeviceServiceRequest.Service.BaseAddress field is required" in answer.message


async def test_unknown_device_service_is_404(edgex: Edgex, name: str) -> None:
    answer = await edgex.ask("core-metadata", "GET", f"/deviceservice/name/{name}")
    assert (answer.status, answer.message) == (404, f"no device service with name '{name}' found")
    patched = (await send_service(edgex, "PATCH", {"name": name, "labels": []})).item
    assert patched["statusCode"] == 404


async def test_deleted_device_service_is_gone(edgex: Edgex, name: str) -> None:
    await send_service(edgex, "POST", a_service(name))
    await edgex.metadata.delete_service(name)
    with pytest.raises(NotFoundError):
        await edgex.metadata.service(name)


async def test_device_service_with_devices_is_not_deleted(edgex: Edgex, lab: Lab) -> None:
    answer = await edgex.ask("core-metadata", "DELETE", f"/deviceservice/name/{lab.key}")
    assert answer.status == 409
    assert answer.message == "fail to delete the device service when associated device exists"


# --- profiles ------------------------------------------------------------------------------------


async def test_added_profile_is_read_back(edgex: Edgex, name: str) -> None:
    profile = lab_profile(name)
    added = (await send_profile(edgex, "POST", profile)).item
    assert added == {"apiVersion": "v3", "statusCode": 201, "id": added["id"]}
    found = (await edgex.ask("core-metadata", "GET", f"/deviceprofile/name/{name}")).body["profile"]
    assert found["linkedDeviceCount"] == 0
    assert Profile.model_validate(found) == Profile.model_validate(profile)


async def test_profile_of_a_known_name_is_refused(edgex: Edgex, name: str) -> None:
    await send_profile(edgex, "POST", lab_profile(name))
    again = (await send_profile(edgex, "POST", lab_profile(name))).item
    assert (again["statusCode"], again["message"]) == (409, f"device profile name {name} already exists")


async def test_list_of_profiles_is_answered_one_by_one(edgex: Edgex, name: str) -> None:
    other = edgex.name("thing")
    await send_profile(edgex, "POST", lab_profile(name))
    answer = await send_profile(edgex, "POST", lab_profile(name), lab_profile(other))
    assert answer.status == 207
    assert [item["statusCode"] for item in answer.body] == [409, 201]


async def test_put_replaces_a_profile(edgex: Edgex, name: str) -> None:
    await send_profile(edgex, "POST", lab_profile(name))
    changed = lab_profile(name, description="changed", deviceResources=[resource("Power", "Bool")], deviceCommands=[])
    assert (await send_profile(edgex, "PUT", changed)).item == {"apiVersion": "v3", "statusCode": 200}
    found = await edgex.metadata.profile(name)
    assert (found.description, [item.name for item in found.device_resources]) == ("changed", ["Power"])


async def test_unknown_profile_is_404(edgex: Edgex, name: str) -> None:
    answer = await edgex.ask("core-metadata", "GET", f"/deviceprofile/name/{name}")
    assert (answer.status, answer.message) == (404, f"no device profile with name '{name}' found")
    assert (await send_profile(edgex, "PUT", lab_profile(name))).item["statusCode"] == 404
    assert (await edgex.ask("core-metadata", "DELETE", f"/deviceprofile/name/{name}")).status == 404


async def test_profile_with_an_unknown_value_type_is_refused(edgex: Edgex, name: str) -> None:
    profile = lab_profile(name, deviceResources=[resource("Power", "Switch")], deviceCommands=[])
    answer = await send_profile(edgex, "POST", profile)
    assert answer.status == 400
    assert "DeviceProfileRequest.Profile.DeviceResources[0].Properties.ValueType" in answer.message


@pytest.mark.parametrize(
    ("resources", "operation", "reason"),
    [
        ([resource("Power", "Bool")], "Level", "doesn't match any device resource"),
        ([resource("Power", "Bool", readWrite="R")], "Power", "doesn't align the device resource"),
        ([resource("Power", "Bool"), resource("Power", "Bool")], "Power", "is duplicated"),
    ],
)
async def test_profile_whose_parts_do_not_fit_is_refused(
    edgex: Edgex, name: str, resources: list[dict[str, Any]], operation: str, reason: str
) -> None:
    command = {
        "name": "State", "isHidden": False, "readWrite": "RW",
        "resourceOperations": [{"deviceResource": operation}],
    }  # fmt: skip
    answer = await send_profile(edgex, "POST", lab_profile(name, deviceResources=resources, deviceCommands=[command]))
    assert answer.outcome == 400
    assert reason in str(answer.body)


async def test_profile_that_a_device_uses_is_not_deleted(edgex: Edgex, lab: Lab) -> None:
    answer = await edgex.ask("core-metadata", "DELETE", f"/deviceprofile/name/{lab.profile}")
    assert answer.status == 409
    assert answer.message == "fail to delete the device profile when associated device exists"


async def test_deleted_profile_is_gone(edgex: Edgex, name: str) -> None:
    await send_profile(edgex, "POST", lab_profile(name))
    await edgex.metadata.delete_profile(name)
    with pytest.raises(NotFoundError):
        await edgex.metadata.profile(name)


async def test_profiles_are_listed_by_label_manufacturer_and_model(edgex: Edgex, name: str) -> None:
    await send_profile(
        edgex, "POST", lab_profile(name, labels=["contract", name], manufacturer=name, model=f"m-{name}")
    )
    for path, query in (
        ("all", {"labels": name}),
        ("all", {"labels": f"contract,{name}"}),
        (f"manufacturer/{name}", None),
        (f"model/m-{name}", None),
    ):
        answer = await edgex.ask("core-metadata", "GET", f"/deviceprofile/{path}", query=query)
        assert answer.body["totalCount"] == 1
        assert [profile["name"] for profile in answer.body["profiles"]] == [name]
    assert [profile.name for profile in await edgex.metadata.profiles(labels=[name])] == [name]


async def test_our_client_adds_updates_and_deletes_a_profile(edgex: Edgex, name: str) -> None:
    profile = Profile.model_validate(lab_profile(name))
    await edgex.metadata.add_profile(profile)
    with pytest.raises(ConflictError):
        await edgex.metadata.add_profile(profile)
    await edgex.metadata.update_profile(profile.model_copy(update={"description": "changed"}))
    assert (await edgex.metadata.profile(name)).description == "changed"
    await edgex.metadata.delete_profile(name)


# --- profiles as files ---------------------------------------------------------------------------


async def upload(edgex: Edgex, method: str, text: str) -> Reply:
    return await edgex.ask("core-metadata", method, "/deviceprofile/uploadfile", file=text)


async def test_profile_is_uploaded_as_yaml(edgex: Edgex, name: str) -> None:
    added = await upload(edgex, "POST", yaml.safe_dump(lab_profile(name)))
    assert added.status == 201
    assert added.body == {"apiVersion": "v3", "statusCode": 201, "id": added.body["id"]}
    assert await edgex.metadata.profile(name) == Profile.model_validate(lab_profile(name))


async def test_uploaded_profile_of_a_known_name_is_refused_and_replaced_by_put(edgex: Edgex, name: str) -> None:
    await upload(edgex, "POST", yaml.safe_dump(lab_profile(name)))
    again = await upload(edgex, "POST", yaml.safe_dump(lab_profile(name)))
    assert (again.status, again.message) == (409, f"device profile name {name} already exists")
    replaced = await upload(edgex, "PUT", yaml.safe_dump(lab_profile(name, description="changed")))
    assert (replaced.status, replaced.body["statusCode"]) == (200, 200)
    assert (await edgex.metadata.profile(name)).description == "changed"


async def test_uploaded_profile_without_a_name_is_refused(edgex: Edgex) -> None:
    answer = await upload(edgex, "POST", "model: nameless\ndeviceResources: []\n")
    assert (answer.status, answer.body["statusCode"]) == (400, 400)


async def test_upload_that_is_no_yaml_is_refused(edgex: Edgex) -> None:
    answer = await upload(edgex, "POST", "name: [unclosed")
    assert (answer.status, answer.body["statusCode"]) == (400, 400)
    assert answer.message
