"""Configuration of the embedded core-metadata, core-data and core-command, kept in the keeper of the same process.

As in EdgeX: the section `all-services` below the service's own keys, which are written at the first start and then
belong to the owner; `Writable` takes effect at once, everything else at the next start. Only keys that are obeyed
exist. What the owner wrote wrongly is logged and its default holds: a core that did not start could not be corrected.

Source: edgex-wire.md sections 3.2 and 3.3; the private keys of EdgeX 4.0.2.
"""

import logging
from typing import Any, Final

from edgeagents.adapters.config import Tree, hidden, lookup, typed, unflatten
from edgeagents.adapters.live_config import LiveConfig
from edgeagents.adapters.logs import LEVELS, shortened
from edgeagents.adapters.middleware import WebLimits, limits_of
from edgeagents.embedded.common_config import COMMON, STEM, Addresses, flat, service_config
from edgeagents.embedded.http import MAX_EVENT_KB
from edgeagents.embedded.keeper import KeyValues
from edgeagents.errors import ConfigurationError
from edgeagents.settings import BusSettings

log = logging.getLogger(__name__)

ALL_SERVICES: Final = f"{COMMON}/all-services"
_WRITABLE: Final[dict[str, Tree]] = {
    "core-metadata": {
        "ProfileChange": {"StrictDeviceProfileChanges": False, "StrictDeviceProfileDeletes": False},
        "UoM": {"Validation": False},
        "MaxDevices": 0,
    },
    "core-data": {
        "PersistData": True,
        "Telemetry": {"Metrics": {"EventsPersisted": False, "ReadingsPersisted": False}},
    },
    "core-command": {},
}
_MORE: Final[dict[str, Tree]] = {"core-data": {"MaxEventSize": MAX_EVENT_KB}}
_LOGGERS: Final = {name: f"edgeagents.embedded.{name.removeprefix('core-')}" for name in _WRITABLE}


def private_leaves(addresses: Addresses, log_level: str) -> dict[str, str]:
    """Return every private key of the three services with its text, as it is first written."""
    leaves: dict[str, str] = {}
    for key in _WRITABLE:
        whole = service_config(key, getattr(addresses, key.removeprefix("core-")), addresses)
        tree = {
            "Writable": {"LogLevel": log_level} | _WRITABLE[key],
            "Service": {name: whole["Service"][name] for name in ("Host", "Port", "StartupMsg")},
            "Clients": whole["Clients"],
            "MessageBus": {"Optional": {"ClientId": key}},
        } | _MORE.get(key, {})
        leaves |= dict(flat(tree, f"{STEM}/{key}"))
    return leaves


class CoreConfig(LiveConfig):
    """One core service's configuration as it is now."""

    def __init__(self, key: str, addresses: Addresses, bus: BusSettings, values: KeyValues) -> None:
        """Read what keeper holds, and follow it from now on."""
        port = getattr(addresses, key.removeprefix("core-"))
        defaults = service_config(key, port, addresses, bus, _WRITABLE[key], **_MORE.get(key, {}))
        self._values = values
        # The common configuration has no section for core services: `all-services` is all they read of it.
        parts = {"common": ALL_SERVICES, "private": f"{STEM}/{key}"}
        trees = {name: self._read(root, defaults) for name, root in parts.items()}
        super().__init__(key, "app", defaults, **trees)
        values.watch(self._on_write)
        self.watch(self._on_change)
        self._set_log_level()

    def shown(self) -> Tree:
        """Return what `/api/v3/config` answers: no secrets."""
        return hidden(self.tree())

    def limits(self) -> WebLimits:
        """Return what `Service` says about requests; what is written wrongly there counts as not written."""
        try:
            return limits_of(self.tree())
        except ConfigurationError as error:
            log.warning("%s: %s: its default holds", self.key, error)
            return limits_of(self._defaults)

    def _read(self, root: str, defaults: Tree) -> Tree:
        def default(path: str, error: ConfigurationError) -> Any:
            log.warning("%s: %s: its default holds", root, error)
            return lookup(defaults, path)

        return typed(unflatten(self._values.leaves(root)), defaults, "", default)

    def _on_write(self, key: str) -> None:
        own = f"{STEM}/{self.key}"
        for root in (ALL_SERVICES, own):
            live = f"{root}/Writable"
            if f"{key}/".startswith(f"{live}/") or f"{live}/".startswith(f"{key}/"):
                tree = {"Writable": unflatten(self._values.leaves(live))}
                if root == own:
                    self._private = self._renewed(self._private, tree)
                else:
                    self._common = self._renewed(self._common, tree)
                self._apply()

    def _on_change(self, paths: frozenset[str]) -> None:
        if "Writable/LogLevel" in paths:
            self._set_log_level()

    def _set_log_level(self) -> None:
        word = self.text("Writable/LogLevel")
        level = LEVELS.get(word.strip().upper())
        if level is None:
            log.warning(
                "%s: Writable/LogLevel %r is none of %s: unchanged", self.key, shortened(word), ", ".join(LEVELS)
            )
        else:
            logging.getLogger(_LOGGERS[self.key]).setLevel(level)
