"""The embedded EdgeX core: keeper, metadata, data and command in one process, a port each, on one broker.

Start here: `python -m edgeagents.embedded.core --state DIR`. Each service is its own FastAPI app; all four are served
by one event loop. Sockets are bound before anything else, so that a taken port is told at once; once all four answer,
one line of JSON with their addresses is printed. The broker may come later, go and come back.

Leaves out on purpose: the support services, the secret store and everything that only a container image needs.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import httpx
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict
from starlette.types import ASGIApp

from edgeagents.adapters.logs import LineFormatter
from edgeagents.adapters.metrics import Reporter
from edgeagents.adapters.otel import TelemetrySettings, follow, telemetry_of
from edgeagents.adapters.serving import WebServer
from edgeagents.adapters.token_files import TokenFile
from edgeagents.embedded import command_routes, data_routes, keeper, metadata_routes, registry
from edgeagents.embedded.command import Commands
from edgeagents.embedded.common_config import Addresses, common_leaves, service_config
from edgeagents.embedded.core_config import CoreConfig, private_leaves
from edgeagents.embedded.data import Data
from edgeagents.embedded.event_store import SCHEMA, EventStore
from edgeagents.embedded.http import MAX_RESULTS, VERSION, Guard, make_app, wrap
from edgeagents.embedded.link import Link
from edgeagents.embedded.metadata import Metadata
from edgeagents.embedded.storage import Database, StateFolder, Table
from edgeagents.errors import ConfigurationError, EdgeAgentsError
from edgeagents.settings import PREFIX, BusSettings, SiteTimeSettings, check_environment

log = logging.getLogger("edgeagents.embedded.core")

SERVICES: Final = ("keeper", "metadata", "data", "command")
_DRAIN_S: Final = 1.2  # for open requests; the whole end is to take less than 2 s
_BUS_HEAD_START_S: Final = 0.5  # a broker that is there is reached within milliseconds
_KEYS: Final = {name: f"core-{name}" for name in SERVICES}
PROBE_TIMEOUT_S: Final = 5.0  # keeper's own RequestTimeout
NO_TIMEOUT_S: Final = 600.0  # what `RequestTimeout` 0 means


class CoreSettings(BaseSettings):
    """How the embedded core runs; each setting is a flag too (`--keeper-port`), and the flag wins."""

    model_config = SettingsConfigDict(env_prefix=f"{PREFIX}CORE_", frozen=True)

    state: Path = Field(Path("var/core"), description="folder that holds its databases")
    host: str = Field("127.0.0.1", description="address to listen on")
    advertise: str = Field("", description="host name that others reach it at; empty: the address it listens on")
    keeper_port: int = Field(59890, ge=0, le=65535, description="port of core-keeper; 0: any free one")
    metadata_port: int = Field(59881, ge=0, le=65535, description="port of core-metadata; 0: any free one")
    data_port: int = Field(59880, ge=0, le=65535, description="port of core-data; 0: any free one")
    command_port: int = Field(59882, ge=0, le=65535, description="port of core-command; 0: any free one")
    mqtt_port: int = Field(1883, ge=1, le=65535, description="the broker's MQTT port, told to EdgeX services")
    tokens: Path | None = Field(None, description="file of 'name: token' lines; core-command then demands one")
    request_timeout_s: float | None = Field(
        None, gt=0, le=600, description="longest wait of a caller; not given: Service/RequestTimeout in keeper, 5 s"
    )
    device_timeout_s: float = Field(60.0, gt=0, le=3600, description="when a call to a device service is given up")
    max_events: int = Field(200_000, ge=1, description="events that core-data keeps")
    max_event_age_s: float = Field(604_800.0, gt=0, description="age at which core-data drops an event")
    log_level: str = Field("INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="least level that is logged")


class Core:
    """The four services, wired."""

    def __init__(self, settings: CoreSettings, bus: BusSettings, addresses: Addresses, allowed: Guard | None) -> None:
        """Open the databases and build the apps.

        Raises:
            ConfigurationError: the state folder cannot be used.
            StoreError: a database cannot be opened.
        """
        self.folder = StateFolder(settings.state)
        self._databases: list[Database] = []
        self.link = Link(bus)
        self.http = _device_http()
        keys = self._open("keeper", durable=True)
        self.key_values = keeper.KeyValues(Table(keys, "key_values"), self.link)
        self.key_values.seed(common_leaves(addresses, bus) | private_leaves(addresses, settings.log_level))
        self.configs = {name: CoreConfig(_KEYS[name], addresses, bus, self.key_values) for name in SERVICES[1:]}
        if settings.request_timeout_s is not None:
            for config in self.configs.values():
                config.set_local("Service/RequestTimeout", f"{settings.request_timeout_s:.3f}s")
        self.limits = {name: config.limits() for name, config in self.configs.items()}
        self.registry = registry.Registry(
            Table(keys, "registrations"), registry.http_probe(self.http, settings.request_timeout_s or PROBE_TIMEOUT_S)
        )
        self.metadata = self._metadata()
        self.data = self._data(settings)
        self.metrics = {"data": self.data.metrics}
        self.commands = Commands(
            self.metadata, self.http, addresses, self.link,
            timeout_s=self.limits["command"].request_timeout_s or NO_TIMEOUT_S,
            device_timeout_s=settings.device_timeout_s,
        )  # fmt: skip
        self.apps = self._apps(addresses, bus, allowed)

    def _metadata(self) -> Metadata:
        things = self._open("metadata", durable=True)
        services, profiles, devices = (Table(things, name) for name in ("services", "profiles", "devices"))
        return Metadata(
            services, profiles, devices, self.link,
            timeout_s=self.limits["metadata"].request_timeout_s or NO_TIMEOUT_S, writable=self._writable("metadata"),
        )  # fmt: skip

    def _data(self, settings: CoreSettings) -> Data:
        events = self._open("data", SCHEMA, durable=False)
        store = EventStore(events, max_events=settings.max_events, max_age_s=settings.max_event_age_s)
        return Data(store, self.link, self._writable("data"), int(self.configs["data"].get("MaxEventSize")))

    def _writable(self, name: str) -> Callable[[str], Any]:
        return lambda path: self.configs[name].get(f"Writable/{path}")

    def _open(self, name: str, schema: str = "", *, durable: bool) -> Database:
        database = Database(self.folder.path / f"{name}.sqlite", schema, durable=durable)
        self._databases.append(database)
        return database

    def _apps(self, addresses: Addresses, bus: BusSettings, allowed: Guard | None) -> dict[str, ASGIApp]:
        made = {}
        parts: dict[str, list[tuple[Any, Any]]] = {
            "keeper": [(keeper, self.key_values), (registry, self.registry)],
            "metadata": [(metadata_routes, self.metadata)],
            "data": [(data_routes, self.data)],
            "command": [(command_routes, self.commands)],
        }
        own = service_config(_KEYS["keeper"], addresses.keeper, addresses, bus)  # keeper reads no keeper
        for name, routed in parts.items():
            config = self.configs.get(name)
            most = MAX_RESULTS if config is None else int(config.get("Service/MaxResultCount"))
            app = make_app(_KEYS[name], config.shown if config is not None else lambda: own, most)
            for module, part in routed:
                module.add_routes(app, part)
            if name in self.metrics:
                follow(self.metrics[name], app)
            made[name] = wrap(app, self.limits.get(name), allowed if name == "command" else None)
        return made

    def start(self, group: asyncio.TaskGroup, addresses: Addresses) -> list[asyncio.Task[None]]:
        """Start what runs beside the apps; return its tasks."""
        self.commands.start(group)
        tasks = self.data.start(group)
        for name, metrics in self.metrics.items():
            reporter = Reporter(metrics, self.link, self.configs[name])
            tasks.append(group.create_task(reporter.run(), name=f"telemetry of {name}"))
        for name in SERVICES[1:]:  # keeper is not in its own registry
            port = getattr(addresses, name)
            self.registry.enter_now(registry.own_registration(_KEYS[name], addresses.host, port))
        self.registry.start(group)
        return [*tasks, group.create_task(self.link.run(), name="link")]

    async def close(self) -> None:
        """Write what waits, say goodbye, close the databases."""
        with contextlib.suppress(EdgeAgentsError):
            await self.data.flush()
            self.registry.halt_now([_KEYS[name] for name in SERVICES[1:]])
        await self.http.aclose()
        for database in self._databases:
            database.close()
        self.folder.close()


def _device_http() -> httpx.AsyncClient:
    # Device services are neighbours: proxies of the environment are not for them. An idle connection is given up
    # before uvicorn's 5 s, so that none is reused while the other side closes it.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=2.0)
    return httpx.AsyncClient(trust_env=False, limits=limits)


@contextlib.contextmanager
def _bound(settings: CoreSettings) -> Iterator[dict[str, socket.socket]]:
    """Yield a listening socket per service.

    Raises:
        ConfigurationError: a port is taken, or the address is not this machine's.
    """
    with contextlib.ExitStack() as stack:
        sockets = {}
        for name in SERVICES:
            port = getattr(settings, f"{name}_port")
            try:
                family = socket.getaddrinfo(settings.host, port, type=socket.SOCK_STREAM)[0][0]
                sockets[name] = stack.enter_context(
                    socket.create_server((settings.host, port), family=family, backlog=512)
                )
            except OSError as error:
                raise ConfigurationError(
                    f"core-{name} cannot listen on {settings.host} port {port}: {error.strerror or error}: "
                    f"end what uses it, or give another port (--{name}-port)"
                ) from error
        yield sockets


async def serve(settings: CoreSettings, bus: BusSettings) -> None:
    """Run the core until SIGINT or SIGTERM.

    Raises:
        ConfigurationError: a port, a file or a folder cannot be used.
        StoreError: a database cannot be opened.
    """
    tokens = TokenFile(settings.tokens, command_routes.read_tokens) if settings.tokens is not None else None
    with _bound(settings) as sockets:
        ports = {name: bound.getsockname()[1] for name, bound in sockets.items()}
        addresses = Addresses(settings.advertise or settings.host, **ports, mqtt_port=settings.mqtt_port)
        core = Core(settings, bus, addresses, command_routes.bearer_guard(tokens) if tokens else None)
        try:
            await _run(core, addresses, sockets)
        finally:
            await core.close()


async def _run(core: Core, addresses: Addresses, sockets: dict[str, socket.socket]) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    servers = {name: WebServer(core.apps[name]) for name in SERVICES}
    async with asyncio.TaskGroup() as group:
        tasks = core.start(group, addresses)
        serving = [group.create_task(servers[name].serve([sockets[name]]), name=name) for name in SERVICES]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_BUS_HEAD_START_S):
                await core.link.tried.wait()
        for server in servers.values():
            await server.listening.wait()
        _say_ready(core, addresses)
        await stopping.wait()
        for server in servers.values():
            server.should_exit = True
        await asyncio.wait(serving, timeout=_DRAIN_S)
        core.commands.stop()
        core.registry.stop()
        await core.link.flush()
        for task in (*serving, *tasks):
            task.cancel()


def _say_ready(core: Core, addresses: Addresses) -> None:
    line: dict[str, Any] = {"ready": True} | {name: addresses.url(name) for name in SERVICES}
    line["bus"] = "connected" if core.link.is_connected else "waiting"
    print(json.dumps(line), flush=True)


def _flags(argv: Sequence[str] | None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(
        prog="python -m edgeagents.embedded.core",
        description="EdgeX core services for a laptop and for tests: keeper, metadata, data, command in one process.",
        epilog=f"Every flag can be given as a variable too: --keeper-port as {PREFIX}CORE_KEEPER_PORT. "
        f"The broker is named by {PREFIX}NATS_URL and its companions.",
    )
    for name, field in CoreSettings.model_fields.items():
        default = f" (default {field.default})" if field.default not in (None, "") else ""
        parser.add_argument(f"--{name.replace('_', '-')}", metavar="VALUE", help=f"{field.description}{default}")
    return {name: value for name, value in vars(parser.parse_args(argv)).items() if value is not None}


def _settings(flags: dict[str, Any]) -> tuple[CoreSettings, BusSettings, TelemetrySettings]:
    """Return the settings in force.

    Raises:
        ConfigurationError: one is unknown or wrong; names it.
    """
    check_environment([BusSettings, SiteTimeSettings, CoreSettings, TelemetrySettings])
    try:
        return CoreSettings(**flags), BusSettings(), TelemetrySettings()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0])
        own = f"--{name.replace('_', '-')} or {PREFIX}CORE_{name.upper()}"
        where = {
            CoreSettings.__name__: own,
            TelemetrySettings.__name__: f"{PREFIX}OTEL_{name.upper()}",
        }.get(error.title, f"{PREFIX}{name.upper()}")
        raise ConfigurationError(f"{where}: {first['msg']}") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Run the embedded core; return the process's exit code."""
    flags = _flags(argv)
    try:
        settings, bus, telemetry = _settings(flags)
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(LineFormatter("%(asctime)s core %(levelname)s %(message)s"))
        logging.basicConfig(level=settings.log_level, handlers=[handler])
        logging.getLogger("httpx").setLevel(logging.WARNING)
        with telemetry_of(telemetry, "core", VERSION), asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(serve(settings, bus))
    except EdgeAgentsError as error:
        print(f"embedded core: {error}", file=sys.stderr)
        return 1
    return 0


def _loop_factory() -> Any:
    try:
        import uvloop
    except ImportError:  # not on every platform
        return None
    return uvloop.new_event_loop


if __name__ == "__main__":
    sys.exit(main())
