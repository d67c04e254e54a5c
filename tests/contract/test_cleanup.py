"""The suite takes away what it brought, and nothing else."""

import pytest

from edgeagents.adapters.keeper import Registration
from edgeagents.model.device import Device, DeviceService, Profile
from tests.contract import traces
from tests.contract.edgex import Edgex
from tests.contract.lab import lab_profile

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def bring(edgex: Edgex, word: str) -> None:
    """Make one of everything whose name holds a word."""
    service, profile = f"device-{word}", f"profile-{word}"
    await edgex.metadata.add_service(DeviceService(name=service, base_address="http://127.0.0.1:9"))
    await edgex.metadata.add_profile(Profile.model_validate(lab_profile(profile)))
    device = Device(name=f"lamp-{word}", service_name=service, profile_name=profile, protocols={"lab": {}})
    await edgex.metadata.add_device(device, validate=False)
    child = device.model_copy(update={"name": f"child-{word}", "parent": device.name})
    await edgex.metadata.add_device(child, validate=False)
    await edgex.keeper.put_tree(f"edgex/v4/app-{word}", {"Writable": {"LogLevel": "INFO"}})
    await edgex.keeper.add(Registration(service_id=f"app-{word}", host="127.0.0.1", port=9))


async def test_what_a_run_brought_is_removed_and_what_others_have_is_left(edgex: Edgex) -> None:
    mine, others = edgex.name("mine"), edgex.name("others")
    await bring(edgex, mine)
    await bring(edgex, others)
    before = await traces.found(edgex, others)
    await traces.remove(edgex, mine)
    assert await traces.found(edgex, mine) == {
        "device": [], "deviceprofile": [], "deviceservice": [], "registration": [], "key": [],
    }  # fmt: skip
    assert await traces.found(edgex, others) == before
    assert all(before.values())
