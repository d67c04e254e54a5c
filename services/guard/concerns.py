"""Which device events the guard reads: those of resources that its decisions can rest on, told by their topic alone.

Commands, proofs, interlocks, steps and overrides look at resources that the owner's files name, or that the ledger
remembers having set. An event about others says no more than that its device is there. What a topic does not tell for
sure is read: a source that the profile does not know, a device command with one such resource among its own.

Source: design.md sections 3.6 and 3.8.
"""

from collections.abc import Iterable
from typing import Final

from edgeagents.adapters.device_cache import DeviceCache
from edgeagents.adapters.plain_events import event_names
from services.guard.owner import Owner

MOST_TOPICS: Final = 8192


class Concerns:
    """Answers for topics, and remembers what it answered until devices change."""

    def __init__(self, owner: Owner, devices: DeviceCache, set_before: Iterable[str] = ()) -> None:
        """Take the names of resources from the owner's files; `set_before`: names of others the guard has set once."""
        self._owner = owner
        self._devices = devices
        self._set_before = frozenset(set_before)
        self._names = self._set_before.union(_names_in(owner))
        self._known: dict[str, bool] = {}

    def forget(self) -> None:
        """Find everything out anew: devices, profiles or the agents' files have changed."""
        self._names = self._set_before.union(_names_in(self._owner))
        self._known.clear()

    def reads(self, topic: str, base: str) -> bool:
        """Say whether an event on a topic has to be read."""
        found = self._known.get(topic)
        if found is None:
            if len(self._known) >= MOST_TOPICS:
                self._known.clear()  # anybody may make up topics, as many as they like
            found = self._known[topic] = self._may_concern(topic, base)
        return found

    def _may_concern(self, topic: str, base: str) -> bool:
        names = event_names(topic, base)
        if names is None:
            return True
        _, device, source = names[0]
        profile = self._devices.profile_of(device)
        command = profile.command(source) if profile is not None else None
        if command is not None:
            return any(item.device_resource in self._names for item in command.resource_operations)
        return profile is None or profile.resource(source) is None or source in self._names


def _names_in(owner: Owner) -> Iterable[str]:
    for rule in owner.site.resources:
        yield rule.resource
        if rule.proof is not None:
            yield rule.proof.resource
    for lock in owner.site.interlocks:
        yield lock.forbid.resource
        yield lock.during.resource
    for agent in owner.agents.values():
        yield from (entry.resource for entry in agent.may)
