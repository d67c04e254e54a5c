"""EdgeX's core services as typed async clients: core-metadata, core-command, core-data.

A command that may have reached its device without a definite answer is a `DeviceSilentError`; one that
certainly did not leave is an `UnavailableError`. Everything else is the error core-command answered with.

Source: edgex-wire.md sections 5.1 to 5.4; recordings of EdgeX 4.0.2.
"""

import re
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from edgeagents.adapters.edgex_bus import EdgexBus
from edgeagents.adapters.event_payloads import restored
from edgeagents.adapters.rest import LastLook, Rest, Tokens, check_items, segment
from edgeagents.errors import (
    DeviceSilentError,
    InvalidInputError,
    RangeError,
    TheirError,
    UnavailableError,
    UpstreamError,
    error_for_status,
)
from edgeagents.model.device import Device, DeviceService, Event, Profile, Reading
from edgeagents.subjects import topic_level

PAGE: Final = 100
COMMAND_TIMEOUT_S: Final = 7.0  # longer than core-command's own 5 s, so that its answer still counts

# How a Go device service begins to say over the bus, without a status, that it did not even ask its driver.
_REFUSALS: Final = (
    (r"service locked$|device .+ locked$|device .+ OperatingState is DOWN$|no associated device profile$", 423),
    (r"device .+ not found$|DeviceResource .+ not found$", 404),
    (r"Device(Resource|Command) .+ is marked as (read|write)-only$", 405),
    (r"failed to create CommandValue\b", 400),
    (r"device service busy\b", 503),
)
_CORRELATION: Final = uuid.UUID("6d0f4a37-7b0b-4a53-8f57-3c1d2f0c9b1e")

M = TypeVar("M", bound=BaseModel)
ProfileOf = Callable[[str], Awaitable[Profile]]


class MetadataClient:
    """core-metadata: which devices, profiles and device services there are."""

    def __init__(self, rest: Rest) -> None:
        """Use core-metadata's REST interface."""
        self._rest = rest

    async def version(self) -> str:
        """Return core-metadata's version, such as `4.0.2`."""
        answer = await self._rest.call("GET", "/api/v3/version")
        return str(answer.get("version", "")) if isinstance(answer, dict) else ""

    async def devices(self, *, service: str = "", profile: str = "", labels: Sequence[str] = ()) -> list[Device]:
        """Return all devices, or those of one service, or of one profile; with labels: those that have all of them."""
        path = "/api/v3/device/all"
        if service:
            path = f"/api/v3/device/service/name/{segment(service)}"
        elif profile:
            path = f"/api/v3/device/profile/name/{segment(profile)}"
        return await self._pages(path, "devices", Device, labels)

    async def device(self, name: str) -> Device:
        """Return one device.

        Raises:
            NotFoundError: there is none of that name.
        """
        return await self._one(f"/api/v3/device/name/{segment(name)}", "device", Device)

    async def add_device(self, device: Device, *, validate: bool = True) -> None:
        """Add a device; its service is asked over the bus whether it takes it, unless `validate` is off.

        Raises:
            ConflictError: one of that name exists.
            InvalidInputError: its service or profile is unknown.
            UnavailableError: its service did not answer.
        """
        query = None if validate else {"bypassValidation": "true"}
        await self._items("POST", "/api/v3/device", "device", device.to_wire(), query)

    async def update_device(self, name: str, changes: Mapping[str, Any], *, validate: bool = True) -> None:
        """Change some keys of a device, named as on the wire (`{"adminState": "LOCKED"}`); `validate` as in adding.

        Raises:
            NotFoundError: there is none of that name.
            UnavailableError: its service did not answer.
        """
        query = None if validate else {"bypassValidation": "true"}
        await self._items("PATCH", "/api/v3/device", "device", {**changes, "name": name}, query)

    async def delete_device(self, name: str) -> None:
        """Delete a device.

        Raises:
            NotFoundError: there is none of that name.
        """
        await self._rest.call("DELETE", f"/api/v3/device/name/{segment(name)}")

    async def profiles(self, labels: Sequence[str] = ()) -> list[Profile]:
        """Return all profiles, or those that have all labels."""
        return await self._pages("/api/v3/deviceprofile/all", "profiles", Profile, labels)

    async def profile(self, name: str) -> Profile:
        """Return one profile.

        Raises:
            NotFoundError: there is none of that name.
        """
        return await self._one(f"/api/v3/deviceprofile/name/{segment(name)}", "profile", Profile)

    async def add_profile(self, profile: Profile) -> None:
        """Add a profile.

        Raises:
            ConflictError: one of that name exists.
        """
        await self._items("POST", "/api/v3/deviceprofile", "profile", profile.to_wire())

    async def update_profile(self, profile: Profile) -> None:
        """Replace a profile.

        Raises:
            NotFoundError: there is none of that name.
        """
        await self._items("PUT", "/api/v3/deviceprofile", "profile", profile.to_wire())

    async def delete_profile(self, name: str) -> None:
        """Delete a profile.

        Raises:
            ConflictError: a device uses it.
            NotFoundError: there is none of that name.
        """
        await self._rest.call("DELETE", f"/api/v3/deviceprofile/name/{segment(name)}")

    async def services(self) -> list[DeviceService]:
        """Return all device services."""
        return await self._pages("/api/v3/deviceservice/all", "services", DeviceService, ())

    async def service(self, name: str) -> DeviceService:
        """Return one device service.

        Raises:
            NotFoundError: there is none of that name.
        """
        return await self._one(f"/api/v3/deviceservice/name/{segment(name)}", "service", DeviceService)

    async def add_service(self, service: DeviceService) -> None:
        """Add a device service.

        Raises:
            ConflictError: one of that name exists.
        """
        await self._items("POST", "/api/v3/deviceservice", "service", service.to_wire())

    async def update_service(self, name: str, changes: Mapping[str, Any]) -> None:
        """Change some keys of a device service, named as on the wire.

        Raises:
            NotFoundError: there is none of that name.
        """
        await self._items("PATCH", "/api/v3/deviceservice", "service", {**changes, "name": name})

    async def delete_service(self, name: str) -> None:
        """Delete a device service.

        Raises:
            ConflictError: it still has devices.
            NotFoundError: there is none of that name.
        """
        await self._rest.call("DELETE", f"/api/v3/deviceservice/name/{segment(name)}")

    async def _items(
        self, method: str, path: str, word: str, item: Mapping[str, Any], query: Mapping[str, str] | None = None
    ) -> None:
        answer = await self._rest.call(method, path, query=query, body=[{"apiVersion": "v3", word: item}])
        check_items(answer, f"{self._rest.name}: {method} {word} {item.get('name')!r}")

    async def _one(self, path: str, word: str, cls: type[M]) -> M:
        return _parse(cls, _member(await self._rest.call("GET", path), word, path), path)

    async def _pages(self, path: str, word: str, cls: type[M], labels: Sequence[str]) -> list[M]:
        found: list[M] = []
        while True:
            query = {"offset": str(len(found)), "limit": str(PAGE)} | ({"labels": ",".join(labels)} if labels else {})
            try:
                answer = await self._rest.call("GET", path, query=query)
            except RangeError:  # something was deleted between two pages
                return found
            page = _list(answer, word, path)
            found += [_parse(cls, item, path) for item in page]
            total = _member(answer, "totalCount", path, int) if "totalCount" in answer else 0
            if not page or len(found) >= total:
                return found


class CommandClient:
    """core-command: read and set devices, by REST or over the bus."""

    def __init__(self, rest: Rest, bus: EdgexBus, profile_of: ProfileOf) -> None:
        """Use core-command; `profile_of(device)` gives the profile that a SET is checked against."""
        self._rest = rest
        self._bus = bus
        self._profile_of = profile_of

    def use_tokens(self, tokens: Tokens) -> None:
        """Send the token of the moment as a bearer with every REST request from now on: it may be rotated."""
        self._rest.use_tokens(tokens)

    async def get(
        self, device: str, command: str, *, correlation_id: str = "", push_event: bool = False,
        timeout_s: float = COMMAND_TIMEOUT_S,
    ) -> Event:  # fmt: skip
        """Read a resource or a device command; with `push_event` the event also goes to the bus.

        Raises:
            NotFoundError: no such device or command.
            NotAllowedError: write-only.
            LockedError: the device is locked or down.
            DeviceSilentError: no answer in time.
            UnavailableError: core-command cannot be reached, or the device's service.
        """
        path = _command_path(device, command)
        answer = await self._rest.call(
            "GET", path, query={"ds-pushevent": str(push_event).lower()}, correlation_id=correlation_id,
            timeout_s=timeout_s, silent=DeviceSilentError,
        )  # fmt: skip
        return _parse(Event, restored(_member(answer, "event", path)), path)

    async def set(
        self, device: str, command: str, values: Mapping[str, Any], *, correlation_id: str = "",
        timeout_s: float = COMMAND_TIMEOUT_S, last_look: LastLook | None = None,
    ) -> None:  # fmt: skip
        """Set a resource or a device command to `values`, by resource name; each value text or natural JSON.

        `last_look` is called as late as can be before it is sent; what it raises is raised, and nothing is sent.

        Raises:
            InvalidInputError: the names are not exactly the command's (nothing is sent then), or a bad value.
            NotFoundError: no such device or command.
            NotAllowedError: read-only.
            LockedError: the device is locked or down.
            DeviceSilentError: no definite answer: the device may or may not have changed.
            UnavailableError: certainly not carried out: core-command or the device's service refused the connection.
            UpstreamError: answered, but as failed (500).
        """
        check_parameters(await self._profile_of(device), command, values)
        try:
            await self._rest.call(
                "PUT", _command_path(device, command), body=dict(values), correlation_id=correlation_id,
                timeout_s=timeout_s, silent=DeviceSilentError, last_look=last_look,
            )  # fmt: skip
        except UnavailableError as error:
            raise _definite(error) from error

    async def get_by_bus(
        self, device: str, command: str, *, correlation_id: str = "", timeout_s: float = COMMAND_TIMEOUT_S
    ) -> Event:
        """Read over the bus; see `get`. Of errors the bus only carries text: without a status it is `UpstreamError`."""
        answer = await self._ask(device, command, "get", None, correlation_id, timeout_s)
        if answer is None:
            raise UpstreamError(f"core-command: get {device} {command} over the bus: an answer without an event")
        return answer

    async def set_by_bus(
        self, device: str, command: str, values: Mapping[str, Any], *, correlation_id: str = "",
        timeout_s: float = COMMAND_TIMEOUT_S, last_look: LastLook | None = None,
    ) -> None:  # fmt: skip
        """Set over the bus; see `set`. Silence is `DeviceSilentError`."""
        check_parameters(await self._profile_of(device), command, values)
        await self._ask(device, command, "set", dict(values), correlation_id, timeout_s, last_look)

    async def _ask(
        self, device: str, command: str, verb: str, payload: Any, correlation_id: str, timeout_s: float,
        last_look: LastLook | None = None,
    ) -> Event | None:  # fmt: skip
        levels = (topic_level(name, self._bus.kind) for name in (device, command))
        topic = f"core/command/request/{'/'.join(levels)}/{verb}"
        try:
            answer = await self._bus.request(
                topic, payload, answer_from="core-command", timeout_s=timeout_s,
                correlation_id=_as_uuid(correlation_id), last_look=last_look,
            )  # fmt: skip
        except UnavailableError as error:
            raise DeviceSilentError(str(error)) from error
        except UpstreamError as error:
            raise (DeviceSilentError(str(error)) if verb == "set" else error) from error
        if answer.error is not None:
            told = _from_text(answer.error, f"core-command: {verb} {device} {command} over the bus")
            raise _definite(told) if verb == "set" and isinstance(told, UnavailableError) else told
        return answer.event


class DataClient:
    """core-data: what devices reported, newest first."""

    def __init__(self, rest: Rest) -> None:
        """Use core-data's REST interface."""
        self._rest = rest

    async def events(
        self, *, device: str = "", start_ns: int | None = None, end_ns: int | None = None, offset: int = 0,
        limit: int = 20,
    ) -> list[Event]:  # fmt: skip
        """Return events, of one device or of a span of time if given; core-data's own limit is 1024.

        Raises:
            InvalidInputError: both a device and a span: core-data has no such query.
        """
        if device and start_ns is not None:
            raise InvalidInputError("core-data lists events of a device or of a span of time, not both")
        path = "/api/v3/event" + (f"/device/name/{segment(device)}" if device else _span(start_ns, end_ns) or "/all")
        answer = await self._list(path, offset, limit)
        return [_parse(Event, _whole(item), path) for item in _list(answer, "events", path)]

    async def readings(
        self, *, device: str = "", resource: str = "", start_ns: int | None = None, end_ns: int | None = None,
        offset: int = 0, limit: int = 20,
    ) -> list[Reading]:  # fmt: skip
        """Return readings, of a device, of a resource name and of a span of time, as far as given."""
        path = "/api/v3/reading"
        path += f"/device/name/{segment(device)}" if device else ""
        path += f"/resourceName/{segment(resource)}" if resource else ""
        path += _span(start_ns, end_ns) or ("" if device or resource else "/all")
        answer = await self._list(path, offset, limit)
        return [_parse(Reading, item, path) for item in _list(answer, "readings", path)]

    async def event_count(self, device: str = "") -> int:
        """Return how many events core-data holds, in all or of a device."""
        path = "/api/v3/event/count" + (f"/device/name/{segment(device)}" if device else "")
        answer = await self._rest.call("GET", path)
        return int(_member(answer, "count", path, int))

    async def _list(self, path: str, offset: int, limit: int) -> Any:
        return await self._rest.call("GET", path, query={"offset": str(offset), "limit": str(limit)})


def check_parameters(profile: Profile, command: str, values: Mapping[str, Any]) -> None:
    """Refuse values that are not exactly what a command sets.

    EdgeX ignores unknown names and sets missing ones to their defaults, both with answer 200.

    Raises:
        InvalidInputError: an unknown name or a missing one, or the profile has no such writable command.
    """
    wanted = [resource.name for resource in profile.parameters(command)]
    unknown, missing = sorted(set(values) - set(wanted)), [name for name in wanted if name not in values]
    if unknown or missing:
        told = [f"unknown {', '.join(unknown)}"] if unknown else []
        told += [f"missing {', '.join(missing)}"] if missing else []
        raise InvalidInputError(
            f"{command!r} of profile {profile.name!r}: {'; '.join(told)}: it sets {', '.join(wanted)}"
        )


def _definite(error: UnavailableError) -> UnavailableError:
    """Return what a SET without success means: certainly not carried out, or no definite answer.

    core-command answers 503 when nobody listens at the device's service, but also on its own timeout, while its
    call to that service goes on, and when their connection breaks. EdgeX 4.0.2 does not say which
    (`service_doors.py` finds out); a device service may say of its own device that it could not be reached.
    """
    never_sent = not isinstance(error, DeviceSilentError) and error.__cause__ is not None
    refused = re.search(r"connection refused|no such host|device service busy", str(error), re.IGNORECASE)
    return error if never_sent or refused else DeviceSilentError(str(error))


def _from_text(text: str, what: str) -> TheirError:
    status = re.search(r"status code: (\d{3})", text)
    known = next((code for pattern, code in _REFUSALS if re.match(pattern, text)), 502)
    return error_for_status(int(status[1]) if status else known, f"{what}: {text}")


def _as_uuid(correlation_id: str) -> str:
    """Return an id as a UUID: over the bus a device service carries a request out, then trips over any other id."""
    try:
        return str(uuid.UUID(correlation_id)) if correlation_id else ""
    except ValueError:
        return str(uuid.uuid5(_CORRELATION, correlation_id))


def _command_path(device: str, command: str) -> str:
    return f"/api/v3/device/name/{segment(device)}/{segment(command)}"


def _span(start_ns: int | None, end_ns: int | None) -> str:
    if start_ns is None and end_ns is None:
        return ""
    return f"/start/{start_ns or 0}/end/{2**63 - 1 if end_ns is None else end_ns}"


def _member(answer: Any, word: str, what: str, kind: type = dict) -> Any:
    value = answer.get(word) if isinstance(answer, dict) else None
    if not isinstance(value, kind):
        raise UpstreamError(f"{what}: an answer without {word!r}: {str(answer)[:200]}")
    return value


def _list(answer: Any, word: str, what: str) -> list[Any]:
    if isinstance(answer, dict) and answer.get(word) is None and "totalCount" in answer:
        return []  # Go writes an empty list as null
    found: list[Any] = _member(answer, word, what, list)
    return found


def _whole(item: Any) -> Any:
    return restored(item) if isinstance(item, dict) else item


def _parse(cls: type[M], item: Any, what: str) -> M:
    try:
        return cls.model_validate(item)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UpstreamError(f"{what}: {cls.__name__} {where}: {first['msg']}") from error
