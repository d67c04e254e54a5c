"""core-metadata's notices on the bus: what was added, changed or deleted, and whom it concerns."""

import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from edgeagents.model.device import DeviceService, Profile
from edgeagents.model.envelope import SystemEvent
from tests.contract.edgex import Edgex
from tests.contract.lab import Lab, lab_profile

pytestmark = pytest.mark.asyncio(loop_scope="session")
Do = Callable[[], Awaitable[Any]]


async def told(edgex: Edgex, topic: str, name: str, do: Do) -> SystemEvent:
    """Return the notice about `name` that `do` causes on a topic; what every notice has is checked."""
    before = time.time_ns()
    async with edgex.watch(f"system-events/core-metadata/{topic}") as seen:
        await do()
        event: SystemEvent = await seen.first(lambda item: item.details["name"] == name)
    kind, action, owner, *_ = topic.split("/")
    assert (event.source, event.type, event.action, event.owner) == ("core-metadata", kind, action, owner)
    assert before - 60_000_000_000 < event.timestamp_ns < time.time_ns() + 60_000_000_000
    assert event.envelope.content_type == "application/json"
    assert event.envelope.payload["apiVersion"] == "v3"
    return event


async def test_device_is_told_when_added_changed_and_deleted(edgex: Edgex, lab: Lab) -> None:
    name = edgex.name("lamp")
    add = [{"apiVersion": "v3", "device": lab.body(name)}]
    patch = [{"apiVersion": "v3", "device": {"name": name, "labels": ["changed"]}}]

    def topic(action: str) -> str:
        return f"device/{action}/{lab.key}/{lab.profile}"

    added = await told(edgex, topic("add"), name, lambda: edgex.ask("core-metadata", "POST", "/device", add))
    assert added.details["labels"] == ["contract"]
    assert added.details["protocols"] == {"lab": {"Address": "1"}}
    changed = await told(edgex, topic("update"), name, lambda: edgex.ask("core-metadata", "PATCH", "/device", patch))
    assert changed.details["labels"] == ["changed"]
    await told(edgex, topic("delete"), name, lambda: edgex.metadata.delete_device(name))


async def test_device_without_a_profile_is_told_on_a_shorter_topic(edgex: Edgex, lab: Lab) -> None:
    name = edgex.name("lamp")
    body = [{"apiVersion": "v3", "device": lab.body(name, profileName="")}]
    event = await told(
        edgex, f"device/add/{lab.key}", name, lambda: edgex.ask("core-metadata", "POST", "/device", body)
    )  # fmt: skip
    assert not event.details.get("profileName")


async def test_profile_is_told_when_added_changed_and_deleted(edgex: Edgex) -> None:
    name = edgex.name("profile")
    profile = Profile.model_validate(lab_profile(name))
    changed = profile.model_copy(update={"description": "changed"})

    def topic(action: str) -> str:
        return f"deviceprofile/{action}/core-metadata/{name}"

    event = await told(edgex, topic("add"), name, lambda: edgex.metadata.add_profile(profile))
    assert Profile.model_validate(event.details) == profile
    event = await told(edgex, topic("update"), name, lambda: edgex.metadata.update_profile(changed))
    assert Profile.model_validate(event.details) == changed
    await told(edgex, topic("delete"), name, lambda: edgex.metadata.delete_profile(name))


async def test_changed_profile_is_told_to_the_services_that_use_it(edgex: Edgex, lab: Lab) -> None:
    profile = await edgex.metadata.profile(lab.profile)
    topic = f"deviceprofile/update/{lab.key}/{lab.profile}"
    event = await told(edgex, topic, lab.profile, lambda: edgex.metadata.update_profile(profile))
    assert event.details["deviceResources"]


async def test_device_service_is_told_when_added_changed_and_deleted(edgex: Edgex) -> None:
    name = edgex.name("device-told")
    service = DeviceService(name=name, base_address="http://127.0.0.1:59980")
    event = await told(edgex, f"deviceservice/add/{name}", name, lambda: edgex.metadata.add_service(service))
    assert event.details["baseAddress"] == "http://127.0.0.1:59980"
    lock = {"adminState": "LOCKED"}
    event = await told(edgex, f"deviceservice/update/{name}", name, lambda: edgex.metadata.update_service(name, lock))
    assert event.details["adminState"] == "LOCKED"
    await told(edgex, f"deviceservice/delete/{name}", name, lambda: edgex.metadata.delete_service(name))


async def test_refused_change_is_not_told(edgex: Edgex, lab: Lab) -> None:
    async with edgex.watch(f"system-events/core-metadata/device/+/{lab.key}/#") as seen:
        again = [{"apiVersion": "v3", "device": lab.body(lab.device)}]
        assert (await edgex.ask("core-metadata", "POST", "/device", again)).item["statusCode"] == 409
        async with lab.another() as name:
            await seen.first(lambda item: item.details["name"] == name)
    assert lab.device not in {event.details["name"] for event in seen.messages}


async def test_notice_carries_the_correlation_id_of_the_request(edgex: Edgex, lab: Lab) -> None:
    mine = "7f0e6a5e-0000-4000-8000-000000000002"
    name = edgex.name("lamp")
    body = [{"apiVersion": "v3", "device": lab.body(name)}]
    async with edgex.watch(f"system-events/core-metadata/device/add/{lab.key}/#") as seen:
        await edgex.ask("core-metadata", "POST", "/device", body, headers={"X-Correlation-ID": mine})
        notice = await seen.first(lambda item: item.details["name"] == name)
    assert notice.envelope.correlation_id == mine
