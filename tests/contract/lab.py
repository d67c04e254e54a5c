"""The device behind the tests: our own device service around a driver in memory, and a profile of every value type."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from edgeagents.adapters.bootstrap import EdgexService, ServiceSpec
from edgeagents.adapters.device_service import DeviceService, DeviceServiceSettings, serve_devices
from edgeagents.adapters.provisioning import Inventory
from edgeagents.model.device import Device, DeviceResource, Profile
from edgeagents.model.values import Value
from tests.contract.edgex import Edgex
from tests.contract.running import Running, own_service_section, running
from tests.contract.waiting import until
from tests.nats import free_port

DRIVER_TIMEOUT_S = 0.3
INTEGERS = ("Int8", "Int16", "Int32", "Int64", "Uint8", "Uint16", "Uint32", "Uint64")
SIMPLE = ("Bool", "String", *INTEGERS, "Float32", "Float64")
WRITABLE_TYPES = (*SIMPLE, *(f"{kind}Array" for kind in SIMPLE), "Object", "ObjectArray")


def lab_profile(name: str, **changes: Any) -> dict[str, Any]:
    """Return a profile as it is sent to core-metadata: a resource of every type, limits, defaults, a device command."""
    resources = [resource(kind, kind) for kind in WRITABLE_TYPES]
    resources += [
        resource("Power", "Bool", defaultValue="false"),
        resource("Level", "Uint8", units="%", minimum=0, maximum=100, defaultValue="0"),
        resource("Temperature", "Float32", readWrite="R", units="C"),
        resource("Picture", "Binary", readWrite="R", mediaType="image/png"),
        resource("Reset", "Bool", readWrite="W"),
        resource("Secret", "String", readWrite="W") | {"isHidden": True},
    ]
    operations = [
        {"deviceResource": "Power", "mappings": {"true": "ON", "false": "OFF"}},
        {"deviceResource": "Level", "defaultValue": "5"},
    ]
    commands = [
        {"name": "State", "isHidden": False, "readWrite": "RW", "resourceOperations": operations},
        {"name": "Hidden", "isHidden": True, "readWrite": "RW", "resourceOperations": operations},
    ]
    profile = {
        "name": name, "manufacturer": "contract", "model": "lab", "labels": ["contract"],
        "deviceResources": resources, "deviceCommands": commands,
    }  # fmt: skip
    return profile | changes


def resource(name: str, kind: str, **properties: Any) -> dict[str, Any]:
    """Return a device resource that can be read and written unless `readWrite` says else."""
    return {
        "name": name, "isHidden": False, "properties": {"valueType": kind, "readWrite": "RW"} | properties,
    }  # fmt: skip


class LabDriver:
    """Values in memory by device and resource. A device's protocol `lab` says what is to go wrong with it."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, str], Value] = {}
        self.written: list[tuple[str, dict[str, Value], str]] = []

    async def read(self, device: Device, resources: Sequence[DeviceResource]) -> Sequence[Value]:
        """Return what was set last; before that what stands in `_FIRST`."""
        await self._hang(device)
        return [self.values.get((device.name, item.name), _FIRST.get(item.name)) for item in resources]

    async def write(self, device: Device, writes: Sequence[tuple[DeviceResource, Value]], correlation_id: str) -> None:
        """Set all values."""
        await self._hang(device)
        values = {item.name: value for item, value in writes}
        self.written.append((device.name, values, correlation_id))
        self.values |= {(device.name, name): value for name, value in values.items()}

    def validate(self, device: Device) -> str | None:
        """Return what the device itself says should be said against it."""
        reason = device.protocols.get("lab", {}).get("refused")
        return None if reason is None else str(reason)

    async def _hang(self, device: Device) -> None:
        if device.protocols.get("lab", {}).get("hangs"):
            await asyncio.Event().wait()


_FIRST: dict[str, Value] = {"Power": True, "Level": 40, "Temperature": 21.5, "Picture": b"\x89PNG"}


@dataclass
class Lab:
    """A running device service with one profile and one device of it, `device`; tests may add further ones."""

    edgex: Edgex
    running: Running
    driver: LabDriver
    devices: DeviceService
    profile: str
    device: str

    @property
    def key(self) -> str:
        """The service's key."""
        return self.running.service.key

    def body(self, name: str, **changes: Any) -> dict[str, Any]:
        """Return a further device as it is sent to core-metadata."""
        return {
            "name": name, "serviceName": self.key, "profileName": self.profile, "adminState": "UNLOCKED",
            "operatingState": "UP", "labels": ["contract"], "protocols": {"lab": {"Address": "1"}},
        } | changes  # fmt: skip

    @asynccontextmanager
    async def another(self, word: str = "lamp", **changes: Any) -> AsyncIterator[str]:
        """Add a device while the context is open, known to the service; return its name."""
        name = self.edgex.name(word)
        added = await self.edgex.ask(
            "core-metadata", "POST", "/device", [{"apiVersion": "v3", "device": self.body(name, **changes)}]
        )
        assert added.item["statusCode"] == 201, added
        known = self.running.service.devices
        await until(lambda: known.device(name), f"{self.key} knows {name}")
        try:
            yield name
        finally:
            await self.edgex.metadata.delete_device(name)
            await until(lambda: known.device(name) is None, f"{self.key} forgets {name}")


@asynccontextmanager
async def running_lab(edgex: Edgex, nats_url: str) -> AsyncIterator[Lab]:
    """Run the device service while the context is open."""
    profile, device, driver = edgex.name("lab-profile"), edgex.name("lab-device"), LabDriver()
    made: asyncio.Future[DeviceService] = asyncio.get_running_loop().create_future()
    key = edgex.name("device-lab")
    inventory = Inventory(
        (Profile.model_validate(lab_profile(profile)),),
        (Device(name=device, service_name=key, profile_name=profile, protocols={"lab": {"Address": "1"}}),),
    )
    # Events go plainly onto the topic: a stream for them would be ours in somebody else's broker.
    settings = DeviceServiceSettings(events_stream=False, driver_timeout_s=DRIVER_TIMEOUT_S)

    @asynccontextmanager
    async def build(service: EdgexService) -> AsyncIterator[None]:
        async with serve_devices(service, driver, inventory, settings=settings, labels=("contract",)) as devices:
            made.set_result(devices)
            yield

    spec = ServiceSpec(
        key=key, kind="device", port=free_port(), config={"Service": own_service_section(edgex)},
    )  # fmt: skip
    async with running(edgex, nats_url, spec, build) as started:
        await until(lambda: started.service.devices.device(device), f"{key} has its device in core-metadata")
        yield Lab(edgex, started, driver, made.result(), profile, device)
