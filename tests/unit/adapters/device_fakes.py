"""An EdgeX in memory for tests of device services: a bus by topic, core-metadata, a lamp and its driver."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

from edgeagents.adapters.bootstrap import EdgexService
from edgeagents.adapters.device_cache import DeviceCache
from edgeagents.adapters.edgex import MetadataClient
from edgeagents.adapters.edgex_bus import Cancel, EdgexBus, RawHandler
from edgeagents.adapters.envelopes import PLAIN, encode_envelope
from edgeagents.adapters.metrics import Metrics
from edgeagents.adapters.web import WebContext, make_app
from edgeagents.errors import ConflictError, NotFoundError, UnavailableError
from edgeagents.model.device import Device, DeviceResource, DeviceService, Profile
from edgeagents.model.envelope import Envelope
from edgeagents.model.values import Value
from edgeagents.settings import BusSettings

LAMP_PROFILE: dict[str, Any] = {
    "name": "lamp-profile",
    "deviceResources": [
        {"name": "Power", "properties": {"valueType": "Bool", "readWrite": "RW", "defaultValue": "false"}},
        {
            "name": "Level",
            "properties": {
                "valueType": "Uint8", "readWrite": "RW", "units": "%", "minimum": 0, "maximum": 100,
                "defaultValue": "0",
            },
        },
        {"name": "Temp", "properties": {"valueType": "Float32", "readWrite": "R", "units": "C"}},
        {"name": "Secret", "isHidden": True, "properties": {"valueType": "String", "readWrite": "W"}},
    ],
    "deviceCommands": [
        {
            "name": "State",
            "readWrite": "RW",
            "resourceOperations": [
                {"deviceResource": "Power", "mappings": {"true": "ON", "false": "OFF"}},
                {"deviceResource": "Level", "defaultValue": "5"},
            ],
        },
        {"name": "Show", "readWrite": "R", "resourceOperations": [{"deviceResource": "Level"}]},
        {"name": "Reset", "readWrite": "W", "resourceOperations": [{"deviceResource": "Level"}]},
        {"name": "Broken", "readWrite": "RW", "resourceOperations": [{"deviceResource": "Gone"}]},
    ],
}  # fmt: skip


async def until(condition: Callable[[], object], timeout_s: float = 5.0) -> None:
    """Wait until a condition holds that nobody signals."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  # what is waited for is plain state
            await asyncio.sleep(0.005)


def lamp(**changes: Any) -> Device:
    """Return a lamp of the service `device-lamps`."""
    fields: dict[str, Any] = {
        "name": "lamp", "service_name": "device-lamps", "profile_name": "lamp-profile",
        "protocols": {"lamp": {"Address": "1"}},
    }  # fmt: skip
    return Device(**(fields | changes))


class LampDriver:
    """A lamp in memory; `hold` makes it hang, `error` makes it fail."""

    def __init__(self) -> None:
        self.values: dict[str, Value] = {"Power": True, "Level": 40, "Temp": 21.5}
        self.written: list[tuple[str, dict[str, Value], str]] = []
        self.error: Exception | None = None
        self.hold: asyncio.Event | None = None
        self.reason: str | None = None

    async def read(self, device: Device, resources: Sequence[DeviceResource]) -> Sequence[Value]:
        await self._maybe()
        return [self.values[resource.name] for resource in resources]

    async def write(self, device: Device, writes: Sequence[tuple[DeviceResource, Value]], correlation_id: str) -> None:
        await self._maybe()
        values = {resource.name: value for resource, value in writes}
        self.written.append((device.name, values, correlation_id))
        self.values |= values

    def validate(self, device: Device) -> str | None:
        return self.reason

    async def _maybe(self) -> None:
        if self.hold is not None:
            await self.hold.wait()
        if self.error is not None:
            raise self.error


class MemoryTransport:
    """Topics in memory: what is published is kept, and delivered to the filters that match."""

    def __init__(self) -> None:
        self.published: list[tuple[str, Envelope]] = []
        self.filters: list[tuple[str, RawHandler]] = []
        self.is_down = False
        self.news = asyncio.Condition()

    async def publish(self, topic: str, envelope: Envelope) -> None:
        if self.is_down:
            raise UnavailableError("the link is down")
        data = encode_envelope(envelope)
        self.published.append((topic, envelope))
        for topic_filter, handler in list(self.filters):
            if _matches(topic_filter, topic):
                await handler(topic, data, {})
        async with self.news:
            self.news.notify_all()

    async def subscribe(self, topic_filter: str, handler: RawHandler) -> Cancel:
        entry = (topic_filter, handler)
        self.filters.append(entry)

        async def cancel() -> None:
            self.filters.remove(entry)

        return cancel

    async def first(self, part: str, count: int = 1) -> list[tuple[str, Envelope]]:
        """Wait for `count` messages on topics that hold `part`."""

        def found() -> list[tuple[str, Envelope]]:
            return [item for item in self.published if part in item[0]]

        async with asyncio.timeout(5), self.news:
            await self.news.wait_for(lambda: len(found()) >= count)
        return found()


def _matches(topic_filter: str, topic: str) -> bool:
    wanted, levels = topic_filter.split("/"), topic.split("/")
    if wanted[-1] == "#":
        wanted, levels = wanted[:-1], levels[: len(wanted) - 1] if len(levels) >= len(wanted) else []
    return len(wanted) == len(levels) and all(want in ("+", have) for want, have in zip(wanted, levels, strict=True))


class MemoryMetadata:
    """core-metadata in memory; `is_away` makes it unreachable, `calls` remembers changes."""

    def __init__(self) -> None:
        self.known_services: dict[str, DeviceService] = {}
        self.known_profiles: dict[str, Profile] = {}
        self.known_devices: dict[str, Device] = {}
        self.calls: list[str] = []
        self.is_away = False
        self.refuses: Exception | None = None

    def _ask(self, call: str = "") -> None:
        if self.is_away:
            raise UnavailableError("core-metadata cannot be reached")
        if call:
            if self.refuses is not None:
                raise self.refuses
            self.calls.append(call)

    async def service(self, name: str) -> DeviceService:
        self._ask()
        return _get(self.known_services, name)

    async def add_service(self, service: DeviceService) -> None:
        self._ask(f"add service {service.name}")
        self.known_services[service.name] = service

    async def update_service(self, name: str, changes: Mapping[str, Any]) -> None:
        self._ask(f"update service {name} {sorted(changes)}")
        self.known_services[name] = _changed(self.known_services[name], changes)

    async def profile(self, name: str) -> Profile:
        self._ask()
        return _get(self.known_profiles, name)

    async def profiles(self) -> list[Profile]:
        self._ask()
        return list(self.known_profiles.values())

    async def add_profile(self, profile: Profile) -> None:
        self._ask(f"add profile {profile.name}")
        self.known_profiles[profile.name] = profile

    async def update_profile(self, profile: Profile) -> None:
        self._ask(f"update profile {profile.name}")
        self.known_profiles[profile.name] = profile

    async def device(self, name: str) -> Device:
        self._ask()
        return _get(self.known_devices, name)

    async def devices(self) -> list[Device]:
        self._ask()
        return list(self.known_devices.values())

    async def add_device(self, device: Device) -> None:
        if device.name in self.known_devices:
            raise ConflictError(f"device name {device.name} already exists")
        self._ask(f"add device {device.name}")
        self.known_devices[device.name] = device

    async def update_device(self, name: str, changes: Mapping[str, Any]) -> None:
        self._ask(f"update device {name} {sorted(changes)}")
        self.known_devices[name] = _changed(self.known_devices[name], changes)


def _get(known: Mapping[str, Any], name: str) -> Any:
    if name not in known:
        raise NotFoundError(f"no item with name '{name}' found")
    return known[name]


def _changed(item: Any, changes: Mapping[str, Any]) -> Any:
    return type(item).model_validate(item.to_wire() | dict(changes))


class MemoryBus:
    """The stream of device events in memory."""

    def __init__(self, settings: BusSettings) -> None:
        self.settings = settings
        self.is_connected = True
        self.stored: list[tuple[str, dict[str, Any], str]] = []
        self.attempts: list[str] = []
        self.failures: list[Exception] = []

    async def store(self, subject: str, data: bytes, *, message_id: str, timeout_s: float) -> int:
        self.attempts.append(message_id)
        if self.failures:
            raise self.failures.pop(0)
        self.stored.append((subject, json.loads(data), message_id))
        return len(self.stored)


class MemoryConfig(dict[str, Any]):
    """A configuration by path."""


@contextlib.asynccontextmanager
async def memory_service(key: str = "device-lamps", **settings: Any) -> AsyncIterator[SimpleNamespace]:
    """Yield an EdgexService whose neighbours are in memory; `service` is the typed view of it."""
    transport, metadata = MemoryTransport(), MemoryMetadata()
    bus = MemoryBus(BusSettings(**settings))
    edgex = EdgexBus(transport)
    devices = DeviceCache(cast(MetadataClient, metadata))
    await devices.subscribe(edgex)
    context = WebContext(key=key, version="4.0.0", config=dict, store_secret=None)
    async with asyncio.TaskGroup() as tasks:
        fake = SimpleNamespace(
            key=key, base_url="http://127.0.0.1:59999", app=make_app(context), settings=bus.settings,
            config=MemoryConfig(), bus=bus, edgex=edgex, metadata=metadata, devices=devices, tasks=tasks,
            transport=transport, metrics=Metrics(), encoding=PLAIN,
        )  # fmt: skip
        fake.service = cast(EdgexService, fake)
        yield fake
