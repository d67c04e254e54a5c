"""core-metadata: device services, profiles and devices; a device is shown to its service before it is taken.

All of it is held in memory and written through (`Table`). What the real one does oddly is kept where a client can
see it: a PUT replaces a profile whole, so that it has no id and no creation time afterwards, and a system event of an
update carries the time of the change before it.

Source: edgex-wire.md section 5.1; recordings of EdgeX 4.0.2.
"""

import time
import uuid
from collections.abc import Callable, Iterable
from typing import Any, Final

from edgeagents.embedded.contracts import ADD_DEVICE, ADD_SERVICE, Item, check_profile
from edgeagents.embedded.http import StatusError, page
from edgeagents.embedded.keeper import now_ms
from edgeagents.embedded.link import Link
from edgeagents.embedded.profiles import check_auto_events, dropped_auto_events
from edgeagents.embedded.storage import Row, Table
from edgeagents.embedded.validation import Shape, read
from edgeagents.errors import ConflictError, InvalidInputError, NotFoundError, UnavailableError

KEY: Final = "core-metadata"

UNITS: Final = {
    "source": "reference to source for all UoM if not specified below",
    "units": {
        "temperature": {"source": "www.weather.com", "values": ["C", "F", "K"]},
        "weights": {
            "source": "www.usa.gov/federal-agencies/weights-and-measures-division",
            "values": ["lbs", "ounces", "kilos", "grams"],
        },
    },
}


class Metadata:
    """What core-metadata knows and does."""

    def __init__(self, services: Table, profiles: Table, devices: Table, link: Link, *, timeout_s: float) -> None:
        """Keep the three kinds in their tables; `timeout_s` is how long a device service may think about a device."""
        self.services = services
        self.profiles = profiles
        self.devices = devices
        self._link = link
        self._timeout_s = timeout_s

    # --- reading -----------------------------------------------------------------------------

    def service(self, name: str) -> Row:
        """Return a device service.

        Raises:
            NotFoundError: there is none of that name.
        """
        return _find(self.services, name, "device service")

    def profile(self, name: str) -> Row:
        """Return a profile with the number of devices that use it.

        Raises:
            NotFoundError: there is none of that name.
        """
        return self._shown_profile(_find(self.profiles, name, "device profile"))

    def device(self, name: str) -> Row:
        """Return a device.

        Raises:
            NotFoundError: there is none of that name.
        """
        return _find(self.devices, name, "device")

    def listed(self, kind: Table, offset: int, limit: int, wanted: Callable[[Row], bool]) -> tuple[int, list[Row]]:
        """Return how many rows of a kind are wanted, and the part of them that was asked for, the oldest first.

        Raises:
            RangeError: the offset lies beyond the end.
        """
        found = sorted((row for row in kind.values() if wanted(row)), key=lambda row: row.get("created", 0))
        rows = page(found, offset, limit)
        return len(found), [self._shown_profile(row) for row in rows] if kind is self.profiles else rows

    def _shown_profile(self, row: Row) -> Row:
        count = sum(1 for device in self.devices.values() if device.get("profileName") == row["name"])
        return profile_view(row, count)

    # --- device services ---------------------------------------------------------------------

    async def add_service(self, item: Item, correlation: str) -> str:
        """Add a device service and return its id.

        Raises:
            ConflictError: there is one of that name.
        """
        row, now = item.row, now_ms()
        stored = {"created": now, "modified": now, "id": str(uuid.uuid4())} | row
        await _add(self.services, stored, f"device service name {row['name']} already exists")
        await self._tell("deviceservice", "add", row["name"], row, correlation)
        return str(stored["id"])

    async def patch_service(self, item: Item, correlation: str) -> None:
        """Change a device service.

        Raises:
            NotFoundError: there is no such service.
            InvalidInputError: id and name are of two services.
        """
        old = _named(self.services, item.row, "device service")
        new = _merged(old, item.row, ADD_SERVICE.shape)
        await self.services.write({old["name"]: new | {"modified": now_ms()}})
        await self._tell("deviceservice", "update", old["name"], new, correlation)

    async def delete_service(self, name: str, correlation: str) -> None:
        """Delete a device service.

        Raises:
            NotFoundError: there is none of that name.
            ConflictError: it has devices.
        """
        row = self.service(name)
        if any(device["serviceName"] == name for device in self.devices.values()):
            raise ConflictError("fail to delete the device service when associated device exists")
        await self.services.write({}, [name])
        await self._tell("deviceservice", "delete", name, row, correlation)

    # --- profiles ----------------------------------------------------------------------------

    async def add_profile(self, item: Item, correlation: str) -> str:
        """Add a profile and return its id.

        Raises:
            InvalidInputError: its parts do not fit together.
            ConflictError: there is one of that name.
        """
        row, now = check_profile(item.row), now_ms()
        stored = {"created": now, "modified": now, "id": str(uuid.uuid4())} | row
        await _add(self.profiles, stored, f"device profile name {row['name']} already exists")
        await self._tell("deviceprofile", "add", KEY, profile_view(stored, 0), correlation, row["name"])
        return str(stored["id"])

    async def put_profile(self, item: Item, correlation: str) -> None:
        """Replace a profile.

        Raises:
            InvalidInputError: its parts do not fit together.
            NotFoundError: there is none of that name.
        """
        row = check_profile(item.row)
        name = row["name"]
        if name not in self.profiles:
            raise NotFoundError(f"device profile '{name}' does not exist")
        stored = {"modified": now_ms()} | row
        await self.profiles.write({name: stored})
        users = dict.fromkeys(row["serviceName"] for row in self.devices.values() if row.get("profileName") == name)
        for owner in (KEY, *users):
            await self._tell("deviceprofile", "update", owner, profile_view(stored, 0), correlation, name)

    async def delete_profile(self, name: str, correlation: str) -> None:
        """Delete a profile.

        Raises:
            NotFoundError: there is none of that name.
            ConflictError: a device uses it.
        """
        row = _find(self.profiles, name, "device profile")
        if any(device.get("profileName") == name for device in self.devices.values()):
            raise ConflictError("fail to delete the device profile when associated device exists")
        await self.profiles.write({}, [name])
        await self._tell("deviceprofile", "delete", KEY, profile_view(row, 0), correlation, name)

    # --- devices -----------------------------------------------------------------------------

    async def add_device(self, item: Item, correlation: str, *, bypass: bool, force: bool) -> str:
        """Add a device and return its id; with `force` an existing one is replaced.

        Raises:
            InvalidInputError: its service or profile is not there, or an auto event has no source.
            ConflictError: there is one of that name.
            UnavailableError: the device service did not answer the validation.
            StatusError: the device service refuses it.
        """
        row = item.row
        name = row["name"]
        self._check_device(row)
        if name in self.devices:
            if not force:
                raise ConflictError(f"device name {name} already exists")
            old = self.devices[name]
            new = {key: old[key] for key in ("created", "modified", "id")} | row
            await self._store_device(old, new, correlation)
            return str(old["id"])
        if not (bypass or force):
            await self._validate(row)
        now = now_ms()
        stored = {"created": now, "modified": now, "id": str(uuid.uuid4())} | row
        await _add(self.devices, stored, f"device name {name} already exists")
        await self._tell("device", "add", row["serviceName"], stored, correlation, row.get("profileName", ""))
        return str(stored["id"])

    async def patch_device(self, item: Item, correlation: str, *, bypass: bool) -> None:
        """Change a device.

        Raises:
            NotFoundError: there is no such device.
            InvalidInputError: what it would become does not fit its service or profile.
            UnavailableError: the device service did not answer the validation.
            StatusError: the device service refuses it.
        """
        if "serviceName" in item.row:
            self._check_service(item.row["serviceName"])
        old = _named(self.devices, item.row, "device")
        new = _merged(old, item.row, ADD_DEVICE.shape)
        if new.get("profileName", "") != old.get("profileName", ""):
            self._check_profile_of(new)
            new = dropped_auto_events(new, self.profiles.get(new.get("profileName", "")))
        self._check_device(new)
        if not bypass:
            await self._validate(new)
        await self._store_device(old, new, correlation)

    async def delete_device(self, name: str, correlation: str) -> None:
        """Delete a device.

        Raises:
            NotFoundError: there is none of that name.
            ConflictError: other devices name it as their parent.
        """
        row = self.device(name)
        if any(device.get("parent") == name for device in self.devices.values()):
            raise ConflictError("cannot delete device with children")
        await self.devices.write({}, [name])
        await self._tell("device", "delete", row["serviceName"], row, correlation, row.get("profileName", ""))

    async def _store_device(self, old: Row, new: Row, correlation: str) -> None:
        if old["name"] not in self.devices:  # deleted while its service was asked
            raise NotFoundError(f"no device with name '{old['name']}' found")
        await self.devices.write({old["name"]: new | {"modified": now_ms()}})
        for owner in dict.fromkeys((old["serviceName"], new["serviceName"])):
            await self._tell("device", "update", owner, new, correlation, new.get("profileName", ""))

    def _check_device(self, row: Row) -> None:
        self._check_service(row["serviceName"])
        self._check_profile_of(row)
        if row.get("profileName"):
            check_auto_events(row, self.profiles[row["profileName"]])

    def _check_service(self, name: str) -> None:
        if name not in self.services:
            raise InvalidInputError(f"device service '{name}' does not exists")

    def _check_profile_of(self, row: Row) -> None:
        profile = row.get("profileName", "")
        if not profile:
            return
        if row["name"] == row.get("parent"):
            raise InvalidInputError("a device cannot be its own parent")
        if profile not in self.profiles:
            raise InvalidInputError(f"device profile '{profile}' not found during validating device '{row['name']}'")

    async def _validate(self, row: Row) -> None:
        service = row["serviceName"]
        topic = f"{service}/validate/device"
        payload = {"apiVersion": "v3", "requestId": str(uuid.uuid4()), "device": row}
        try:
            answer = await self._link.ask(topic, payload, answer_from=service, timeout_s=self._timeout_s)
        except (UnavailableError, InvalidInputError) as error:
            raise UnavailableError(f"Error sending request to topic '{self._link.base}/{topic}'") from error
        if answer.error is not None:
            raise StatusError(500, f"Device {row['name']} validation failed: {answer.error}")

    # --- notices -----------------------------------------------------------------------------

    async def _tell(
        self, kind: str, action: str, owner: str, details: Row, correlation: str, profile: str = ""
    ) -> None:
        levels = ["system-events", KEY, kind, action, owner, *([profile] if profile else [])]
        payload = system_event(kind, action, owner, details)
        await self._link.publish("/".join(levels), payload, correlation)


def system_event(kind: str, action: str, owner: str, details: Row) -> Row:
    """Return the payload of a system event."""
    return {
        "apiVersion": "v3",
        "type": kind,
        "action": action,
        "source": KEY,
        "owner": owner,
        "tags": None,
        "details": details,
        "timestamp": time.time_ns(),
    }


def profile_view(row: Row, devices: int) -> Row:
    """Return a profile as EdgeX shows it: the count of its devices stands before its resources."""
    view: dict[str, Any] = {}
    for key, value in row.items():
        if key == "deviceResources":
            view["linkedDeviceCount"] = devices
        view[key] = value
    return view | {"apiVersion": "v3"}


def has_labels(wanted: Iterable[str]) -> Callable[[Row], bool]:
    """Return the question whether a row has all these labels."""
    labels = set(wanted)
    return lambda row: labels <= set(row.get("labels", ()))


def _find(table: Table, name: str, kind: str) -> Row:
    if name not in table:
        raise NotFoundError(f"no {kind} with name '{name}' found")
    return table[name]


def _named(table: Table, patch: Row, kind: str) -> Row:
    """Return the row that a change names by id or by name."""
    wanted = patch.get("id", "")
    if not wanted:
        return _find(table, patch["name"], kind)
    row = next((row for row in table.values() if row.get("id") == wanted), None)
    if row is None:
        raise NotFoundError(f"no {kind} with id '{wanted}' found")
    if patch.get("name", row["name"]) != row["name"]:
        raise InvalidInputError(f"{kind} name '{patch['name']}' not match the exsting '{row['name']}' ")
    return row


def _merged(old: Row, patch: Row, shape: Shape) -> Row:
    """Return a changed row in EdgeX's order of keys, what is empty now left out."""
    changed, _ = read(shape, old | patch, "")
    return {key: old[key] for key in ("created", "modified", "id") if key in old} | changed


async def _add(table: Table, row: Row, twice: str) -> None:
    if row["name"] in table:
        raise ConflictError(twice)
    try:
        await table.add(row["name"], row)
    except ConflictError as error:
        raise ConflictError(twice) from error
