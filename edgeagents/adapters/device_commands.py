"""GET and SET of one device, planned from its profile: which resources, which values, which event comes out.

Pure: no driver is called here and no clock read. `adapters/device_service.py` carries the plans out.
Names a SET does not know are ignored and missing ones take their defaults, as in EdgeX; a missing one without
a default is refused as bad input (EdgeX: 500). Mappings apply to the device command that declares them, not
to a resource read by its own name, so that a read-back proves the value that was set.

Source: edgex-wire.md sections 5.1 and 5.3; recordings of EdgeX 4.0.2.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from edgeagents.adapters.transforms import for_device, for_reading, parameter_value
from edgeagents.errors import EdgeAgentsError, InvalidInputError, LockedError, NotAllowedError, NotFoundError
from edgeagents.model.device import Device, DeviceResource, Event, Profile, ResourceOperation, make_reading
from edgeagents.model.values import Value

_LONGEST_PATTERN: Final = 200
PUSH_EVENT: Final = "ds-pushevent"
RETURN_EVENT: Final = "ds-returnevent"
REGEX_COMMAND: Final = "ds-regexcmd"


@dataclass(frozen=True, slots=True)
class Options:
    """What a service's `Device` configuration says about commands."""

    transform: bool = True
    most_operations: int = 128
    units: bool = True


@dataclass(frozen=True, slots=True)
class Query:
    """The reserved parameters of a GET."""

    push_event: bool = False
    return_event: bool = True
    regex: bool = True


@dataclass(frozen=True, slots=True)
class Part:
    """One resource of a GET, with the mapping of the command that reads it."""

    resource: DeviceResource
    mappings: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Write:
    """One resource of a SET: the value as EdgeX shows it, and as the device takes it."""

    resource: DeviceResource
    shown: Value
    raw: Value


def parse_query(query: Mapping[str, str]) -> Query:
    """Return the reserved parameters; others are the driver's and ignored here.

    Raises:
        InvalidInputError: neither `true` nor `false`.
    """
    words = {}
    for name, default in ((PUSH_EVENT, "false"), (RETURN_EVENT, "true"), (REGEX_COMMAND, "true")):
        words[name] = query.get(name, default) or default
        if words[name] not in ("true", "false"):
            raise InvalidInputError(f"invalid query parameter, {words[name]} has to be true or false")
    return Query(*(words[name] == "true" for name in (PUSH_EVENT, RETURN_EVENT, REGEX_COMMAND)))


def check_states(device: Device, service_is_locked: bool) -> None:
    """Refuse a command to a device that may not be used now.

    Raises:
        LockedError: the service or the device is locked, or the device is down.
    """
    if service_is_locked:
        raise LockedError("service locked")
    if device.admin_state == "LOCKED":
        raise LockedError(f"device {device.name} locked")
    if device.operating_state == "DOWN":
        raise LockedError(f"device {device.name} OperatingState is DOWN")


def plan_read(
    profile: Profile, device: str, command: str, *, regex: bool = True, most_operations: int = 128
) -> list[Part]:
    """Return what a GET reads: a device command's resources, one resource, or those a pattern names in full.

    Raises:
        NotFoundError: neither command nor resource.
        NotAllowedError: write-only.
        EdgeAgentsError: the profile contradicts itself, or the command is too long.
    """
    found = profile.command(command)
    if found is not None:
        if "R" not in found.read_write:
            raise NotAllowedError(f"DeviceCommand {command} is marked as write-only")
        operations = _operations(profile, device, command, found.resource_operations, "GET", most_operations)
        return [Part(resource, operation.mappings) for resource, operation in operations]
    resource = profile.resource(command)
    if resource is not None and (resource.properties.is_readable or not regex):
        if not resource.properties.is_readable:
            raise NotAllowedError(f"DeviceResource {command} is marked as write-only")
        return [Part(resource)]
    if not regex:
        raise NotFoundError(f"DeviceResource {command} not found")
    matching = [item for item in profile.device_resources if _matches(command, item.name)]
    if not matching:
        raise NotFoundError(f"Regex DeviceResource {command} not found")
    readable = [Part(item) for item in matching if item.properties.is_readable]
    if not readable:
        raise NotAllowedError(f"no readable resources matched with {command}")
    return readable


def _matches(pattern: str, name: str) -> bool:
    if pattern == name:
        return True
    if len(pattern) > _LONGEST_PATTERN:
        return False
    try:
        return re.fullmatch(pattern, name) is not None
    except re.error:
        return False


def plan_write(
    profile: Profile, device: str, command: str, settings: Mapping[str, Any], options: Options
) -> list[Write]:
    """Return what a SET writes, defaults, mappings, limits and transforms applied.

    Raises:
        NotFoundError: neither command nor resource.
        NotAllowedError: read-only.
        InvalidInputError: a value is missing, no value of its type, or outside its limits.
        EdgeAgentsError: the profile contradicts itself, or the command is too long.
    """
    found = profile.command(command)
    if found is None:
        resource = profile.resource(command)
        if resource is None:
            raise NotFoundError(f"DeviceResource {command} not found")
        if not resource.properties.is_writable:
            raise NotAllowedError(f"DeviceResource {command} is marked as read-only")
        return [_write(resource, _given(resource, "", settings), options)]
    if "W" not in found.read_write:
        raise NotAllowedError(f"DeviceCommand {command} is marked as read-only")
    operations = _operations(profile, device, command, found.resource_operations, "SET", options.most_operations)
    return [
        _write(resource, _unmapped(operation, _given(resource, operation.default_value, settings)), options)
        for resource, operation in operations
    ]


def _operations(
    profile: Profile, device: str, command: str, operations: Sequence[ResourceOperation], verb: str, most: int
) -> list[tuple[DeviceResource, ResourceOperation]]:
    if len(operations) > most:
        raise EdgeAgentsError(f"{verb} command {command} exceed device {device} MaxCmdOps ({most})")
    result = []
    for operation in operations:
        resource = profile.resource(operation.device_resource)
        if resource is None:
            raise EdgeAgentsError(
                f"DeviceResource {operation.device_resource} in {verb} command {command} for {device} not defined"
            )
        result.append((resource, operation))
    return result


def _given(resource: DeviceResource, default: str, settings: Mapping[str, Any]) -> Any:
    given = settings.get(resource.name)
    if given is not None:
        return given
    value = default or resource.properties.default_value
    if not value:
        raise InvalidInputError(
            f"DeviceResource {resource.name} not found in request body and no default value defined"
        )
    return value


def _unmapped(operation: ResourceOperation, given: Any) -> Any:
    # A mapping reads key -> value; what is set is a mapped value, so it is looked up the other way round.
    return next((key for key, mapped in (operation.mappings or {}).items() if mapped == given), given)


def _write(resource: DeviceResource, given: Any, options: Options) -> Write:
    shown = parameter_value(resource, given)
    return Write(resource, shown, for_device(resource, shown, transform=options.transform))


def make_event(
    device: Device,
    source: str,
    parts: Sequence[Part],
    raw: Sequence[Value],
    *,
    origin_ns: int,
    make_id: Callable[[], str],
    options: Options,
) -> Event:
    """Return the event that a driver's values make.

    Raises:
        EdgeAgentsError: the driver gave other values than asked for, or an assertion does not hold.
    """
    if len(parts) != len(raw):
        raise EdgeAgentsError(f"driver read {len(raw)} values of {device.name}, not {len(parts)}")
    readings = []
    for part, value in zip(parts, raw, strict=True):
        resource = part.resource
        try:
            kind, shown = for_reading(resource, value, part.mappings, transform=options.transform)
        except InvalidInputError as error:
            raise EdgeAgentsError(
                f"driver read {resource.name} of {device.name} as {type(value).__name__}: {error}"
            ) from error
        readings.append(
            make_reading(
                device.name,
                device.profile_name,
                resource.name,
                kind,
                shown,
                origin_ns,
                reading_id=make_id(),
                units=resource.properties.units if options.units else "",
                media_type=resource.properties.media_type,
            )
        )
    return Event(
        id=make_id(), device_name=device.name, profile_name=device.profile_name, source_name=source,
        origin=origin_ns, readings=tuple(readings),
    )  # fmt: skip


def written_event(
    device: Device,
    source: str,
    writes: Sequence[Write],
    *,
    origin_ns: int,
    make_id: Callable[[], str],
    options: Options,
) -> Event | None:
    """Return the event that tells of a SET, None when nothing of it can be read."""
    told = [write for write in writes if write.resource.properties.is_readable]
    if not told:
        return None
    parts, raw = [Part(write.resource) for write in told], [write.raw for write in told]
    return make_event(device, source, parts, raw, origin_ns=origin_ns, make_id=make_id, options=options)


def event_to_wire(event: Event) -> dict[str, Any]:
    """Return an event as EdgeX writes it: empty optional keys left out, a null reading with its three nulls.

    What was unknown on receipt goes out as it came in.
    """
    body = event.to_wire() | (event.model_extra or {})
    body["readings"] = []
    for reading in event.readings:
        fields = {key: value for key, value in reading.to_wire().items() if value != ""}
        if not fields.keys() & {"value", "binaryValue", "objectValue"}:
            empty_text = reading.value == ""
            fields |= {"value": ""} if empty_text else {"value": None, "binaryValue": None, "objectValue": None}
        body["readings"].append(fields | (reading.model_extra or {}))
    return body
