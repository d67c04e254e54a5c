"""Valves as a real EdgeX device service that tests tell to misbehave: `python -m tests.valves`.

`POST /control` with `{"hang": true}` makes SETs wait until they are released, `"once"` stalls just the next one;
`{"deaf": true}` makes them do nothing, `{"hand": 21.0}` is a hand at the valve;
`GET /control` tells what is set, by which correlation id, and how many SETs hang.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any

from edgeagents.adapters.bootstrap import EdgexService, ServiceSpec, run_service
from edgeagents.adapters.device_service import DeviceServiceSettings, serve_devices
from edgeagents.adapters.provisioning import Inventory
from edgeagents.model.device import Device, DeviceResource, Profile
from edgeagents.model.values import Value

NAMES = tuple(f"valve-{number}" for number in range(1, 10))
KEY = "device-valves"
PROFILE = Profile.model_validate({
    "name": "Valve",
    "deviceResources": [
        {"name": "Setpoint", "properties": {"valueType": "Float64", "readWrite": "RW", "minimum": 5, "maximum": 30}},
        {"name": "Open", "properties": {"valueType": "Bool", "readWrite": "RW"}},
        {"name": "Enabled", "properties": {"valueType": "Bool", "readWrite": "RW"}},
        {"name": "Brief", "properties": {"valueType": "Bool", "readWrite": "RW"}},
    ],
})  # fmt: skip
INVENTORY = Inventory((PROFILE,), tuple(
    Device(name=name, service_name=KEY, profile_name="Valve", protocols={"v": {"n": name}}) for name in NAMES
))  # fmt: skip


class Valves:
    """All valves, in memory."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, str], Value] = {}
        self.sets: list[dict[str, Any]] = []
        self.hangs: set[str] = set()
        self.once: set[str] = set()  # their next SET hangs
        self.stalled: set[str] = set()  # one SET of theirs hangs, others do not
        self.deaf: set[str] = set()
        self.hanging = 0
        self.changed = asyncio.Condition()

    async def read(self, device: Device, resources: Sequence[DeviceResource]) -> Sequence[Value]:
        defaults: dict[str, Value] = {"Setpoint": 18.0}
        return [self.values.get((device.name, item.name), defaults.get(item.name, False)) for item in resources]

    async def write(self, device: Device, writes: Sequence[tuple[DeviceResource, Value]], correlation_id: str) -> None:
        async with self.changed:
            self.hanging += 1
            await self.changed.wait_for(lambda: device.name not in self.hangs)
            self.hanging -= 1
        for resource, value in writes:
            self.sets.append({"device": device.name, "resource": resource.name, "value": value, "id": correlation_id})
            if device.name not in self.deaf:
                self.values[device.name, resource.name] = value

    def validate(self, device: Device) -> str | None:
        return None


@contextlib.asynccontextmanager
async def build(service: EdgexService) -> AsyncIterator[None]:
    """Serve the valves and their control route."""
    valves = Valves()
    settings = DeviceServiceSettings(driver_timeout_s=30)

    @service.app.get("/control")
    async def show() -> dict[str, Any]:
        return {"sets": valves.sets, "hanging": valves.hanging}

    @service.app.post("/control")
    async def change(what: dict[str, Any]) -> None:
        async with valves.changed:
            if what.get("hang") == "once":
                valves.once.add(what.pop("device"))
                what.pop("hang")
            if "hand" in what:
                valves.values[what["device"], what.get("resource", "Setpoint")] = what["hand"]
            for word, names in (("hang", valves.hangs), ("hang", valves.stalled), ("deaf", valves.deaf)):
                if word in what:
                    (names.add if what[word] and names is not valves.stalled else names.discard)(what["device"])
            valves.changed.notify_all()

    async with serve_devices(service, valves, INVENTORY, settings=settings) as devices:
        carry_out = devices._set

        async def stall(name: str, *arguments: Any) -> None:
            # Before anything of the service knows of it, so that it answers reads and further SETs meanwhile.
            if name in valves.once:
                valves.once.discard(name)
                valves.stalled.add(name)
                async with valves.changed:
                    await valves.changed.wait_for(lambda: name not in valves.stalled)
            await carry_out(name, *arguments)

        devices._set = stall  # type: ignore[method-assign]
        yield


SPEC = ServiceSpec(KEY, "device", 59990, {"Writable": {"LogLevel": "INFO"}}, settings=(DeviceServiceSettings,))

if __name__ == "__main__":
    sys.exit(run_service(SPEC, build))
