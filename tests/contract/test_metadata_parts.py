"""core-metadata's profiles in parts: what they say of themselves, single resources and commands; devices by id."""

import uuid
from typing import Any

import pytest
import pytest_asyncio

from edgeagents.model.envelope import SystemEvent
from tests.contract.edgex import Edgex, Reply
from tests.contract.lab import Lab

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def profile(edgex: Edgex) -> str:
    """A profile with one resource `A` and one command `CA`; the run's end removes it."""
    name = edgex.name("parts")
    body = {
        "name": name, "manufacturer": name, "model": "m", "labels": [name],
        "deviceResources": [{"name": "A", "properties": {"valueType": "Int8", "readWrite": "RW"}}],
        "deviceCommands": [{"name": "CA", "readWrite": "R", "resourceOperations": [{"deviceResource": "A"}]}],
    }  # fmt: skip
    answer = await edgex.ask("core-metadata", "POST", "/deviceprofile", [{"apiVersion": "v3", "profile": body}])
    assert answer.outcome == 201, answer
    return name


async def change(edgex: Edgex, method: str, path: str, part: str, given: dict[str, Any], profile: str = "") -> Reply:
    body: dict[str, Any] = {"apiVersion": "v3", part: given} | ({"profileName": profile} if profile else {})
    return await edgex.ask("core-metadata", method, f"/deviceprofile/{path}", [body])


async def read(edgex: Edgex, profile: str) -> dict[str, Any]:
    found: dict[str, Any] = (await edgex.ask("core-metadata", "GET", f"/deviceprofile/name/{profile}")).body["profile"]
    return found


async def test_basics_are_changed_and_the_rest_is_kept(edgex: Edgex, profile: str) -> None:
    before = await read(edgex, profile)
    async with edgex.watch(f"system-events/core-metadata/deviceprofile/update/core-metadata/{profile}") as seen:
        answer = await change(edgex, "PATCH", "basicinfo", "basicinfo", {"name": profile, "description": "d"})
        assert answer.outcome == 200, answer
        notice: SystemEvent = await seen.first()
    assert notice.details["description"] == "d"
    after = await read(edgex, profile)
    assert after == before | {"description": "d", "modified": after["modified"]}


async def test_basics_of_an_unknown_profile_are_404(edgex: Edgex) -> None:
    answer = await change(edgex, "PATCH", "basicinfo", "basicinfo", {"name": "nobody"})
    assert answer.outcome == 404
    refused = await change(edgex, "PATCH", "basicinfo", "basicinfo", {})
    assert refused.status == 400
    assert "Name field is required if the Id is not present" in refused.message


async def test_basics_are_listed_without_resources(edgex: Edgex, profile: str) -> None:
    answer = await edgex.ask("core-metadata", "GET", "/deviceprofile/basicinfo/all", query={"labels": profile})
    (found,) = answer.body["profiles"]
    assert answer.body["totalCount"] == 1
    assert found.keys() == {
        "created", "modified", "id", "name", "manufacturer", "model", "labels", "linkedDeviceCount",
    }  # fmt: skip


async def test_profiles_are_listed_by_manufacturer_and_model(edgex: Edgex, profile: str) -> None:
    root = f"/deviceprofile/manufacturer/{profile}/model"
    assert (await edgex.ask("core-metadata", "GET", f"{root}/m")).body["totalCount"] == 1
    assert (await edgex.ask("core-metadata", "GET", f"{root}/other")).body["totalCount"] == 0


async def test_resource_is_read_added_changed_and_deleted(edgex: Edgex, profile: str) -> None:
    resource = {"name": "B", "properties": {"valueType": "Bool", "readWrite": "R"}}
    assert (await change(edgex, "POST", "resource", "resource", resource, profile)).outcome == 201
    path = f"/deviceresource/profile/{profile}/resource/B"
    assert (await edgex.ask("core-metadata", "GET", path)).body["resource"] == resource | {"isHidden": False}
    hidden = {"name": "B", "isHidden": True, "description": "x"}
    assert (await change(edgex, "PATCH", "resource", "resource", hidden, profile)).outcome == 200
    found = (await edgex.ask("core-metadata", "GET", path)).body["resource"]
    assert (found["isHidden"], found["description"]) == (True, "x")
    one = f"/deviceprofile/name/{profile}/resource/B"
    assert (await edgex.ask("core-metadata", "DELETE", one)).status == 200
    assert (await edgex.ask("core-metadata", "GET", path)).status == 404
    assert (await edgex.ask("core-metadata", "DELETE", one)).status == 404


async def test_command_is_added_changed_and_deleted(edgex: Edgex, profile: str) -> None:
    command = {"name": "CB", "readWrite": "R", "resourceOperations": [{"deviceResource": "A"}]}
    assert (await change(edgex, "POST", "deviceCommand", "deviceCommand", command, profile)).outcome == 201
    hidden = {"name": "CB", "isHidden": True}
    assert (await change(edgex, "PATCH", "deviceCommand", "deviceCommand", hidden, profile)).outcome == 200
    commands = {found["name"]: found for found in (await read(edgex, profile))["deviceCommands"]}
    assert commands["CB"]["isHidden"] is True
    one = f"/deviceprofile/name/{profile}/deviceCommand/CB"
    assert (await edgex.ask("core-metadata", "DELETE", one)).status == 200
    assert [found["name"] for found in (await read(edgex, profile))["deviceCommands"]] == ["CA"]


async def test_part_that_does_not_fit_the_rest_is_refused(edgex: Edgex, profile: str) -> None:
    twice = {"name": "A", "properties": {"valueType": "Bool", "readWrite": "R"}}
    assert (await change(edgex, "POST", "resource", "resource", twice, profile)).outcome == 400
    lost = {"name": "CC", "readWrite": "R", "resourceOperations": [{"deviceResource": "Nope"}]}
    assert (await change(edgex, "POST", "deviceCommand", "deviceCommand", lost, profile)).outcome == 400
    needed = await edgex.ask("core-metadata", "DELETE", f"/deviceprofile/name/{profile}/resource/A")
    assert needed.status == 400
    assert (await change(edgex, "PATCH", "resource", "resource", {"name": "Z"}, profile)).outcome == 404
    assert (await change(edgex, "POST", "resource", "resource", twice, "nobody")).outcome == 404
    assert (await change(edgex, "POST", "resource", "resource", {"name": ""}, profile)).status == 400
    assert len((await read(edgex, profile))["deviceResources"]) == 1


async def test_part_of_a_profile_in_use_is_not_deleted(edgex: Edgex, lab: Lab) -> None:
    answer = await edgex.ask("core-metadata", "DELETE", f"/deviceprofile/name/{lab.profile}/resource/Secret")
    assert answer.status == 409


async def test_device_is_found_by_its_id(edgex: Edgex, lab: Lab) -> None:
    device = (await edgex.ask("core-metadata", "GET", f"/device/name/{lab.device}")).body["device"]
    assert (await edgex.ask("core-metadata", "GET", f"/device/id/{device['id']}")).body["device"] == device
    assert (await edgex.ask("core-metadata", "GET", f"/device/id/{uuid.uuid4()}")).status == 404
