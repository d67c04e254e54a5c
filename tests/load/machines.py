"""The machines of the load test as a real EdgeX device service: `python -m tests.load.machines`.

Each line of machines is one EdgeX profile, so that an agent watches its line by one filter. Every SET is answered,
and written down with its correlation id, as any device service of ours does. Readings are published by the test.
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Final

from edgeagents.adapters.bootstrap import EdgexService, ServiceSpec, run_service
from edgeagents.adapters.device_service import DeviceServiceSettings, serve_devices
from edgeagents.adapters.provisioning import Inventory
from edgeagents.journal import Journal
from edgeagents.model.device import Device, DeviceResource, Profile
from edgeagents.model.values import Value

SCENARIO: Final = "load"
KEY: Final = f"device-world-{SCENARIO}"
LINES: Final = "LOAD_LINES"
MACHINES: Final = "LOAD_MACHINES"


def line_name(line: int) -> str:
    """Return the name of a line of machines, its EdgeX profile."""
    return f"Line{line}"


def machine_name(line: int, number: int) -> str:
    """Return the name of one machine of a line."""
    return f"line{line}-machine{number}"


def profile_of(line: int) -> Profile:
    """Return a line's profile: a level that is told, and a setpoint that is commanded."""
    resources = [
        {"name": "Level", "properties": {"valueType": "Float64", "readWrite": "R"}},
        {"name": "Setpoint", "properties": {"valueType": "Float64", "readWrite": "RW"}},
    ]
    return Profile.model_validate({"name": line_name(line), "deviceResources": resources})


def inventory(lines: int, machines: int) -> Inventory:
    """Return so many lines of so many machines each."""
    devices = tuple(
        Device(name=name, service_name=KEY, profile_name=line_name(line), protocols={"load": {"name": name}})
        for line in range(lines)
        for name in (machine_name(line, number) for number in range(machines))
    )
    return Inventory(tuple(profile_of(line) for line in range(lines)), devices)


class Setpoints:
    """What every machine was set to, in memory."""

    def __init__(self) -> None:
        """Begin with every resource at 0."""
        self._values: dict[tuple[str, str], Value] = {}

    async def read(self, device: Device, resources: Sequence[DeviceResource]) -> Sequence[Value]:
        """Return what was set last."""
        return [self._values.get((device.name, item.name), 0.0) for item in resources]

    async def write(self, device: Device, writes: Sequence[tuple[DeviceResource, Value]], correlation_id: str) -> None:
        """Set."""
        for resource, value in writes:
            self._values[device.name, resource.name] = value
        await asyncio.sleep(0)

    def validate(self, device: Device) -> str | None:
        """Take every machine."""
        return None


@contextlib.asynccontextmanager
async def build(service: EdgexService) -> AsyncIterator[None]:
    """Serve the machines, and write down what they were set to."""
    settings = DeviceServiceSettings()
    journal = Journal.in_folder(settings.journal_dir, "world")
    known = inventory(int(os.environ[LINES]), int(os.environ[MACHINES]))
    async with serve_devices(service, Setpoints(), known, settings=settings, journal=journal):
        yield


SPEC: Final = ServiceSpec(KEY, "device", 59980, {"Writable": {"LogLevel": "INFO"}}, settings=(DeviceServiceSettings,))

if __name__ == "__main__":
    sys.exit(run_service(SPEC, build))
