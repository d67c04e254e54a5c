"""What an agent waits for is said once, and said again when it is there."""

import logging
from types import SimpleNamespace
from typing import cast

import pytest

from edgeagents.adapters.device_cache import DeviceCache
from edgeagents.model.agent import AgentDefinition
from edgeagents.model.device import Device, Profile
from services.agent.absences import Absences

PROFILE = Profile.model_validate(
    {"name": "Valve", "deviceResources": [
        {"name": "Setpoint", "properties": {"valueType": "Float32", "readWrite": "R"}}]}
)  # fmt: skip
AGENT = AgentDefinition.model_validate(
    {"name": "air", "watches": [{"device": "valve-1"}], "may": [{"profile": "Valve", "resource": "Setpoint"}]}
)


class Setup:
    """An agent over devices that the test adds and takes away."""

    def __init__(self) -> None:
        self.devices: dict[str, Device] = {}
        self.profiles = {"Valve": PROFILE}
        cache = SimpleNamespace(devices_by_name=self.devices, profiles_by_name=self.profiles)
        self.absences = Absences(AGENT, "air.yaml", cast(DeviceCache, cache))


@pytest.fixture
def setup(caplog: pytest.LogCaptureFixture) -> Setup:
    caplog.set_level(logging.INFO)
    return Setup()


def test_a_missing_device_is_said_once_with_the_remedy(setup: Setup, caplog: pytest.LogCaptureFixture) -> None:
    setup.absences.look()
    setup.absences.look()
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert record.message == (
        "air.yaml: waiting for device 'valve-1', any device of profile 'Valve': not in core-metadata (yet); "
        "add it there, or correct the file"
    )
    assert setup.absences.waited_for == ("device 'valve-1'", "any device of profile 'Valve'")


def test_once_it_is_there_that_is_said_and_gone_again_it_is_missing_again(
    setup: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    setup.absences.look()
    setup.devices["valve-1"] = Device(name="valve-1", profile_name="Other")
    setup.absences.look()
    assert setup.absences.waited_for == ("any device of profile 'Valve'",)
    assert caplog.records[-1].message == "air.yaml: there now: device 'valve-1'"
    del setup.devices["valve-1"]
    setup.absences.look()
    assert caplog.records[-1].message.startswith("air.yaml: waiting for device 'valve-1': ")


def test_a_device_that_comes_and_contradicts_the_file_is_an_error_said_once(
    setup: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    setup.devices["valve-1"] = Device(name="valve-1", profile_name="Valve")
    setup.absences.look()
    setup.absences.look()
    errors = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert errors == [
        "air.yaml: may[0]: resource: valve-1/Setpoint is read-only: the guard refuses this agent until file or device "
        "is corrected"
    ]
