"""Which resources the guard reads of itself, and when: those whose devices do not report what somebody changes.

A device service reports a SET of a readable resource at once, but not one of a write-only device command (what EdgeX's
UI sends to device-virtual), nor what a wall switch does: those show with the next auto event. Whoever wants to know
sooner says `look_every` in `site.yaml`.

Source: design.md section 3.8 ("The owner wins"); measured on EdgeX 4.0.2.
"""

from collections.abc import Iterator
from typing import Final

from edgeagents.adapters.device_cache import DeviceCache
from edgeagents.model.site import Site
from edgeagents.protocol.gate import Key

AFTER_FAILURE_S: Final = 30.0  # a device that cannot be read holds its lane up each time


class Rounds:
    """When each resource is due; times are the guard's monotonic clock."""

    def __init__(self, site: Site, devices: DeviceCache) -> None:
        """Begin with everything due."""
        self._site = site
        self._devices = devices
        self._next_s: dict[Key, float] = {}
        self._every_s: dict[Key, float] | None = None

    def forget(self) -> None:
        """Find out anew which resources there are: devices have changed."""
        self._every_s = None

    def due(self, now_s: float) -> list[Key]:
        """Return what is to be read now; each is due again after its `look_every`."""
        if self._every_s is None:
            self._every_s = dict(self._declared())
        found = [key for key in self._every_s if now_s >= self._next_s.get(key, 0.0)]
        for key in found:
            self._next_s[key] = now_s + self._every_s[key]
        return found

    def failed(self, key: Key, now_s: float) -> None:
        """Take in that a resource could not be read: it is left alone for longer."""
        self._next_s[key] = max(self._next_s.get(key, 0.0), now_s + AFTER_FAILURE_S)

    def _declared(self) -> Iterator[tuple[Key, float]]:
        names = {rule.resource for rule in self._site.resources if rule.look_every > 0}
        for device in self._devices.devices_by_name.values() if names else ():
            profile = self._devices.profile_of(device.name)
            for name in names:
                rule = self._site.rule_for(device, name)
                resource = profile.resource(name) if profile else None
                if (
                    rule is not None
                    and rule.look_every > 0
                    and resource is not None
                    and resource.properties.is_readable
                ):
                    yield (device.name, name), rule.look_every
