"""An event is read where a decision can rest on it, or where its topic does not tell."""

from typing import Any, cast

import pytest

from edgeagents.adapters.device_cache import DeviceCache
from edgeagents.model.agent import AgentDefinition
from edgeagents.model.device import Profile
from edgeagents.model.site import Site
from services.guard import concerns as concerns_module
from services.guard.concerns import Concerns
from services.guard.owner import Owner

PROFILE = Profile.model_validate({
    "name": "Room",
    "deviceResources": [
        {"name": name, "properties": {"valueType": "Float64", "readWrite": "RW"}}
        for name in ("Set", "Shown", "Door", "Motion", "Fan", "CO2", "Old")
    ],
    "deviceCommands": [
        {"name": name, "readWrite": "R", "resourceOperations": [{"deviceResource": item} for item in items]}
        for name, items in (("Both", ("CO2", "Set")), ("Air", ("CO2",)))
    ],
})  # fmt: skip
SITE = Site.model_validate({
    "resources": [{"profile": "Room", "resource": "Set", "risk_class": "A", "proof": {"resource": "Shown"}}],
    "interlocks": [{
        "name": "lock", "forbid": {"device": "hall", "resource": "Door", "equals": "true"},
        "during": {"device": "hall", "resource": "Motion", "equals": "true"},
    }],
})  # fmt: skip
AGENT = AgentDefinition.model_validate(
    {"name": "a", "watches": [{"device": "*"}], "may": [{"profile": "Room", "resource": "Fan"}]}
)


class Devices:
    """What core-metadata knows; `profiles` by device."""

    def __init__(self) -> None:
        self.profiles: dict[str, Profile] = {"hall": PROFILE}
        self.asked = 0

    def profile_of(self, device: str) -> Profile | None:
        """Return a device's profile."""
        self.asked += 1
        return self.profiles.get(device)


def what_concerns(devices: Devices, **more: Any) -> Concerns:
    """Return what concerns a guard with these files."""
    return Concerns(Owner(SITE, {"a": AGENT}), cast(DeviceCache, devices), **more)


def topic(source: str, device: str = "hall") -> str:
    """Return the topic of an event."""
    return f"edgex/events/device/svc/Room/{device}/{source}"


@pytest.mark.parametrize(
    ("source", "is_read"),
    [
        ("Set", True), ("Shown", True), ("Door", True), ("Motion", True), ("Fan", True), ("CO2", False),
        ("Both", True), ("Air", False), ("Unknown", True),
    ],
)  # fmt: skip
def test_resources_of_the_owners_files_are_read_and_no_others(source: str, is_read: bool) -> None:
    assert what_concerns(Devices()).reads(topic(source), "edgex") is is_read


def test_what_the_guard_has_set_once_is_read_whatever_the_files_say_now() -> None:
    assert what_concerns(Devices(), set_before=["Old"]).reads(topic("Old"), "edgex")
    assert not what_concerns(Devices()).reads(topic("Old"), "edgex")


@pytest.mark.parametrize("odd", [topic("CO2", "attic"), "edgex/events/device/svc/Room/a/b/CO2", "edgex/events/core/x"])
def test_what_a_topic_does_not_tell_for_sure_is_read(odd: str) -> None:
    assert what_concerns(Devices()).reads(odd, "edgex")


def test_answers_are_remembered_until_devices_change(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = Devices()
    concerns = what_concerns(devices)
    assert not concerns.reads(topic("CO2"), "edgex")
    assert not concerns.reads(topic("CO2"), "edgex")
    assert devices.asked == 1
    devices.profiles.clear()
    concerns.forget()
    assert concerns.reads(topic("CO2"), "edgex")
    monkeypatch.setattr(concerns_module, "MOST_TOPICS", 2)
    for number in range(5):
        assert concerns.reads(topic("CO2", f"made-up-{number}"), "edgex")
    assert len(concerns._known) <= 2
