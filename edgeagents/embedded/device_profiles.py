"""core-metadata's profiles: added, replaced, changed in parts, deleted, and told of on the bus.

What the real one does oddly is kept where a client can see it: a PUT replaces a profile whole, so that it has no id
and no creation time afterwards, and the system event of an update carries the time of the change before it.

Source: edgex-wire.md section 5.1; behaviour of EdgeX 4.0.2.
"""

import copy
import logging
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Final

from edgeagents.embedded.contracts import Item, check_profile
from edgeagents.embedded.keeper import now_ms
from edgeagents.embedded.rows import KEY, Notices, Writable, add, find, named
from edgeagents.embedded.storage import Row, Table
from edgeagents.errors import ConflictError, InvalidInputError, LockedError, NotFoundError

log = logging.getLogger("edgeagents.embedded.metadata.profiles")

View = Callable[[Row, int], Row]

UNITS: Final[dict[str, Any]] = {
    "source": "reference to source for all UoM if not specified below",
    "units": {
        "temperature": {"source": "www.weather.com", "values": ["C", "F", "K"]},
        "weights": {
            "source": "www.usa.gov/federal-agencies/weights-and-measures-division",
            "values": ["lbs", "ounces", "kilos", "grams"],
        },
    },
}
_KNOWN_UNITS: Final = frozenset(unit for kind in UNITS["units"].values() for unit in kind["values"])
_BASIC: Final = ("created", "modified", "id", "name", "manufacturer", "description", "model", "labels")


class Profiles:
    """The profiles, by name in `table`."""

    def __init__(self, table: Table, devices: Table, notices: Notices, writable: Writable) -> None:
        """Keep profiles in `table`; `devices` use them; `writable` gives what stands below `Writable` now."""
        self.table = table
        self._devices = devices
        self._notices = notices
        self._writable = writable

    def get(self, name: str) -> Row:
        """Return a profile as it is stored.

        Raises:
            NotFoundError: there is none of that name.
        """
        return find(self.table, name, "device profile")

    def resource(self, profile: str, name: str) -> Row:
        """Return a resource of a profile.

        Raises:
            NotFoundError: there is no such profile, or no such resource in it.
        """
        found = _part(self.get(profile)["deviceResources"], name)
        if found is None:
            raise NotFoundError(f"resource {name} not exists")
        return found

    def views(self, profiles: Iterable[Row], view: View) -> list[Row]:
        """Return profiles as `view(profile, number of devices that use it)` shows them."""
        counts = Counter(device.get("profileName") for device in self._devices.values())
        return [view(row, counts[row["name"]]) for row in profiles]

    async def add(self, item: Item, correlation: str) -> str:
        """Add a profile and return its id.

        Raises:
            InvalidInputError: its parts do not fit together.
            ConflictError: there is one of that name.
        """
        row, now = check_profile(item.row), now_ms()
        self._check_units(row["deviceResources"])
        stored = {"created": now, "modified": now, "id": str(uuid.uuid4())} | row
        await add(self.table, stored, f"device profile name {row['name']} already exists")
        await self._notices.tell("deviceprofile", "add", KEY, profile_view(stored, 0), correlation, row["name"])
        return str(stored["id"])

    async def put(self, item: Item, correlation: str) -> None:
        """Replace a profile.

        Raises:
            InvalidInputError: its parts do not fit together.
            NotFoundError: there is none of that name.
        """
        row = check_profile(item.row)
        name = row["name"]
        if name not in self.table:
            raise NotFoundError(f"device profile '{name}' does not exist")
        self._check_units(row["deviceResources"])
        await self._store({"modified": now_ms()} | row, correlation)

    async def delete(self, name: str, correlation: str) -> None:
        """Delete a profile.

        Raises:
            LockedError: the configuration forbids it.
            NotFoundError: there is none of that name.
            ConflictError: a device uses it.
        """
        if self._writable("ProfileChange/StrictDeviceProfileDeletes"):
            raise LockedError("profile deletion is not allowed when StrictDeviceProfileDeletes config is enabled")
        row = self.get(name)
        if self._is_used(name):
            raise ConflictError("fail to delete the device profile when associated device exists")
        await self.table.write({}, [name])
        await self._notices.tell("deviceprofile", "delete", KEY, profile_view(row, 0), correlation, name)

    # --- in parts ----------------------------------------------------------------------------

    async def patch_basics(self, item: Item, correlation: str) -> None:
        """Change what a profile says of itself: description, labels, manufacturer, model.

        Raises:
            NotFoundError: there is no such profile.
            InvalidInputError: id and name are of two profiles.
        """
        old = named(self.table, item.row, "device profile")
        given = {key: value for key, value in item.row.items() if key not in ("id", "name")}
        new = {key: value for key, value in (old | given).items() if value not in ("", [])}
        order = [*_BASIC, "deviceResources", "deviceCommands"]
        await self._store({key: new[key] for key in order if key in new}, correlation)

    async def add_part(self, kind: str, item: Item, correlation: str) -> None:
        """Add a part of `kind`, `deviceResources` or `deviceCommands`, to the profile that the item names.

        Raises:
            NotFoundError: there is no such profile.
            InvalidInputError: the profile's parts would not fit together.
        """
        old = self.get(item.profile)
        if kind == "deviceResources":
            self._check_units([item.row])
        await self._store(check_profile(copy.deepcopy(old) | {kind: [*old[kind], item.row]}), correlation)

    async def patch_part(self, kind: str, item: Item, correlation: str) -> None:
        """Change a part of a profile: whether it is hidden, and what it says of itself.

        Raises:
            NotFoundError: there is no such profile or part.
        """
        old = self.get(item.profile)
        self._find_part(old, kind, item.row["name"])
        parts = [_changed(part, item.row) if part["name"] == item.row["name"] else part for part in old[kind]]
        await self._store(old | {kind: parts}, correlation)

    async def delete_part(self, kind: str, profile: str, name: str, correlation: str) -> None:
        """Remove a part of a profile that no device uses.

        Raises:
            LockedError: the configuration forbids it.
            ConflictError: a device uses the profile.
            NotFoundError: there is no such profile or part.
            InvalidInputError: other parts need it.
        """
        self.check_changes()
        if self._is_used(profile):
            raise ConflictError("fail to update the device profile when associated device exists")
        old = self.get(profile)
        self._find_part(old, kind, name)
        parts = [part for part in copy.deepcopy(old[kind]) if part["name"] != name]
        await self._store(check_profile(copy.deepcopy(old) | {kind: parts}), correlation)

    def check_changes(self) -> None:
        """Let nobody change a profile when the configuration forbids it.

        Raises:
            LockedError: it does.
        """
        if self._writable("ProfileChange/StrictDeviceProfileChanges"):
            raise LockedError("profile change is not allowed when StrictDeviceProfileChanges config is enabled")

    def _find_part(self, profile: Row, kind: str, name: str) -> None:
        if _part(profile[kind], name) is None:
            word = "device resource" if kind == "deviceResources" else "device command"
            raise NotFoundError(f"{word} not found")

    def _is_used(self, name: str) -> bool:
        return any(device.get("profileName") == name for device in self._devices.values())

    def _check_units(self, resources: Iterable[Row]) -> None:
        if not self._writable("UoM/Validation"):
            return
        for resource in resources:
            unit = resource["properties"].get("units", "")
            if unit and unit not in _KNOWN_UNITS:
                raise InvalidInputError(f"DeviceResource {resource['name']} units {unit} is invalid")

    async def _store(self, new: Row, correlation: str) -> None:
        """Store a profile with the time of its change; its notice is told with the time that it had before."""
        name = new["name"]
        await self.table.write({name: new | {"modified": now_ms()}})
        log.debug("device profile %s stored", name)
        users = dict.fromkeys(row["serviceName"] for row in self._devices.values() if row.get("profileName") == name)
        for owner in (KEY, *users):
            await self._notices.tell("deviceprofile", "update", owner, profile_view(new, 0), correlation, name)


def profile_view(row: Row, devices: int) -> Row:
    """Return a profile as EdgeX shows it: the count of its devices stands before its resources."""
    view: dict[str, Any] = {}
    for key, value in row.items():
        if key == "deviceResources":
            view["linkedDeviceCount"] = devices
        view[key] = value
    return view | {"apiVersion": "v3"}


def basic_view(row: Row, devices: int) -> Row:
    """Return what a profile says of itself, without its resources and commands."""
    return {key: row[key] for key in _BASIC if key in row} | {"linkedDeviceCount": devices}


def _part(parts: Iterable[Row], name: str) -> Row | None:
    return next((part for part in parts if part["name"] == name), None)


def _changed(part: Row, given: Row) -> Row:
    new = {key: value for key, value in (part | given).items() if key != "description" or value}
    first = ("description",) if "description" in new else ()
    return {key: new[key] for key in (*first, *new)}
