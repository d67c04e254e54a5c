"""A device service's own entries in core-metadata: itself, its profiles and its devices, as its files say.

Idempotent: what is there already and equal is left alone, what differs is updated, what belongs to another
service is never touched. The states of a device (locked, down) are the owner's and stay as they are.

Source: edgex-wire.md section 5.1; EdgeX device profile and device files.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel

from edgeagents.adapters.auto_events import parse_interval_s
from edgeagents.adapters.edgex import MetadataClient
from edgeagents.adapters.files import load_model
from edgeagents.errors import (
    ConfigurationError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    TheirError,
    UnavailableError,
    UpstreamError,
)
from edgeagents.model.device import Device, DeviceService, EdgexModel, Profile

log = logging.getLogger(__name__)

_RETRY_S: Final = 1.0
_OWNER_KEYS: Final = ("adminState", "operatingState", "serviceName", "name")
M = TypeVar("M", bound=BaseModel)


class DeviceFile(EdgexModel):
    """A device file: `deviceList:` and its devices."""

    device_list: tuple[Device, ...]


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a device service brings with it."""

    profiles: tuple[Profile, ...] = ()
    devices: tuple[Device, ...] = ()


def load_inventory(profiles: Path, devices: Path) -> Inventory:
    """Return the profiles and devices of two folders of YAML files in EdgeX's format.

    Raises:
        ConfigurationError: a folder is missing, a file is wrong, a name is there twice, or names do not fit together.
    """
    profile_files = [(path, load_model(Profile, path)) for path in _yaml_files(profiles)]
    device_files = [
        (path, device) for path in _yaml_files(devices) for device in load_model(DeviceFile, path).device_list
    ]
    known: dict[str, Profile] = {}
    for path, profile in profile_files:
        if profile.name in known:
            raise ConfigurationError(f"{path}: name: another file holds profile {profile.name!r} already: rename one")
        check_profile(path, profile)
        known[profile.name] = profile
    names: set[str] = set()
    for path, device in device_files:
        if device.name in names:
            raise ConfigurationError(f"{path}: name: device {device.name!r} is there twice: rename one")
        names.add(device.name)
        check_device(path, device, known.get(device.profile_name))
    return Inventory(tuple(known.values()), tuple(device for _, device in device_files))


def check_profile(path: Path, profile: Profile) -> None:
    """Refuse a profile whose commands name resources it does not have.

    Raises:
        ConfigurationError: names file, command and resource.
    """
    for command in profile.device_commands:
        for operation in command.resource_operations:
            if profile.resource(operation.device_resource) is None:
                raise ConfigurationError(
                    f"{path}: deviceCommands: {command.name}: no device resource {operation.device_resource!r}"
                    " in this profile: correct the name"
                )


def check_device(path: Path, device: Device, profile: Profile | None) -> None:
    """Refuse a device whose auto events cannot work; with `profile` None, sources are not checked.

    Raises:
        ConfigurationError: names file, device and field.
    """
    for index, auto_event in enumerate(device.auto_events):
        where = f"{path}: {device.name}: autoEvents[{index}]"
        try:
            parse_interval_s(auto_event.interval)
        except InvalidInputError as error:
            raise ConfigurationError(f"{where}.interval: {error}") from error
        source = auto_event.source_name
        if profile is not None and profile.resource(source) is None and profile.command(source) is None:
            raise ConfigurationError(
                f"{where}.sourceName: profile {profile.name!r} has no resource or command {source!r}: correct the name"
            )


def _yaml_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ConfigurationError(f"{folder}: no such folder: it holds profiles or devices as YAML files")
    return sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])


# --- core-metadata -------------------------------------------------------------------------------


async def provision(
    metadata: MetadataClient, key: str, base_url: str, inventory: Inventory, *, labels: Sequence[str] = ()
) -> DeviceService:
    """Bring core-metadata to what the service is and has, and return its entry; waits while core-metadata is away.

    Raises:
        ConfigurationError: core-metadata refuses the service, a profile or a device.
    """
    told = False
    while True:
        try:
            service = await _provision_once(metadata, key, base_url, inventory, labels)
        except (UnavailableError, UpstreamError, ConflictError) as error:
            # A conflict is an earlier attempt whose answer was lost: the next one finds what it added.
            if not told:
                log.warning("%s is not in core-metadata yet: %s: trying on", key, error)
                told = True
            await asyncio.sleep(_RETRY_S)
            continue
        except TheirError as error:
            raise ConfigurationError(f"core-metadata refuses what {key} brings: {error}") from error
        log.info("%s: %d profiles, %d devices in core-metadata", key, len(inventory.profiles), len(inventory.devices))
        return service


async def _provision_once(
    metadata: MetadataClient, key: str, base_url: str, inventory: Inventory, labels: Sequence[str]
) -> DeviceService:
    own = DeviceService(name=key, base_address=base_url, labels=tuple(labels))
    service = await _ensure_service(metadata, own)
    for profile in inventory.profiles:
        await _ensure_profile(metadata, profile)
    for device in inventory.devices:
        await _ensure_device(metadata, device.model_copy(update={"service_name": key}))
    return service


async def _ensure_service(metadata: MetadataClient, service: DeviceService) -> DeviceService:
    try:
        found = await metadata.service(service.name)
    except NotFoundError:
        await metadata.add_service(service)
        return service
    if found.base_address != service.base_address:
        await metadata.update_service(service.name, {"baseAddress": service.base_address})
    return found


async def _ensure_profile(metadata: MetadataClient, profile: Profile) -> None:
    try:
        found = await metadata.profile(profile.name)
    except NotFoundError:
        await metadata.add_profile(profile)
        return
    if _bare(found) != _bare(profile):
        await metadata.update_profile(profile)


async def _ensure_device(metadata: MetadataClient, device: Device) -> None:
    try:
        found = await metadata.device(device.name)
    except NotFoundError:
        await metadata.add_device(device)
        return
    if found.service_name != device.service_name:
        log.error("device %s belongs to service %s: left alone, rename ours", device.name, found.service_name)
        return
    wanted, there = _bare(device), _bare(found)
    changes = {key: value for key, value in wanted.items() if there.get(key) != value and key not in _OWNER_KEYS}
    changes |= {key: [] for key in ("labels", "autoEvents") if key in there and key not in wanted}
    if changes:
        log.info("device %s: %s updated", device.name, ", ".join(changes))
        await metadata.update_device(device.name, changes)


def _bare(item: EdgexModel) -> dict[str, Any]:
    """Return an item as on the wire, without what is empty: EdgeX leaves some of it out and adds some."""
    body: dict[str, Any] = _without_empty(item.to_wire())
    return body


def _without_empty(value: Any) -> Any:
    if isinstance(value, Mapping):
        kept = {key: _without_empty(item) for key, item in value.items()}
        if not any(kept.get("retention", {"": 1}).values()):
            del kept["retention"]  # EdgeX writes one that keeps nothing
        return {key: item for key, item in kept.items() if item not in (None, "", [], {})}
    if isinstance(value, (list, tuple)):
        return [_without_empty(item) for item in value]
    return value
