"""The objects that EdgeX's core services take and give, as shapes, and the rules that span several fields.

Source: recordings of EdgeX 4.0.2; go-mod-core-contracts 4.0.3 for what the recordings do not reach.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from edgeagents.embedded.http import UndecodableError
from edgeagents.embedded.validation import (
    NOT_BLANK,
    NOT_NEGATIVE,
    URI,
    UUID,
    VALUE_TYPE,
    Field,
    Shape,
    duration,
    is_uuid,
    one_of,
    read,
)
from edgeagents.errors import InvalidInputError
from edgeagents.model.values import value_type

Row = dict[str, Any]

_ADMIN: Final = one_of("LOCKED", "UNLOCKED")
_OPERATING: Final = one_of("UP", "DOWN", "UNKNOWN")
_READ_WRITE: Final = one_of("R", "W", "RW", "WR")

_SERVICE_FIELDS: Final = (
    Field("Name", "text", required=True, checks=(NOT_BLANK,)),
    Field("Description", "text"),
    Field("Labels", "texts"),
    Field("BaseAddress", "text", required=True, checks=(URI,)),
    Field("AdminState", "text", checks=(_ADMIN,), checked_empty=True),
    Field("Properties", "map", kept=True),
)
_AUTO_EVENT: Final = Shape(
    (
        Field("Interval", "text", required=True, checks=(duration("1ms"),)),
        Field("OnChange", "bool", kept=True),
        Field("OnChangeThreshold", "number", checks=(NOT_NEGATIVE,), kept=True),
        Field("SourceName", "text", required=True),
        Field(
            "Retention",
            Shape(
                (
                    Field("MaxCap", "int", kept=True),
                    Field("MinCap", "int", kept=True),
                    Field("Duration", "text", checks=(duration("0s"),), kept=True),
                )
            ),
            kept=True,
        ),
    )
)
_DEVICE_FIELDS: Final = (
    Field("Name", "text", required=True, checks=(NOT_BLANK,)),
    Field("Parent", "text"),
    Field("Description", "text"),
    Field("AdminState", "text", checks=(_ADMIN,), checked_empty=True),
    Field("OperatingState", "text", checks=(_OPERATING,), checked_empty=True),
    Field("Labels", "texts"),
    Field("Location", "any"),
    Field("ServiceName", "text", required=True, checks=(NOT_BLANK,)),
    Field("ProfileName", "text"),
    Field("AutoEvents", _AUTO_EVENT, many=True),
    Field("Protocols", "map of maps", required=True, kept=True),
    Field("Tags", "map"),
    Field("Properties", "map", kept=True),
)
_RESOURCE_PROPERTIES: Final = Shape(
    (
        Field("ValueType", "text", required=True, checks=(VALUE_TYPE,)),
        Field("ReadWrite", "text", required=True, checks=(_READ_WRITE,)),
        Field("Units", "text"),
        Field("Minimum", "number", nullable=True),
        Field("Maximum", "number", nullable=True),
        Field("DefaultValue", "text"),
        Field("Mask", "int", nullable=True),
        Field("Shift", "int", nullable=True),
        Field("Scale", "number", nullable=True),
        Field("Offset", "number", nullable=True),
        Field("Base", "number", nullable=True),
        Field("Assertion", "text"),
        Field("MediaType", "text"),
        Field("Optional", "map"),
    )
)
_RESOURCE: Final = Shape(
    (
        Field("Description", "text"),
        Field("Name", "text", required=True, checks=(NOT_BLANK,)),
        Field("IsHidden", "bool", kept=True),
        Field("Properties", _RESOURCE_PROPERTIES, kept=True),
        Field("Attributes", "map"),
        Field("Tags", "map"),
    )
)
_COMMAND: Final = Shape(
    (
        Field("Name", "text", required=True, checks=(NOT_BLANK,)),
        Field("IsHidden", "bool", kept=True),
        Field("ReadWrite", "text", required=True, checks=(_READ_WRITE,)),
        Field(
            "ResourceOperations",
            Shape(
                (
                    Field("DeviceResource", "text", required=True),
                    Field("DefaultValue", "text"),
                    Field("Mappings", "map of text"),
                )
            ),
            many=True,
            at_least_one=True,
            kept=True,
        ),
        Field("Tags", "map"),
    )
)
_BASICS: Final = (
    Field("Name", "text", required=True, checks=(NOT_BLANK,)),
    Field("Manufacturer", "text"),
    Field("Description", "text"),
    Field("Model", "text"),
    Field("Labels", "texts"),
)
_PROFILE: Final = Shape(
    (
        *_BASICS,
        Field("DeviceResources", _RESOURCE, many=True, kept=True),
        Field("DeviceCommands", _COMMAND, many=True, kept=True),
    )
)
_REGISTRATION: Final = Shape(
    (
        Field("ServiceId", "text", required=True),
        Field("Status", "text", kept=True),
        Field("Host", "text", required=True),
        Field("Port", "int", required=True),
        Field(
            "HealthCheck",
            Shape(
                (
                    Field("Interval", "text", required=True, checks=(duration(),)),
                    Field("Path", "text", required=True),
                    Field("Type", "text", required=True),
                )
            ),
            kept=True,
            key="HealthCheck",
        ),
    )
)


def _partial(fields: tuple[Field, ...]) -> Shape:
    """Return a shape for changes: what is absent stays as it is, and the object is named by id or by name."""
    optional = (replace(field, required=False, nullable=True) for field in fields)
    return Shape((Field("Id", "text", checks=(UUID,)), *optional))


def _changes(part: Shape) -> Shape:
    """Return a shape for what of a profile's part can be changed, the part being named."""
    fields = {field.name: field for field in part.fields}
    can_change = (fields[name] for name in ("Description", "IsHidden") if name in fields)
    return Shape((fields["Name"], *(replace(field, nullable=True) for field in can_change)))


@dataclass(frozen=True, slots=True)
class Request:
    """A request's name in Go, the field that holds its object, and the object's shape."""

    name: str
    part: str
    shape: Shape
    of_profile: bool = False  # the request names the profile that the object is a part of


ADD_SERVICE: Final = Request("AddDeviceServiceRequest", "Service", Shape(_SERVICE_FIELDS))
UPDATE_SERVICE: Final = Request("UpdateDeviceServiceRequest", "Service", _partial(_SERVICE_FIELDS))
ADD_DEVICE: Final = Request("AddDeviceRequest", "Device", Shape(_DEVICE_FIELDS))
UPDATE_DEVICE: Final = Request("UpdateDeviceRequest", "Device", _partial(_DEVICE_FIELDS))
PROFILE: Final = Request("DeviceProfileRequest", "Profile", _PROFILE)
REGISTRATION: Final = Request("AddRegistrationRequest", "Registration", _REGISTRATION)
PATCH_BASICS: Final = Request("DeviceProfileBasicInfoRequest", "BasicInfo", _partial(_BASICS))
ADD_RESOURCE: Final = Request("AddDeviceResourceRequest", "Resource", _RESOURCE, of_profile=True)
PATCH_RESOURCE: Final = Request("UpdateDeviceResourceRequest", "Resource", _changes(_RESOURCE), of_profile=True)
ADD_COMMAND: Final = Request("AddDeviceCommandRequest", "DeviceCommand", _COMMAND, of_profile=True)
PATCH_COMMAND: Final = Request("UpdateDeviceCommandRequest", "DeviceCommand", _changes(_COMMAND), of_profile=True)
_BY_ID_OR_NAME: Final = (UPDATE_SERVICE, UPDATE_DEVICE, PATCH_BASICS)


@dataclass(frozen=True, slots=True)
class Item:
    """One object of a request, with the request id that its answer repeats."""

    request_id: str
    row: Row
    profile: str = ""


def read_one(request: Request, body: Any) -> Item:
    """Return the object of a request.

    Raises:
        UndecodableError: the body is no object.
        InvalidInputError: it breaks the shape; the text names every fault.
    """
    if not isinstance(body, dict):
        raise UndecodableError(f"json: cannot unmarshal {_go_kind(body)} into Go value of type requests.{request.name}")
    request_id, version = body.get("requestId") or "", body.get("apiVersion") or ""
    wrong = []
    if request_id and not (isinstance(request_id, str) and is_uuid(request_id)):
        wrong.append(f"{request.name}.BaseRequest.RequestId field needs a uuid")
    if not version:
        wrong.append(f"{request.name}.BaseRequest.Versionable.ApiVersion field is required")
    given = {str(key).lower(): value for key, value in body.items()}
    row, faults = read(request.shape, given.get(request.part.lower()), f"{request.name}.{request.part}")
    if request in _BY_ID_OR_NAME and "name" not in row and "id" not in row:
        for name, other in (("Id", "Name"), ("Name", "Id")):
            faults.append(f"{request.name}.{request.part}.{name} field is required if the {other} is not present")
    profile = given.get("profilename") or ""
    if request.of_profile and not (isinstance(profile, str) and profile.strip()):
        wrong.append(f"{request.name}.ProfileName field is required")
    if wrong + faults:
        raise InvalidInputError("; ".join(wrong + faults))
    return Item(request_id, row, profile if request.of_profile else "")


def read_many(request: Request, body: Any) -> list[Item]:
    """Return the objects of a list of requests; one wrong item refuses the whole list, as in EdgeX.

    Raises:
        UndecodableError: the body is no list of objects.
        InvalidInputError: an item breaks the shape.
    """
    if not isinstance(body, list):
        raise UndecodableError(
            f"json: cannot unmarshal {_go_kind(body)} into Go value of type []requests.{request.name}"
        )
    return [read_one(request, item) for item in body]


def _go_kind(body: Any) -> str:
    kinds: tuple[tuple[type | tuple[type, ...], str], ...] = (
        (bool, "bool"), (dict, "object"), (list, "array"), (str, "string"), ((int, float), "number"),
    )  # fmt: skip
    return next((name for kind, name in kinds if isinstance(body, kind)), "null")


# --- rules over several fields -------------------------------------------------------------------


def read_profile_file(body: Any) -> Row:
    """Return the profile in a decoded YAML file.

    Raises:
        InvalidInputError: it is none.
    """
    row, wrong = read(_PROFILE, body, "DeviceProfile", lenient=True)
    if wrong:
        raise InvalidInputError("; ".join(wrong))
    return row


def check_profile(profile: Row) -> Row:
    """Return a profile with its value types in EdgeX's spelling, when its parts fit together.

    Raises:
        InvalidInputError: a name twice, a command without its resource, or permissions that do not fit.
    """
    resources: dict[str, Row] = {}
    for resource in profile["deviceResources"]:
        properties = resource["properties"]
        properties["valueType"] = value_type(properties["valueType"])
        if properties["valueType"] == "Binary" and "W" in properties["readWrite"]:
            raise InvalidInputError(f"write permission not support Binary value type for resource '{resource['name']}'")
        if resource["name"] in resources:
            raise InvalidInputError(f"device resource {resource['name']} is duplicated")
        resources[resource["name"]] = resource
    seen: set[str] = set()
    for command in profile["deviceCommands"]:
        if command["name"] in seen:
            raise InvalidInputError(f"device command {command['name']} is duplicated")
        seen.add(command["name"])
        for fault in _command_faults(command, resources):
            raise InvalidInputError(fault)
    return profile


def _command_faults(command: Row, resources: dict[str, Row]) -> Iterator[str]:
    for operation in command["resourceOperations"]:
        name = operation["deviceResource"]
        if name not in resources:
            yield f"device command's resource {name} doesn't match any device resource"
        elif resources[name]["properties"]["readWrite"] not in ("RW", "WR", command["readWrite"]):
            yield (f"device command's ReadWrite permission '{command['readWrite']}' doesn't align the device resource")
