"""The devices and profiles there are now, kept fresh by core-metadata's system events.

Loaded in the background: a service starts although core-metadata is away. Notices may be lost with the bus, also
while core-metadata's own link is down: everything is read again after a reconnect, once more soon after, and every few
minutes; and a device that somebody names and that is not here can be asked for (`seek`).

Source: edgex-wire.md sections 5.1 and 9.
"""

import asyncio
import contextlib
import logging
import math
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, TypeVar

from pydantic import ValidationError

from edgeagents.adapters.edgex import MetadataClient
from edgeagents.adapters.edgex_bus import EdgexBus
from edgeagents.errors import NotFoundError, TheirError, UnavailableError
from edgeagents.model.device import Device, Profile
from edgeagents.model.envelope import EdgexMessage, SystemEvent

log = logging.getLogger(__name__)

TOPIC: Final = "system-events/core-metadata/#"
_RETRY_S: Final = 1.0
_REFRESH_S: Final = 300.0
_SOON_S: Final = 10.0  # others find the broker again later than we do: their notices until then are lost
_SEEK_S: Final = 1.0  # whoever waits for the answer does not wait longer
_MOST_SOUGHT: Final = 5  # a second
_MISSED_S: Final = 30.0
T = TypeVar("T", Device, Profile)


@dataclass(frozen=True, slots=True)
class Change:
    """A device or profile is new, another or gone."""

    kind: Literal["device", "profile"]
    action: Literal["add", "update", "delete"]
    name: str


OnChange = Callable[[Change], None]


class DeviceCache:
    """What core-metadata knows, without asking it."""

    def __init__(
        self, metadata: MetadataClient, *, retry_s: float = _RETRY_S, refresh_s: float = _REFRESH_S,
        soon_s: float = _SOON_S, settle: Callable[[], Awaitable[None]] | None = None,
    ) -> None:  # fmt: skip
        """Read from core-metadata.

        Args:
            metadata: is asked.
            retry_s: ask again after so long when it is away.
            refresh_s: read everything again so often.
            soon_s: and once more about so long after the first reading and after a reconnect.
            settle: waits until the broker knows our subscriptions: what is told between our reading and that is lost.
        """
        self._metadata = metadata
        self._retry_s = retry_s
        self._refresh_s = refresh_s
        self._soon_s = soon_s
        self._settle = settle
        self._read_s = -math.inf  # when all was read last, monotonic
        self._sought_s: deque[float] = deque(maxlen=_MOST_SOUGHT)
        self._devices: dict[str, Device] = {}
        self._profiles: dict[str, Profile] = {}
        self._devices_view, self._profiles_view = MappingProxyType(self._devices), MappingProxyType(self._profiles)
        self._ready = asyncio.Event()
        self._stale = asyncio.Event()
        self._loading = False
        self._meanwhile: list[SystemEvent] = []
        self._watchers: list[OnChange] = []

    @property
    def is_ready(self) -> bool:
        """Whether everything was read at least once."""
        return self._ready.is_set()

    def device(self, name: str) -> Device | None:
        """Return a device by name, None if there is none (yet)."""
        return self._devices.get(name)

    def profile(self, name: str) -> Profile | None:
        """Return a profile by name, None if there is none (yet)."""
        return self._profiles.get(name)

    def profile_of(self, device: str) -> Profile | None:
        """Return the profile of a device, None if either is not known (yet)."""
        found = self._devices.get(device)
        return None if found is None else self._profiles.get(found.profile_name)

    def all(self) -> tuple[Device, ...]:
        """Return all devices."""
        return tuple(self._devices.values())

    @property
    def devices_by_name(self) -> Mapping[str, Device]:
        """All devices by name; a live view."""
        return self._devices_view

    @property
    def profiles_by_name(self) -> Mapping[str, Profile]:
        """All profiles by name; a live view."""
        return self._profiles_view

    async def need_profile_of(self, device: str) -> Profile:
        """Return the profile of a device, asking core-metadata when it is not in the cache.

        Raises:
            NotFoundError: there is no such device, or it has no profile.
            UnavailableError: core-metadata is away.
        """
        cached = self.profile_of(device)
        if cached is not None:
            return cached
        found = await self._metadata.device(device)
        if not found.profile_name:
            raise NotFoundError(f"device {device!r} has no profile: it cannot be commanded")
        return await self._metadata.profile(found.profile_name)

    async def seek(self, name: str) -> None:
        """Ask core-metadata for a device that is not here, as the notice of it may be lost; know it if it is there.

        Whoever makes up names costs little: so many are asked for in a second, and an answer is waited for that long.
        """
        now_s = time.monotonic()
        if self.profile_of(name) is not None or (
            len(self._sought_s) == _MOST_SOUGHT and now_s - self._sought_s[0] < 1.0
        ):
            return
        self._sought_s.append(now_s)
        try:
            async with asyncio.timeout(_SEEK_S):
                device = await self._metadata.device(name)
                profile = await self._metadata.profile(device.profile_name) if device.profile_name else None
        except (TimeoutError, TheirError) as error:
            log.debug("device %r was asked for: %s", name[:200], error)
            return
        if self._devices.get(name) == device and profile is None:
            return  # it has none
        log.warning("device %s is in core-metadata, and its notice did not reach us: all are read again", name)
        if profile is not None:
            self._apply_to("profile", self._profiles, profile, "add")
        self._apply_to("device", self._devices, device, "add")
        self.refresh()  # where one notice was lost there may be others; and a reading under way may not know it

    def miss(self) -> None:
        """Note that somebody named a device that is not here: all is read again soon, at most twice a minute."""
        if self.is_ready and time.monotonic() - self._read_s > _MISSED_S:
            self._stale.set()

    async def wait_ready(self, timeout_s: float | None = None) -> None:
        """Return once everything was read; without `timeout_s` core-metadata may be away as long as it likes.

        Raises:
            UnavailableError: it was not within `timeout_s`.
        """
        try:
            async with asyncio.timeout(timeout_s):  # not wait_for: in Python 3.11 it may lose a cancellation
                await self._ready.wait()
        except TimeoutError as error:
            raise UnavailableError(f"devices not read from core-metadata in {timeout_s:g} s: is it up?") from error

    def on_change(self, callback: OnChange) -> Callable[[], None]:
        """Call `callback` after each change; return what ends that."""
        self._watchers.append(callback)
        return lambda: self._watchers.remove(callback)

    # --- staying fresh ---------------------------------------------------------------------------

    async def subscribe(self, edgex: EdgexBus) -> None:
        """Have system events noticed.

        Raises:
            UnavailableError: the bus is closed.
        """
        await edgex.subscribe(TOPIC, self._on_message)

    def refresh(self) -> None:
        """Read everything again soon: notices may have been missed."""
        self._stale.set()

    async def run(self) -> None:
        """Read everything now and whenever it may be stale, for ever; core-metadata may be away meanwhile."""
        told = False
        self._stale.set()  # nothing was read yet
        while True:
            is_stale = self._stale.is_set()
            self._stale.clear()
            try:
                if self._settle is not None:
                    with contextlib.suppress(UnavailableError):  # the link is down: a reconnect brings us here again
                        await self._settle()
                await self.load()
            except TheirError as error:
                if not told:
                    log.warning("devices cannot be read: %s: trying on", error)
                    told = True
                await asyncio.sleep(self._retry_s)
                self._stale.set()
                continue
            if told:
                log.info("%d devices and %d profiles read", len(self._devices), len(self._profiles))
                told = False
            # Not all services of a gateway at the same moment.
            again_s = self._soon_s * random.uniform(1.0, 1.5) if is_stale else self._refresh_s  # noqa: S311
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(again_s):
                    await self._stale.wait()

    async def load(self) -> None:
        """Read all devices and profiles once; notices that arrive meanwhile are applied afterwards.

        Raises:
            UnavailableError: core-metadata is away.
            UpstreamError: it answered with something else.
        """
        self._loading, self._meanwhile, self._read_s = True, [], time.monotonic()
        try:
            profiles = {profile.name: profile for profile in await self._metadata.profiles()}
            devices = {device.name: device for device in await self._metadata.devices()}
        finally:
            self._loading = False
        changes = _difference("profile", self._profiles, profiles) + _difference("device", self._devices, devices)
        _replace(self._profiles, profiles)
        _replace(self._devices, devices)
        self._tell(changes)
        for event in self._meanwhile:
            self._apply(event)
        self._ready.set()

    async def _on_message(self, message: EdgexMessage) -> None:
        if not isinstance(message, SystemEvent):
            return
        if self._loading:
            self._meanwhile.append(message)
        else:
            self._apply(message)

    def _apply(self, event: SystemEvent) -> None:
        try:
            match event.type:
                case "device":
                    self._apply_to("device", self._devices, Device.model_validate(event.details), event.action)
                case "deviceprofile":
                    self._apply_to("profile", self._profiles, Profile.model_validate(event.details), event.action)
        except ValidationError as error:
            log.warning("system event on %s has unusable details, reading all again: %s", event.topic, error)
            self.refresh()

    def _apply_to(self, kind: Literal["device", "profile"], known: dict[str, T], item: T, action: str) -> None:
        if action == "delete":
            if known.pop(item.name, None) is not None:
                self._tell([Change(kind, "delete", item.name)])
            return
        old = known.get(item.name)
        known[item.name] = item
        if isinstance(item, Device) and item.profile_name and item.profile_name not in self._profiles:
            self.refresh()  # its profile's notice was lost
        if old != item:
            self._tell([Change(kind, "add" if old is None else "update", item.name)])

    def _tell(self, changes: list[Change]) -> None:
        for change in changes:
            for watcher in list(self._watchers):
                watcher(change)


def _difference(kind: Literal["device", "profile"], old: dict[str, T], new: dict[str, T]) -> list[Change]:
    changes = [Change(kind, "delete", name) for name in old if name not in new]
    changes += [Change(kind, "add", name) for name in new if name not in old]
    changes += [Change(kind, "update", name) for name in new if name in old and old[name] != new[name]]
    return changes


def _replace(known: dict[str, T], found: dict[str, T]) -> None:
    known.clear()
    known.update(found)
