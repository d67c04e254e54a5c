"""An EdgeX device service in async Python, around any driver: registers, answers commands, publishes auto events.

The driver knows its devices' own protocol and nothing of EdgeX. Everything else stands here: entries in
core-metadata, device validation, GET and SET over the bus and over REST as core-command calls them, auto
events. Commands of one device are carried out one after the other, in the order they came; a SET that was
begun is finished and written down although its caller has gone.
Left out on purpose: discovery, provision watchers, and marking a device down when it fails.

Source: edgex-wire.md sections 1.3, 5.1, 5.3; recordings of EdgeX 4.0.2.
"""

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from edgeagents.adapters import telemetry
from edgeagents.adapters.auto_events import AutoEvents, parse_interval_s
from edgeagents.adapters.bootstrap import EdgexService
from edgeagents.adapters.device_cache import Change
from edgeagents.adapters.device_commands import (
    Options,
    Query,
    Write,
    check_states,
    make_event,
    plan_read,
    plan_write,
    written_event,
)
from edgeagents.adapters.device_requests import BusDoor, add_routes
from edgeagents.adapters.event_publisher import EventPublisher, StreamSink, TopicSink
from edgeagents.adapters.provisioning import Inventory, provision
from edgeagents.adapters.transforms import parameter_text
from edgeagents.errors import (
    DeviceSilentError,
    EdgeAgentsError,
    InvalidInputError,
    NotFoundError,
    TheirError,
)
from edgeagents.journal import Journal
from edgeagents.model.device import Device, DeviceResource, Event, Profile
from edgeagents.model.values import Value
from edgeagents.settings import PREFIX

log = logging.getLogger(__name__)

_CACHE_WAIT_S: Final = 3.0
_DRAIN_S: Final = 2.0
T = TypeVar("T")


class Driver(Protocol):
    """What speaks the devices' own protocol."""

    async def read(self, device: Device, resources: Sequence[DeviceResource]) -> Sequence[Value]:
        """Return one value for each resource; None is a null reading.

        Raises:
            EdgeAgentsError: it cannot be read.
        """

    async def write(self, device: Device, writes: Sequence[tuple[DeviceResource, Value]], correlation_id: str) -> None:
        """Set all values; what is returned from is done and survives a crash.

        Raises:
            InvalidInputError: certainly not done.
            EdgeAgentsError: it failed.
        """

    def validate(self, device: Device) -> str | None:
        """Return None when the device is acceptable, else the reason."""


class DeviceServiceSettings(BaseSettings):
    """How a device service's events go out, and whether it keeps a journal."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True)

    events_stream: bool = Field(
        True, description="send events until the stream edgex-events holds them; needs an EdgeX that speaks MQTT"
    )
    events_backlog: int = Field(10_000, gt=0, description="events kept while the broker is away")
    journal_dir: Path | None = Field(None, description="folder for the journal; unset: no journal")
    driver_timeout_s: float = Field(4.0, gt=0, description="longest wait for the driver, below Service/RequestTimeout")


@dataclass
class Counters:
    """What happened since the start."""

    gets: int = 0
    sets: int = 0
    refused: int = 0


class DeviceService:
    """The running service; `serve_devices` makes one."""

    def __init__(
        self, service: EdgexService, driver: Driver, publisher: EventPublisher, journal: Journal,
        settings: DeviceServiceSettings,
    ) -> None:  # fmt: skip
        """Join the parts; nothing is subscribed yet."""
        self.service = service
        self.driver = driver
        self.publisher = publisher
        self.counters = Counters()
        self.is_locked = False
        self._heard_state = False
        self._journal = journal
        self._settings = settings
        self._locks: dict[str, asyncio.Lock] = {}
        self._working: set[asyncio.Task[None]] = set()
        self.is_provisioned = False  # all that we bring is in core-metadata
        self.auto_events = AutoEvents(self._read_auto, self.publish, service.tasks)

    # --- devices ---------------------------------------------------------------------------------

    def own_devices(self) -> list[Device]:
        """Return the devices of this service, its own and those assigned to it over REST."""
        return [device for device in self.service.devices.all() if device.service_name == self.service.key]

    def follow_devices(self, change: Change | None = None) -> None:
        """Let auto events follow the devices there are now."""
        devices = self.own_devices()
        self.auto_events.follow(devices)
        for name in self._locks.keys() - {device.name for device in devices}:
            if not self._locks[name].locked():
                del self._locks[name]

    def refusal(self, device: Device) -> str | None:
        """Return why a device cannot be taken, None when it can."""
        if any(letter.isspace() or letter in "/+#*>" for letter in device.name):
            return f"device name {device.name!r} cannot be part of a topic: no blanks, none of / + # * >"
        for auto_event in device.auto_events:
            try:
                parse_interval_s(auto_event.interval)
            except InvalidInputError as error:
                return f"auto event of {auto_event.source_name}: {error}"
        return self.driver.validate(device)

    async def _find(self, name: str) -> tuple[Device, Profile]:
        await self.service.devices.wait_ready(_CACHE_WAIT_S)
        device = self.service.devices.device(name)
        if device is None or device.service_name != self.service.key:
            raise NotFoundError(f"device {name} not found")
        check_states(device, self.is_locked)
        profile = self.service.devices.profile(device.profile_name)
        if profile is None:
            raise NotFoundError(f"no profile {device.profile_name!r} for device {name}")
        return device, profile

    # --- commands --------------------------------------------------------------------------------

    async def get(self, name: str, command: str, query: Query | None = None, correlation_id: str = "") -> Event:
        """Read a resource or a device command now; with `push_event` the event is published too.

        Raises:
            NotFoundError: no such device or command.
            NotAllowedError: write-only.
            LockedError: the service or device is locked, or the device is down.
            DeviceSilentError: the driver did not answer in time.
            EdgeAgentsError: the driver failed.
        """
        asked = query or Query()
        device, profile = await self._find(name)
        options = self.options()
        parts = plan_read(profile, name, command, regex=asked.regex, most_operations=options.most_operations)
        async with self._lock(name):
            reading = self.driver.read(device, [part.resource for part in parts])
            raw = await self._driven(reading, f"error reading {command} for {name}")
        event = make_event(device, command, parts, raw, origin_ns=time.time_ns(), make_id=_new_id, options=options)
        self.counters.gets += 1
        if asked.push_event:
            self.publish(event, correlation_id)
        return event

    async def set(self, name: str, command: str, settings: Mapping[str, Any], correlation_id: str) -> None:
        """Write a resource or a device command; done and written down although the caller is cancelled.

        Raises:
            InvalidInputError: a value is missing, no value of its type, or outside its limits.
            NotFoundError: no such device or command.
            NotAllowedError: read-only.
            LockedError: the service or device is locked, or the device is down.
            DeviceSilentError: the driver did not answer in time.
            EdgeAgentsError: the driver failed.
        """
        received_ns = time.time_ns()
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def work() -> None:
            try:
                await self._set(name, command, settings, correlation_id, received_ns)
            except EdgeAgentsError as error:
                self.counters.refused += 1
                for resource, value in settings.items():
                    self._write_down(correlation_id, name, resource, parameter_text(value), received_ns, str(error))
                if not answer.done():
                    answer.set_exception(error)
            else:
                self.counters.sets += 1
                if not answer.done():
                    answer.set_result(None)

        task = self.service.tasks.create_task(work())
        self._working.add(task)
        task.add_done_callback(self._working.discard)
        await answer

    async def _set(
        self, name: str, command: str, settings: Mapping[str, Any], correlation_id: str, received_ns: int
    ) -> None:
        device, profile = await self._find(name)
        options = self.options()
        writes = plan_write(profile, name, command, settings, options)
        async with self._lock(name):
            writing = self.driver.write(device, [(write.resource, write.raw) for write in writes], correlation_id)
            with telemetry.span("driver write", {"edgex.device": name, "edgex.command": command}):
                await self._driven(writing, f"error writing {command} for {name}")
        for write in writes:
            self._write_down(correlation_id, name, write.resource.name, _journal_text(write), received_ns)
        event = written_event(device, command, writes, origin_ns=time.time_ns(), make_id=_new_id, options=options)
        if event is not None:
            self.publish(event, correlation_id)

    async def _driven(self, work: Awaitable[T], what: str) -> T:
        try:
            async with asyncio.timeout(self._settings.driver_timeout_s):
                return await work
        except TimeoutError as error:
            raise DeviceSilentError(f"{what}: no answer in {self._settings.driver_timeout_s:g} s") from error
        except TheirError:
            raise
        except EdgeAgentsError as error:
            raise EdgeAgentsError(f"{what} -> {error}") from error

    async def finish(self, timeout_s: float) -> None:
        """Wait for the SETs under way, for at most `timeout_s`."""
        if self._working:
            await asyncio.wait(self._working, timeout=timeout_s)

    async def bring_up(self, inventory: Inventory, labels: Sequence[str]) -> None:
        """Make core-metadata's entries, however long it is away.

        Raises:
            ConfigurationError: core-metadata refuses one.
        """
        service = self.service
        entry = await provision(service.metadata, service.key, service.base_url, inventory, labels=labels)
        self.is_provisioned = True
        if not self._heard_state:  # a notice is newer than what was read meanwhile
            self.is_locked = entry.admin_state == "LOCKED"

    def hear_admin_state(self, state: str) -> None:
        """Lock or unlock all devices at once, as core-metadata's notice about this service says."""
        self._heard_state = True
        self.is_locked = state == "LOCKED"

    def publish(self, event: Event, correlation_id: str = "") -> None:
        """Queue an event for the bus; never waits."""
        self.publisher.offer(event, correlation_id)

    def options(self) -> Options:
        """Return what the configuration says about commands now."""
        config = self.service.config
        return Options(
            transform=bool(config.get("Device/DataTransform", True)),
            most_operations=int(config.get("Device/MaxCmdOps", 128)),
            units=bool(config.get("Writable/Reading/ReadingUnits", True)),
        )

    async def _read_auto(self, device: str, source: str) -> Event:
        return await self.get(device, source, Query(regex=False))

    def _lock(self, device: str) -> asyncio.Lock:
        return self._locks.setdefault(device, asyncio.Lock())

    def _write_down(
        self, correlation_id: str, device: str, resource: str, value: str, received_ns: int, error: str = ""
    ) -> None:
        more = {"error": error} if error else {}
        self._journal.write(
            "set", correlation=correlation_id, device=device, resource=resource, value=value,
            received_ns=received_ns, applied=not error, **more,
        )  # fmt: skip


def _new_id() -> str:
    return str(uuid.uuid4())


def _journal_text(write: Write) -> str:
    shown = write.shown
    return f"<{len(shown)} bytes>" if isinstance(shown, bytes) else parameter_text(shown)


@contextlib.asynccontextmanager
async def serve_devices(
    service: EdgexService,
    driver: Driver,
    inventory: Inventory | None = None,
    *,
    settings: DeviceServiceSettings | None = None,
    journal: Journal | None = None,
    labels: Sequence[str] = (),
) -> AsyncIterator[DeviceService]:
    """Run a device service while the context is open: to be used in the `build` of an EdgexService.

    Args:
        service: of kind `device`; its routes, subscriptions and tasks are added.
        driver: speaks the devices' protocol.
        inventory: profiles and devices it brings; others may be assigned to it over REST.
        settings: read from the environment when None.
        journal: closed at the end; when None, one named after the service, if the settings name a folder.
        labels: of the service in core-metadata.
    """
    own = settings or DeviceServiceSettings()
    journal = journal or Journal.in_folder(own.journal_dir, service.key)
    to_stream = own.events_stream and service.settings.edgex_bus == "mqtt"
    base = service.edgex.base
    sink = StreamSink(service.bus, base, service.encoding) if to_stream else TopicSink(service.bus, service.edgex)
    publisher = EventPublisher(service.key, sink, journal, backlog=own.events_backlog, bus=service.settings.edgex_bus)
    devices = DeviceService(service, driver, publisher, journal, own)
    service.metrics.counter("EventsSent", read=lambda: publisher.published)
    service.metrics.counter("ReadingsSent", read=lambda: publisher.readings)
    door = BusDoor(service.key, service.edgex, devices, service.tasks, devices.hear_admin_state)
    await door.open()
    add_routes(service.app, devices, service.encoding)
    forget = service.devices.on_change(devices.follow_devices)
    devices.follow_devices()
    tasks = [
        service.tasks.create_task(publisher.run()),
        service.tasks.create_task(devices.bring_up(inventory or Inventory(), labels)),
    ]
    try:
        yield devices
    finally:
        forget()
        await door.close()
        devices.auto_events.stop()
        await devices.finish(_DRAIN_S)
        if not await publisher.drain(_DRAIN_S):
            log.warning("%d events were not sent before the end", publisher.waiting)
        for task in tasks:
            task.cancel()
        journal.close()
