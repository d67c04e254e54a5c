"""A service's configuration as it is now: what keeper says about `Writable` and own sections takes effect in under 1 s.

Other sections count from the next start, as in every EdgeX service. Keeper tells of each write in a message of
its own; a burst of them (the UI writes leaf by leaf) makes one re-reading.

Source: edgex-wire.md section 3.3.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from edgeagents.adapters.config import (
    COMMON,
    SECTIONS,
    Kind,
    Tree,
    changes,
    lookup,
    merge,
    private_key,
    section_of,
    typed,
)  # fmt: skip
from edgeagents.adapters.edgex_bus import EdgexBus
from edgeagents.adapters.keeper import KeeperClient
from edgeagents.errors import ConfigurationError, TheirError
from edgeagents.model.envelope import EdgexMessage

log = logging.getLogger(__name__)

Watcher = Callable[[frozenset[str]], None]

_BURST_S: Final = 0.1
_RETRY_S: Final = 1.0


class LiveConfig:
    """The merged configuration: defaults < all-services < app- or device-services < private < local."""

    def __init__(
        self,
        key: str,
        kind: Kind,
        defaults: Mapping[str, Any],
        *,
        common: Mapping[str, Any] | None = None,
        section: Mapping[str, Any] | None = None,
        private: Mapping[str, Any] | None = None,
    ) -> None:
        """Merge the parts.

        Args:
            key: the service key.
            kind: which common section counts.
            defaults: what holds where nothing else is said; lends its types to keeper's text.
            common: the section `all-services`.
            section: the section of this kind of service.
            private: the service's own.

        Raises:
            ConfigurationError: a value is not of its default's type.
        """
        self.key = key
        self._kind: Kind = kind
        self._defaults: Tree = merge(defaults)
        parts = (common or {}, section or {}, private or {})
        self._common, self._section, self._private = (typed(part, self._defaults) for part in parts)
        self._local: Tree = {}
        self._watchers: list[Watcher] = []
        self._stale = asyncio.Event()
        # Trigger too: which topics count can be changed while the service runs.
        self._own_sections = tuple(name for name in self._defaults if name not in SECTIONS or name == "Trigger")
        self._tree = self._merged()

    def get(self, path: str, default: Any = None) -> Any:
        """Return what stands at a path such as `Writable/LogLevel`, `default` when nothing does."""
        return lookup(self._tree, path, default)

    def text(self, path: str, default: str = "") -> str:
        """Return what stands at a path as text."""
        value = self.get(path)
        return default if value is None or isinstance(value, dict) else str(value)

    def tree(self) -> Tree:
        """Return a copy of the whole configuration."""
        return merge(self._tree)

    def secret(self, name: str) -> dict[str, str]:
        """Return the data of an insecure secret; empty when there is none of that name."""
        for entry in self.get("Writable/InsecureSecrets", {}).values():
            if isinstance(entry, Mapping) and entry.get("SecretName") == name:
                data = entry.get("SecretData")
                return {str(key): str(value) for key, value in data.items()} if isinstance(data, Mapping) else {}
        return {}

    def watch(self, callback: Watcher) -> Callable[[], None]:
        """Call `callback` with the changed paths after each change; return what ends that."""
        self._watchers.append(callback)
        return lambda: self._watchers.remove(callback)

    def set_local(self, path: str, value: Any) -> None:
        """Let a value of this process win over all others; it is not written to keeper."""
        branch: Any = value
        for part in reversed(path.split("/")):
            branch = {part: branch}
        self._local = merge(self._local, branch)
        self._apply()

    # --- following keeper ------------------------------------------------------------------------

    async def subscribe(self, edgex: EdgexBus) -> None:
        """Have every write to a live part noticed; `run` must be running for it to take effect.

        Raises:
            UnavailableError: the bus is closed.
        """

        async def on_message(message: EdgexMessage) -> None:
            self._stale.set()

        own, common, section = private_key(self.key), f"{COMMON}/all-services", f"{COMMON}/{section_of(self._kind)}"
        live = [f"{root}/Writable" for root in (own, common, section)] + [
            f"{own}/{name}" for name in self._own_sections
        ]
        for key in live:
            await edgex.subscribe(f"edgex/configs/{key}/#", on_message, absolute=True)
        # A tree put at once is told on its root key alone.
        for key in (own, common, section, *live):
            await edgex.subscribe(f"edgex/configs/{key}", on_message, absolute=True)

    def refresh(self) -> None:
        """Read keeper again soon: notices may have been missed."""
        self._stale.set()

    async def run(self, keeper: KeeperClient) -> None:
        """Re-read what changed, for ever; a keeper that is away is asked again every second."""
        told = False
        while True:
            await self._stale.wait()
            await asyncio.sleep(_BURST_S)
            self._stale.clear()
            try:
                await self.reread(keeper)
                told = False
            except TheirError as error:
                if not told:
                    log.warning("configuration cannot be read again: %s: trying on", error)
                    told = True
                self._stale.set()
                await asyncio.sleep(_RETRY_S)

    async def reread(self, keeper: KeeperClient) -> None:
        """Take over what keeper holds now for the live parts.

        Raises:
            UnavailableError: keeper did not answer.
        """
        own = private_key(self.key)
        private = {name: await keeper.get_tree(f"{own}/{name}") for name in ("Writable", *self._own_sections)}
        common = {"Writable": await keeper.get_tree(f"{COMMON}/all-services/Writable")}
        section = {"Writable": await keeper.get_tree(f"{COMMON}/{section_of(self._kind)}/Writable")}
        self._common = self._renewed(self._common, common)
        self._section = self._renewed(self._section, section)
        self._private = self._renewed(self._private, private)
        self._apply()

    def _renewed(self, old: Tree, live: Tree) -> Tree:
        return old | typed(live, self._defaults, "", self._current)

    def _current(self, path: str, error: ConfigurationError) -> Any:
        log.warning("%s: the former value stays", error)
        return self.get(path)

    def _merged(self) -> Tree:
        return merge(self._defaults, self._common, self._section, self._private, self._local)

    def _apply(self) -> None:
        old, self._tree = self._tree, self._merged()
        changed = changes(old, self._tree)
        if not changed:
            return
        log.debug("configuration changed: %s", ", ".join(sorted(changed)))
        for watcher in list(self._watchers):
            watcher(changed)
