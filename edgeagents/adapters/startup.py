"""The steps before a service serves: wait for what it needs, load its configuration, make sure it is alone.

All waits share one budget, 60 s by default; whoever exceeds it is told what was waited for.

Source: edgex-wire.md sections 3.1 to 3.4.
"""

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx

from edgeagents.adapters.answers import whole_answer
from edgeagents.adapters.config import (
    COMMON,
    READY,
    Kind,
    Tree,
    lookup,
    merge,
    override,
    parse_bool,
    parse_yaml,
    private_key,
    read_yaml,
    section_of,
    typed,
)
from edgeagents.adapters.defaults import common_defaults, private_defaults
from edgeagents.adapters.edgex import MetadataClient
from edgeagents.adapters.keeper import KeeperClient, Registration
from edgeagents.adapters.live_config import LiveConfig
from edgeagents.adapters.options import Options
from edgeagents.adapters.ports import host_in_url
from edgeagents.adapters.rest import FixedAddress, Rest
from edgeagents.errors import ConfigurationError, NotFoundError, TheirError, UnavailableError, UpstreamError

log = logging.getLogger(__name__)

T = TypeVar("T")
MAJOR: Final = "4"
_DUPLICATE_TRIES: Final = 3


class Budget:
    """The time that all waits of a start share."""

    def __init__(self, duration_s: float = 60.0, interval_s: float = 1.0) -> None:
        """Start counting; try again every `interval_s`."""
        self.duration_s = duration_s
        self.interval_s = interval_s
        self._end = time.monotonic() + duration_s

    async def until(self, what: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """Return what `attempt` returns once it succeeds; says once that it is waited for.

        Raises:
            UnavailableError: it did not before the budget was spent; names `what` and the last reason.
        """
        told = False
        while True:
            try:
                return await attempt()
            except (UnavailableError, UpstreamError) as error:  # a keeper whose database starts answers 500
                if not told:
                    log.warning("waiting for %s: %s", what, error)
                    told = True
                if time.monotonic() + self.interval_s > self._end:
                    raise UnavailableError(
                        f"gave up waiting for {what} after {self.duration_s:g} s (EDGEX_STARTUP_DURATION): {error}"
                    ) from error
            await asyncio.sleep(self.interval_s)


class ConfigLoader:
    """Where a service's configuration comes from: keeper, files and the environment."""

    def __init__(
        self, options: Options, kind: Kind, own: Mapping[str, Any], port: int, environ: Mapping[str, str]
    ) -> None:
        """Prepare; `own` is the private tree as `configuration.yaml` would hold it."""
        self._options = options
        self._kind: Kind = kind
        self._environ = environ
        self._private = merge(private_defaults(options.key, kind, port), own)
        self._defaults = merge(common_defaults(kind), self._private)

    async def load(self, keeper: KeeperClient | None, http: httpx.AsyncClient, budget: Budget) -> LiveConfig:
        """Return the configuration; a private part that keeper lacks is seeded from file and environment.

        Raises:
            UnavailableError: keeper or the common configuration did not come within the budget.
            ConfigurationError: a file or a value that cannot be.
        """
        if keeper is None:
            return await self._from_files(http)
        await budget.until(f"core-keeper at {keeper.url} (EDGEX_CONFIG_PROVIDER)", keeper.ping)
        await budget.until("the common configuration", lambda: _common_ready(keeper))
        return await budget.until("the configuration in core-keeper", lambda: self._from_keeper(keeper, http))

    async def _from_keeper(self, keeper: KeeperClient, http: httpx.AsyncClient) -> LiveConfig:
        own = private_key(self._options.key)
        if self._options.overwrite or not await keeper.has(own):
            tree = override(await self._file_tree(http), self._environ)
            await keeper.put_tree(own, tree)
            log.info("configuration written to core-keeper below %s", own)
        common = await keeper.get_tree(f"{COMMON}/all-services")
        section = await keeper.get_tree(f"{COMMON}/{section_of(self._kind)}")
        private = await keeper.get_tree(own)
        try:
            return LiveConfig(
                self._options.key, self._kind, self._defaults, common=common, section=section, private=private
            )
        except ConfigurationError as error:
            raise ConfigurationError(f"{error} (read from core-keeper, {own} or {COMMON})") from error

    async def _from_files(self, http: httpx.AsyncClient) -> LiveConfig:
        common: Tree = {}
        if self._options.common_config:
            common = await self._read(self._options.common_config, http)
        parts = merge(common.get("all-services") or {}, common.get(section_of(self._kind)) or {})
        tree = merge(common_defaults(self._kind), parts, await self._file_tree(http))
        tree = override(typed(tree, self._defaults), self._environ)
        return LiveConfig(self._options.key, self._kind, self._defaults, private=tree)

    async def _file_tree(self, http: httpx.AsyncClient) -> Tree:
        where = self._options.config_location()
        is_url = where.startswith(("http://", "https://"))
        if not is_url and not self._options.names_a_file and not await asyncio.to_thread(Path(where).exists):
            return self._private
        try:
            return merge(self._private, typed(await self._read(where, http), self._defaults))
        except ConfigurationError as error:
            raise ConfigurationError(f"{error} (read from {where})") from error

    async def _read(self, where: str, http: httpx.AsyncClient) -> Tree:
        if not where.startswith(("http://", "https://")):
            return await asyncio.to_thread(read_yaml, Path(where))
        try:
            async with asyncio.timeout(self._options.file_timeout_s):
                request = http.build_request("GET", where, timeout=self._options.file_timeout_s)
                answer = await whole_answer(http, request, f"configuration file {where}")
                answer.raise_for_status()
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError, TimeoutError) as error:
            raise UnavailableError(f"configuration file {where}: {str(error) or type(error).__name__}") from error
        return parse_yaml(answer.text, f"configuration file {where}")


async def _common_ready(keeper: KeeperClient) -> None:
    try:
        said = (await keeper.get(READY)).get(READY, "")
        ready = parse_bool(said)
    except (NotFoundError, ValueError):
        ready = False
    if not ready:
        missing = f"core-keeper has no true {READY}"
        if version := await _foreign_version(keeper):
            # An EdgeX of another version keeps its configuration elsewhere: nothing that is waited for will come.
            raise UnavailableError(
                f"{missing}, and is version {version}: this service needs {MAJOR}.x: use an EdgeX {MAJOR}, or name "
                "another core-keeper (-cp)"
            )
        raise UnavailableError(f"{missing}: has core-common-config-bootstrapper run?")


async def _foreign_version(keeper: KeeperClient) -> str:
    """Return keeper's version where it is known and of another major one; else an empty text."""
    try:
        version = await keeper.version()
    except TheirError:
        return ""
    return "" if _fits(version) else version


def _fits(version: str) -> bool:
    return version in ("0.0.0", "master", "") or version.lstrip("v").split(".")[0] == MAJOR


def apply_hosts(config: LiveConfig, options: Options) -> None:
    """Let `-d` and `-rsh` win over the configured hosts."""
    if options.remote_hosts is not None:
        own, others, bind = options.remote_hosts
    elif options.dev:
        own, others, bind = _local_address(), "localhost", "0.0.0.0"
    else:
        return
    config.set_local("Service/Host", own)
    config.set_local("Service/ServerBindAddr", bind)
    for client in config.get("Clients", {}):
        config.set_local(f"Clients/{client}/Host", others)


def host_of_others(options: Options) -> str:
    """Return the host that takes the place of every registered one; empty: none does."""
    return options.remote_hosts[1] if options.remote_hosts else "localhost" if options.dev else ""


def _local_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # documentation address: nothing is sent, only a route is chosen
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


async def refuse_duplicate(keeper: KeeperClient, http: httpx.AsyncClient, key: str, interval_s: float) -> None:
    """Return when nobody runs under our key; one that is just ending gets a moment. To be called before we listen.

    Raises:
        ConfigurationError: another instance answers.
        UnavailableError: keeper did not answer.
    """
    for attempt in range(_DUPLICATE_TRIES):
        if attempt:
            await asyncio.sleep(interval_s)
        try:
            other = await keeper.registration(key)
        except NotFoundError:
            return
        if not await _answers_as(http, other):
            return
    raise ConfigurationError(
        f"service key {key} is already running at {other.base_url}: stop that one, or give this one "
        "another key (-sk, EDGEX_SERVICE_KEY)"
    )


async def _answers_as(http: httpx.AsyncClient, other: Registration) -> bool:
    try:
        answer = await Rest(other.service_id, FixedAddress(other.base_url), http).call(
            "GET", "/api/v3/ping", timeout_s=2.0
        )
    except TheirError:
        return False
    return isinstance(answer, dict) and answer.get("serviceName") == other.service_id


async def check_version(metadata: MetadataClient, interval_s: float) -> None:
    """Return once core-metadata said a version that fits; asks until it answers.

    Raises:
        ConfigurationError: its major version is another than ours.
    """
    while True:
        try:
            version = await metadata.version()
            break
        except TheirError as error:
            log.debug("version of core-metadata: %s", error)
        await asyncio.sleep(interval_s)
    if not _fits(version):
        raise ConfigurationError(
            f"core-metadata is version {version}, this service needs {MAJOR}.x: use an EdgeX {MAJOR}, "
            "or start with --skipVersionCheck"
        )


def client_url(config: LiveConfig, service: str) -> str:
    """Return a core service's address as `Clients` has it.

    Raises:
        ConfigurationError: it has none.
    """
    client = lookup(config.tree(), f"Clients/{service}")
    if not isinstance(client, Mapping) or not client.get("Host") or not client.get("Port"):
        raise ConfigurationError(f"configuration Clients/{service}: Host and Port are needed, or start with --registry")
    return f"{client.get('Protocol') or 'http'}://{host_in_url(str(client['Host']))}:{client['Port']}"
