"""Machines as a real EdgeX device service that stamps each SET it gets: `python -m tests.bench.events_devices`.

`GET /sets` tells what was set since the last question: value and wall nanoseconds. Their readings are not its: the
benchmark publishes them itself.
"""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from edgeagents.adapters.bootstrap import EdgexService, ServiceSpec, run_service
from edgeagents.adapters.device_service import DeviceServiceSettings, serve_devices
from edgeagents.adapters.provisioning import Inventory
from edgeagents.model.device import Device, DeviceResource, Profile
from edgeagents.model.values import Value

KEY: Final = "device-world-bench"
COUNT: Final = "BENCH_DEVICES"
PROFILE: Final = Profile.model_validate({
    "name": "Machine",
    "deviceResources": [
        {"name": "Level", "properties": {"valueType": "Float64", "readWrite": "R"}},
        {"name": "Setpoint", "properties": {"valueType": "Float64", "readWrite": "RW"}},
    ],
})  # fmt: skip


def names(count: int) -> list[str]:
    """Return the names of so many machines."""
    return [f"machine-{number}" for number in range(count)]


class Machines:
    """All machines, in memory; a SET is stamped before it is answered."""

    def __init__(self) -> None:
        """Begin with every resource at 0."""
        self._values: dict[tuple[str, str], Value] = {}
        self._sets: list[tuple[float, int]] = []

    async def read(self, device: Device, resources: Sequence[DeviceResource]) -> Sequence[Value]:
        """Return what was set last."""
        return [self._values.get((device.name, item.name), 0.0) for item in resources]

    async def write(self, device: Device, writes: Sequence[tuple[DeviceResource, Value]], correlation_id: str) -> None:
        """Set, and note when."""
        now_ns = time.time_ns()
        for resource, value in writes:
            self._values[device.name, resource.name] = value
            if isinstance(value, float):
                self._sets.append((value, now_ns))
        await asyncio.sleep(0)

    def validate(self, device: Device) -> str | None:
        """Take every machine."""
        return None

    def taken(self) -> list[tuple[float, int]]:
        """Return what was set since the last call: value and wall nanoseconds."""
        found, self._sets = self._sets, []
        return found


@contextlib.asynccontextmanager
async def build(service: EdgexService) -> AsyncIterator[None]:
    """Serve the machines and the route that tells what was set."""
    machines = Machines()
    devices = tuple(
        Device(name=name, service_name=KEY, profile_name=PROFILE.name, protocols={"bench": {"name": name}})
        for name in names(int(os.environ[COUNT]))
    )

    @service.app.get("/sets")
    async def sets() -> dict[str, Any]:
        return {"sets": machines.taken()}

    async with serve_devices(service, machines, Inventory((PROFILE,), devices)):
        yield


SPEC: Final = ServiceSpec(KEY, "device", 59980, {"Writable": {"LogLevel": "INFO"}}, settings=(DeviceServiceSettings,))

if __name__ == "__main__":
    sys.exit(run_service(SPEC, build))
