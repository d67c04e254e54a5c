"""core-metadata: device services and devices; a device is shown to its service before it is taken.

All of it is held in memory and written through (`Table`). What the real one does oddly is kept where a client can
see it: the system event of an update carries the time of the change before it.

Source: edgex-wire.md section 5.1; recordings of EdgeX 4.0.2.
"""

import logging
import uuid

from edgeagents.embedded.contracts import ADD_DEVICE, ADD_SERVICE, Item
from edgeagents.embedded.device_profiles import Profiles
from edgeagents.embedded.http import StatusError
from edgeagents.embedded.keeper import now_ms
from edgeagents.embedded.link import Link
from edgeagents.embedded.profiles import check_auto_events, dropped_auto_events
from edgeagents.embedded.rows import Notices, Writable, add, find, find_by_id, named
from edgeagents.embedded.storage import Row, Table
from edgeagents.embedded.validation import Shape, read
from edgeagents.errors import ConflictError, InvalidInputError, NotFoundError, UnavailableError

log = logging.getLogger(__name__)


class Metadata:
    """What core-metadata knows and does."""

    def __init__(
        self, services: Table, profiles: Table, devices: Table, link: Link, *, timeout_s: float,
        writable: Writable = lambda path: None,
    ) -> None:  # fmt: skip
        """Keep the three kinds in their tables.

        Args:
            services: device services by name.
            profiles: profiles by name.
            devices: devices by name.
            link: the bus.
            timeout_s: how long a device service may think about a device.
            writable: gives what stands below `Writable` now.
        """
        self.services = services
        self.devices = devices
        self._link = link
        self._notices = Notices(link)
        self.profiles = Profiles(profiles, devices, self._notices, writable)
        self._timeout_s = timeout_s
        self._writable = writable

    # --- reading -----------------------------------------------------------------------------

    def service(self, name: str) -> Row:
        """Return a device service.

        Raises:
            NotFoundError: there is none of that name.
        """
        return find(self.services, name, "device service")

    def device(self, name: str) -> Row:
        """Return a device.

        Raises:
            NotFoundError: there is none of that name.
        """
        return find(self.devices, name, "device")

    def device_by_id(self, wanted: str) -> Row:
        """Return a device.

        Raises:
            NotFoundError: there is none of that id.
        """
        return find_by_id(self.devices, wanted, "device")

    # --- device services ---------------------------------------------------------------------

    async def add_service(self, item: Item, correlation: str) -> str:
        """Add a device service and return its id.

        Raises:
            ConflictError: there is one of that name.
        """
        row, now = item.row, now_ms()
        stored = {"created": now, "modified": now, "id": str(uuid.uuid4())} | row
        await add(self.services, stored, f"device service name {row['name']} already exists")
        await self._notices.tell("deviceservice", "add", row["name"], row, correlation)
        return str(stored["id"])

    async def patch_service(self, item: Item, correlation: str) -> None:
        """Change a device service.

        Raises:
            NotFoundError: there is no such service.
            InvalidInputError: id and name are of two services.
        """
        old = named(self.services, item.row, "device service")
        new = _merged(old, item.row, ADD_SERVICE.shape)
        await self.services.write({old["name"]: new | {"modified": now_ms()}})
        await self._notices.tell("deviceservice", "update", old["name"], new, correlation)

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
        await self._notices.tell("deviceservice", "delete", name, row, correlation)

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
        self._check_room(name)
        if not (bypass or force):
            await self._validate(row)
        now = now_ms()
        stored = {"created": now, "modified": now, "id": str(uuid.uuid4())} | row
        await add(self.devices, stored, f"device name {name} already exists")
        log.debug("device %s added", name)
        await self._notices.tell("device", "add", row["serviceName"], stored, correlation, row.get("profileName", ""))
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
        old = named(self.devices, item.row, "device")
        new = _merged(old, item.row, ADD_DEVICE.shape)
        if new.get("profileName", "") != old.get("profileName", ""):
            self._check_profile_of(new)
            new = dropped_auto_events(new, self.profiles.table.get(new.get("profileName", "")))
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
        log.debug("device %s deleted", name)
        await self._notices.tell("device", "delete", row["serviceName"], row, correlation, row.get("profileName", ""))

    async def _store_device(self, old: Row, new: Row, correlation: str) -> None:
        if old["name"] not in self.devices:  # deleted while its service was asked
            raise NotFoundError(f"no device with name '{old['name']}' found")
        await self.devices.write({old["name"]: new | {"modified": now_ms()}})
        log.debug("device %s updated", old["name"])
        for owner in dict.fromkeys((old["serviceName"], new["serviceName"])):
            await self._notices.tell("device", "update", owner, new, correlation, new.get("profileName", ""))

    def _check_device(self, row: Row) -> None:
        self._check_service(row["serviceName"])
        self._check_profile_of(row)
        if row.get("profileName"):
            check_auto_events(row, self.profiles.table[row["profileName"]])

    def _check_room(self, name: str) -> None:
        most = self._writable("MaxDevices") or 0
        if 0 < most <= len(self.devices):
            raise InvalidInputError(
                f"the existing total number of device is '{len(self.devices)}', add device '{name}' will exceed the "
                f"maximum limitation '{most}'"
            )

    def _check_service(self, name: str) -> None:
        if name not in self.services:
            raise InvalidInputError(f"device service '{name}' does not exists")

    def _check_profile_of(self, row: Row) -> None:
        profile = row.get("profileName", "")
        if not profile:
            return
        if row["name"] == row.get("parent"):
            raise InvalidInputError("a device cannot be its own parent")
        if profile not in self.profiles.table:
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


def _merged(old: Row, patch: Row, shape: Shape) -> Row:
    """Return a changed row in EdgeX's order of keys, what is empty now left out."""
    changed, _ = read(shape, old | patch, "")
    return {key: old[key] for key in ("created", "modified", "id") if key in old} | changed
