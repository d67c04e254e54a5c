"""Device, Profile, Event, Reading, as EdgeX names them, read from and written to EdgeX's JSON.

Unknown keys are ignored (events and readings keep them), missing optional ones take EdgeX's defaults: a newer EdgeX is
still understood.

Source: go-mod-core-contracts 4.0.3 as described in edgex-wire.md sections 2 and 5.
"""

import base64
import binascii
import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator
from pydantic.alias_generators import to_camel

from edgeagents.errors import InvalidInputError
from edgeagents.model.values import Value, check_value, format_value, parse_value, value_type


class EdgexModel(BaseModel):
    """Base of what EdgeX defines: camelCase on the wire, snake_case here, frozen, unknown keys ignored."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        alias_generator=to_camel,
        populate_by_name=True,
        allow_inf_nan=False,
        ser_json_inf_nan="constants",  # the default would turn a NaN within an object into null, silently
    )

    def to_wire(self) -> dict[str, Any]:
        """Return the JSON object EdgeX expects: camelCase keys, unset optional ones left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def _canonical(text: str) -> str:
    try:
        return value_type(text)
    except InvalidInputError as error:
        raise ValueError(str(error)) from error


ValueTypeName = Annotated[str, AfterValidator(_canonical)]
Name = Annotated[str, Field(min_length=1, max_length=512)]
Nanoseconds = Annotated[int, Field(ge=-(2**63), lt=2**63, description="since the epoch, as Go's int64 holds it")]
AdminState = Literal["LOCKED", "UNLOCKED"]
OperatingState = Literal["UP", "DOWN", "UNKNOWN"]


class Reading(EdgexModel):
    """One value of one resource. `value` is EdgeX's text; None in all three value keys is a null reading.

    Unknown keys are kept in `model_extra`, as EdgeX keeps its extensions.
    """

    model_config = ConfigDict(extra="allow")

    origin: Nanoseconds = 0
    device_name: str = ""
    resource_name: str = ""
    profile_name: str = ""
    value_type: ValueTypeName
    id: str = ""
    units: str = ""
    tags: dict[str, Any] | None = None
    value: str | int | float | bool | list[Any] | None = None
    binary_value: Annotated[str | None, Field(description="base64")] = None
    media_type: str = ""
    object_value: Any = None

    def decoded(self) -> Value:
        """Return the value itself; None for a null reading.

        Raises:
            InvalidInputError: the text is no value of the reading's type.
        """
        if self.value_type == "Binary":
            try:
                return None if self.binary_value is None else base64.b64decode(self.binary_value, validate=True)
            except (ValueError, binascii.Error) as error:
                raise InvalidInputError(f"binary value of {self.resource_name!r} is not base64") from error
        if self.value_type in ("Object", "ObjectArray"):
            found: Value = self.object_value
            return found
        if self.value is None:
            return None
        # core-data answers natural JSON when asked with numeric=true.
        return parse_value(self.value_type, self.value if isinstance(self.value, str) else _as_text(self.value))


def _as_text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, (bool, list)) else str(value)


class Event(EdgexModel):
    """What a device reported at one moment: at least one reading. Unknown keys are kept, as in a reading."""

    model_config = ConfigDict(extra="allow")

    api_version: str = "v3"
    id: Annotated[str, Field(min_length=1)]
    device_name: Name
    profile_name: str = ""
    source_name: str = ""
    origin: Annotated[Nanoseconds, Field(gt=0)]
    readings: Annotated[tuple[Reading, ...], Field(min_length=1)]
    tags: dict[str, Any] | None = None

    def reading(self, resource: str) -> Reading | None:
        """Return the reading of a resource, None if the event has none."""
        return next((reading for reading in self.readings if reading.resource_name == resource), None)


def make_reading(
    device: str,
    profile: str,
    resource: str,
    kind: str,
    value: Value,
    origin_ns: int,
    *,
    reading_id: str,
    units: str = "",
    media_type: str = "",
) -> Reading:
    """Return a reading that holds `value`, written as EdgeX writes it.

    Raises:
        InvalidInputError: the value does not fit the type.
    """
    fields: dict[str, Any] = {
        "id": reading_id, "origin": origin_ns, "device_name": device, "profile_name": profile,
        "resource_name": resource, "value_type": kind, "units": units, "media_type": media_type,
    }  # fmt: skip
    if value is None:
        return Reading(**fields)
    check_value(kind, value)
    if isinstance(value, bytes):
        fields["binary_value"] = base64.b64encode(value).decode()
    elif kind in ("Object", "ObjectArray"):
        fields["object_value"] = value
    else:
        fields["value"] = format_value(kind, value)
    return Reading(**fields)


class ResourceProperties(EdgexModel):
    """What a device resource's values look like."""

    value_type: ValueTypeName
    read_write: Literal["R", "W", "RW", "WR"]
    units: str = ""
    minimum: float | None = None
    maximum: float | None = None
    default_value: str = ""
    mask: int | None = None
    shift: int | None = None
    scale: float | None = None
    offset: float | None = None
    base: float | None = None
    assertion: str = ""
    media_type: str = ""
    optional: dict[str, Any] | None = None

    @field_validator("minimum", "maximum", "mask", "shift", "scale", "offset", "base", mode="before")
    @classmethod
    def _blank_is_none(cls, value: object) -> object:
        # Profiles written for EdgeX 3 hold these as text, empty when unset.
        return None if value == "" else value

    @property
    def is_readable(self) -> bool:
        """Whether the resource can be read."""
        return "R" in self.read_write

    @property
    def is_writable(self) -> bool:
        """Whether the resource can be written."""
        return "W" in self.read_write


class DeviceResource(EdgexModel):
    """One thing of a device that can be read or written."""

    name: Name
    description: str = ""
    is_hidden: bool = False
    properties: ResourceProperties
    attributes: dict[str, Any] | None = None
    tags: dict[str, Any] | None = None


class ResourceOperation(EdgexModel):
    """One resource within a device command."""

    device_resource: Name
    default_value: str = ""
    mappings: dict[str, str] | None = None


class DeviceCommand(EdgexModel):
    """Several resources read or written together."""

    name: Name
    is_hidden: bool = False
    read_write: Literal["R", "W", "RW", "WR"]
    resource_operations: tuple[ResourceOperation, ...]
    tags: dict[str, Any] | None = None


class Profile(EdgexModel):
    """A kind of device."""

    name: Name
    manufacturer: str = ""
    description: str = ""
    model: str = ""
    labels: tuple[str, ...] = ()
    device_resources: tuple[DeviceResource, ...] = ()
    device_commands: tuple[DeviceCommand, ...] = ()

    @field_validator("labels", "device_resources", "device_commands", mode="before")
    @classmethod
    def _null_is_empty(cls, value: object) -> object:
        return () if value is None else value

    def resource(self, name: str) -> DeviceResource | None:
        """Return a device resource by name, None if there is none."""
        return next((resource for resource in self.device_resources if resource.name == name), None)

    def command(self, name: str) -> DeviceCommand | None:
        """Return a device command by name, None if there is none."""
        return next((command for command in self.device_commands if command.name == name), None)

    def parameters(self, command: str) -> tuple[DeviceResource, ...]:
        """Return the resources that a command of this name sets: a device command's, or the one resource itself.

        Raises:
            InvalidInputError: the profile has neither, or it cannot be written.
        """
        found = self.command(command)
        if found is not None:
            if "W" not in found.read_write:
                raise InvalidInputError(f"command {command!r} of profile {self.name!r} is read-only")
            return tuple(self._known(operation.device_resource, command) for operation in found.resource_operations)
        resource = self.resource(command)
        if resource is None:
            raise InvalidInputError(f"profile {self.name!r} has no command or resource {command!r}")
        if not resource.properties.is_writable:
            raise InvalidInputError(f"resource {command!r} of profile {self.name!r} is read-only")
        return (resource,)

    def _known(self, name: str, command: str) -> DeviceResource:
        resource = self.resource(name)
        if resource is None:
            raise InvalidInputError(f"command {command!r} of profile {self.name!r} names no resource of it: {name!r}")
        return resource


class AutoEvent(EdgexModel):
    """A reading that a device service publishes by itself."""

    interval: str
    on_change: bool = False
    on_change_threshold: float = 0.0
    source_name: Name
    retention: dict[str, Any] | None = None


class Device(EdgexModel):
    """One device."""

    name: Name
    service_name: str = ""
    profile_name: str = ""
    description: str = ""
    admin_state: AdminState = "UNLOCKED"
    operating_state: OperatingState = "UP"
    labels: tuple[str, ...] = ()
    location: Any = None
    parent: str = ""
    tags: dict[str, Any] | None = None
    properties: dict[str, Any] | None = None
    protocols: dict[str, dict[str, Any]] = Field(default_factory=dict)
    auto_events: tuple[AutoEvent, ...] = ()

    @field_validator("labels", "auto_events", mode="before")
    @classmethod
    def _null_is_empty(cls, value: object) -> object:
        return () if value is None else value


class DeviceService(EdgexModel):
    """The service that speaks a device's own protocol."""

    name: Name
    base_address: str
    description: str = ""
    admin_state: AdminState = "UNLOCKED"
    labels: tuple[str, ...] = ()
    properties: dict[str, Any] | None = None

    @field_validator("labels", mode="before")
    @classmethod
    def _null_is_empty(cls, value: object) -> object:
        return () if value is None else value
