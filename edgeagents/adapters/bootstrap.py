"""An EdgeX application or device service from start to end: what stands in every `python -m services.x`.

Flags and environment, keeper's configuration, the bus, clients, the service's own wiring, the web server,
registration, and all of it backwards on SIGTERM. In secure mode the secret store comes before all else (`security.py`).
NATS is ours (`EDGEAGENTS_NATS_URL`): EdgeX's `MessageBus` section describes EdgeX's own listener.

Source: edgex-wire.md section 3.4; design.md section 2.
"""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
from fastapi import FastAPI
from pydantic import ValidationError
from pydantic_settings import BaseSettings

from edgeagents.adapters.auth import Check
from edgeagents.adapters.bus import Bus
from edgeagents.adapters.config import Kind
from edgeagents.adapters.dead_letters import DeadLetters
from edgeagents.adapters.device_cache import DeviceCache
from edgeagents.adapters.edgex import CommandClient, DataClient, MetadataClient
from edgeagents.adapters.edgex_bus import EdgexBus, NatsTransport
from edgeagents.adapters.envelopes import PLAIN, Encoding
from edgeagents.adapters.keeper import HealthCheck, KeeperClient, Registration, RegistryAddress
from edgeagents.adapters.live_config import LiveConfig
from edgeagents.adapters.logs import configure_logging, set_log_level
from edgeagents.adapters.metrics import Metrics, Reporter
from edgeagents.adapters.micro import Micro
from edgeagents.adapters.middleware import limits_of
from edgeagents.adapters.options import Options, read_options
from edgeagents.adapters.otel import TelemetrySettings, follow, telemetry_of
from edgeagents.adapters.ports import host_in_url
from edgeagents.adapters.rest import FixedAddress, Rest, Tokens, make_http
from edgeagents.adapters.secret_settings import JwtSettings
from edgeagents.adapters.security import Secrets, Security, measured, open_security
from edgeagents.adapters.serving import bind, listening
from edgeagents.adapters.startup import (
    Budget,
    ConfigLoader,
    apply_hosts,
    check_version,
    client_url,
    host_of_others,
    refuse_duplicate,
)
from edgeagents.adapters.tls import scheme_of, server_tls
from edgeagents.adapters.token_files import FileToken, OwnToken
from edgeagents.adapters.web import WebContext, make_app
from edgeagents.errors import ConfigurationError, EdgeAgentsError, NotFoundError, TheirError, UnavailableError
from edgeagents.memory import give_back
from edgeagents.permissions import inbox
from edgeagents.settings import PREFIX, BusSettings, SiteTime, SiteTimeSettings, check_environment

log = logging.getLogger(__name__)

S = TypeVar("S", bound=BaseSettings)


@dataclass(frozen=True)
class ServiceSpec:
    """What one kind of service is to EdgeX.

    Args:
        key: EdgeX service key, may hold `<profile>`.
        kind: which common section counts.
        port: used when neither `config` nor file names one.
        config: the private configuration as `configuration.yaml` would hold it; a file on disk is merged over it.
        version: told by `/api/v3/version`.
        settings: further `EDGEAGENTS_*` settings the service reads, so that mistyped ones are refused.
        free_port_range: tried when the port is taken, then any free port outside 59700-59999.
    """

    key: str
    kind: Kind
    port: int
    config: dict[str, Any]
    version: str = "4.0.0"
    settings: tuple[type[BaseSettings], ...] = ()
    free_port_range: range | None = None


@dataclass
class EdgexService:
    """A started service: what its own code works with."""

    spec: ServiceSpec
    key: str
    base_url: str  # as registered
    options: Options
    settings: BusSettings
    site_time: SiteTime
    config: LiveConfig
    keeper: KeeperClient | None
    http: httpx.AsyncClient
    bus: Bus
    edgex: EdgexBus
    dead_letters: DeadLetters
    metadata: MetadataClient
    command: CommandClient
    data: DataClient
    devices: DeviceCache
    app: FastAPI
    secrets: Secrets
    security: Security
    stopping: asyncio.Event
    metrics: Metrics = field(default_factory=Metrics)
    encoding: Encoding = PLAIN
    micro: Micro = field(default_factory=lambda: Micro("", ""))
    tasks: asyncio.TaskGroup = field(default_factory=asyncio.TaskGroup)  # an exception in one ends the service

    async def secret(self, name: str) -> dict[str, str]:
        """Return a secret's data by its keys; empty when there is none of that name."""
        try:
            return await self.secrets.secret(name)
        except NotFoundError:
            return {}


Build = Callable[[EdgexService], AbstractAsyncContextManager[None]]


def run_service(spec: ServiceSpec, build: Build, argv: Sequence[str] | None = None) -> int:
    """Run a service until SIGINT or SIGTERM; return its exit code, 1 after an error that was told on stderr.

    Args:
        spec: what it is to EdgeX.
        build: adds its routes and starts its tasks; what follows its `yield` runs at the end.
        argv: flags; the process's own when None.
    """
    _settle()
    try:
        check_environment([BusSettings, SiteTimeSettings, TelemetrySettings, JwtSettings, *spec.settings])
        options = read_options(spec.key, sys.argv[1:] if argv is None else argv, os.environ)
        settings, site_time = _read(BusSettings), _read(SiteTimeSettings).clock()
        telemetry = _read(TelemetrySettings)
        _read(JwtSettings)
        for own in spec.settings:
            _read(own)  # the service reads them again; what cannot work is told here, before anything is started
    except ConfigurationError as error:
        print(f"{spec.key}: {error}", file=sys.stderr)
        return 1
    configure_logging(options.key)
    with telemetry_of(telemetry, options.key, spec.version), asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_with_signals(spec, build, options, settings, site_time))


def _settle() -> None:
    """Free what imports left over, and have no later collection look at what they made, some 50 ms each time."""
    gc.collect()
    gc.freeze()
    gc.enable()
    give_back()


async def serve(
    spec: ServiceSpec, build: Build, options: Options, settings: BusSettings, site_time: SiteTime,
    stopping: asyncio.Event, environ: Mapping[str, str] | None = None,
) -> int:  # fmt: skip
    """Run a service until `stopping` is set; return its exit code. For embedding and tests: takes no signals."""
    running = asyncio.Event()
    start = _Start(spec, options, settings, site_time, os.environ if environ is None else environ, stopping)
    life = asyncio.create_task(_live(start, build, running), name=options.key)
    stop = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({life, stop}, return_when=asyncio.FIRST_COMPLETED)
        if not life.done() and not running.is_set():
            life.cancel("told to stop before it was up")
        await asyncio.wait({life})
    finally:
        stop.cancel()
        if not life.done():  # we are cancelled ourselves
            life.cancel()
            await asyncio.wait({life})
    return _exit_code(life)


async def _with_signals(
    spec: ServiceSpec, build: Build, options: Options, settings: BusSettings, site_time: SiteTime
) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    return await serve(spec, build, options, settings, site_time, stopping)


def _exit_code(life: "asyncio.Task[None]") -> int:
    """Return 0 for an orderly end, else 1, with every cause logged."""
    if life.cancelled():
        log.info("stopped before it was up")
        return 0
    failure = life.exception()
    if failure is None:
        return 0
    for error in _leaves(failure):
        if isinstance(error, EdgeAgentsError):
            log.error("%s", error)
        else:
            log.error("unexpected %s", type(error).__name__, exc_info=error)
    return 1


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for part in error.exceptions for leaf in _leaves(part)]
    return [error]


def _read(cls: type[S]) -> S:
    try:
        return cls()
    except ValidationError as error:
        prefix = cls.model_config.get("env_prefix", "")
        problems = [
            f"environment variable {prefix}{'_'.join(str(part) for part in item['loc']).upper()}: {item['msg']}"
            for item in error.errors(include_url=False, include_input=False)
        ]
        raise ConfigurationError("; ".join(problems)) from error


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


class _EndedError(Exception):
    """Ends the service's task group in order, cancelling what still runs in it."""


@dataclass(frozen=True)
class _Start:
    """What a start needs to know."""

    spec: ServiceSpec
    options: Options
    settings: BusSettings
    site_time: SiteTime
    environ: Mapping[str, str]
    stopping: asyncio.Event


async def _live(start: _Start, build: Build, running: asyncio.Event) -> None:
    budget = Budget(start.options.startup_duration_s, start.options.startup_interval_s)
    async with AsyncExitStack() as stack:
        service, sock = await _prepare(start, budget, stack)
        tls = await server_tls(service.config, service.secret)
        try:
            async with service.tasks:
                _start_background(service)
                async with (
                    build(service),
                    listening(service.app, sock, service.tasks, tls),
                    _registered(service, budget, start.stopping),
                ):
                    await service.micro.serve(service.bus)
                    running.set()
                    log.info("%s at %s", service.config.text("Service/StartupMsg") or "started", service.base_url)
                    await start.stopping.wait()
                raise _EndedError
        except* _EndedError:
            log.info("stopped")
        finally:
            running.set()  # an end for a reason of its own is not cut short: the reason would be lost
            start.stopping.set()


async def _prepare(start: _Start, budget: Budget, stack: AsyncExitStack) -> tuple[EdgexService, socket.socket]:
    """Return a service that is connected to everything but does not listen yet."""
    spec, options = start.spec, start.options
    http = await stack.enter_async_context(make_http())
    security = await stack.enter_async_context(open_security(options, budget))
    tokens = _tokens(start.settings, security)
    keeper = KeeperClient(options.keeper_url, http, tokens=tokens) if options.keeper_url else None
    loader = ConfigLoader(options, spec.kind, spec.config, spec.port, start.environ)
    config = await loader.load(keeper, http, budget)
    apply_hosts(config, options)
    _follow_log_level(config)
    if options.use_registry:
        keeper = known = keeper or KeeperClient(_registry_url(config), http, tokens=tokens)
        await budget.until(
            f"the registry in core-keeper at {known.url}",
            lambda: refuse_duplicate(known, http, options.key, options.startup_interval_s),
        )
    sock = stack.enter_context(_own_socket(config, spec, start.settings.place_file))
    name, prefix = options.key, inbox(start.settings.nats_user) if start.settings.nats_user else ""
    bus = await budget.until(
        f"nats-server at {start.settings.nats_url}", lambda: Bus.connect(start.settings, name, inbox=prefix)
    )
    stack.push_async_callback(bus.close)
    return await _assemble(start, http, security, config, keeper, bus), sock


async def _assemble(
    start: _Start, http: httpx.AsyncClient, security: Security, config: LiveConfig, keeper: KeeperClient | None,
    bus: Bus,
) -> EdgexService:  # fmt: skip
    options, key, metrics = start.options, start.options.key, Metrics()
    dead_letters = DeadLetters(bus, key)
    encoding = Encoding.from_environ(start.environ)
    edgex = EdgexBus(
        NatsTransport(bus, encoding, config.text("MessageBus/Optional/Format")),
        start.settings.edgex_base,
        dead_letters,
        start.settings.edgex_bus,
    )

    own_tokens = _tokens(start.settings, security)

    def rest(service: str, tokens: Tokens | None = own_tokens) -> Rest:
        if keeper is not None and options.use_registry:
            return Rest(service, RegistryAddress(keeper, service, host_of_others(options)), http, tokens=tokens)
        return Rest(service, FixedAddress(client_url(config, service)), http, tokens=tokens)

    metadata = MetadataClient(rest("core-metadata"))
    devices = DeviceCache(metadata, settle=bus.flush)
    if options.keeper_url:
        await config.subscribe(edgex)
    await devices.subscribe(edgex)
    bus.on_reconnect(config.refresh)
    bus.on_reconnect(devices.refresh)
    secrets = measured(security.secrets(config, keeper if options.keeper_url else None), metrics)
    context = WebContext(
        key=key, version=start.spec.version, config=config.tree, limits=limits_of(config.tree()),
        store_secret=secrets.store, check=_check(start.settings, security, rest("security-proxy-auth", None)),
    )  # fmt: skip
    return EdgexService(
        spec=start.spec, key=key, base_url=_registration(config).base_url, options=options, settings=start.settings,
        site_time=start.site_time, config=config, keeper=keeper, http=http, bus=bus, edgex=edgex,
        dead_letters=dead_letters, metadata=metadata,
        command=CommandClient(rest("core-command"), edgex, devices.need_profile_of),
        data=DataClient(rest("core-data")), devices=devices, app=make_app(context), secrets=secrets, security=security,
        stopping=start.stopping, metrics=metrics, encoding=encoding,
        micro=Micro(key, start.spec.version, config.text("Service/StartupMsg"), {"gateway": start.settings.gateway}),
    )  # fmt: skip


def _tokens(settings: BusSettings, security: Security) -> Tokens | None:
    """Return where the tokens come from that our calls to EdgeX carry: the door's, where a setting names one."""
    return FileToken(settings.edgex_token_file) if settings.edgex_token_file is not None else security.tokens


def _check(settings: BusSettings, security: Security, proxy_auth: Rest) -> Check | None:
    """Return what checks callers: secure mode's, else behind the door our own token, which the guard alone has, too."""
    check = security.check(proxy_auth)
    if check is None and settings.edgex_token_file is not None:
        return OwnToken(settings.edgex_token_file).check
    return check


def _start_background(service: EdgexService) -> None:
    tasks, options = service.tasks, service.options
    follow(service.metrics, service.app)
    tasks.create_task(Reporter(service.metrics, service.edgex, service.config).run(), name="telemetry")
    tasks.create_task(service.security.run(), name="secret store")
    tasks.create_task(_end_with(service.bus), name="bus")
    tasks.create_task(service.dead_letters.run(), name="dead letters")
    tasks.create_task(service.devices.run(), name="devices")
    if service.keeper is not None and options.keeper_url:
        service.config.refresh()  # what changed between the reading and the subscription
        tasks.create_task(service.config.run(service.keeper), name="configuration")
    if not options.skip_version_check:
        tasks.create_task(check_version(service.metadata, options.startup_interval_s), name="version check")


async def _end_with(bus: Bus) -> None:
    await bus.closed.wait()
    raise UnavailableError(f"nats {bus.settings.nats_url} closed the connection for good: see the lines before")


@contextlib.contextmanager
def _own_socket(config: LiveConfig, spec: ServiceSpec, place: Path | None) -> Iterator[socket.socket]:
    host = config.text("Service/ServerBindAddr") or config.text("Service/Host")
    sock = bind(host, int(config.get("Service/Port", 0)), key=config.key, others=spec.free_port_range)
    config.set_local("Service/Port", sock.getsockname()[1])
    if place is not None:
        _write_place(place, *sock.getsockname()[:2])
    with contextlib.closing(sock):
        yield sock


def _write_place(file: Path, host: str, port: int) -> None:
    written = f"[{host}]" if ":" in host else host  # as in a URL
    try:
        file.write_text(f"{written}:{port}\n", encoding="ascii")
    except OSError as error:
        raise ConfigurationError(
            f"{PREFIX}PLACE_FILE {file}: {error.strerror}: name a file in a folder that this service may write"
        ) from error


def _registry_url(config: LiveConfig) -> str:
    return f"http://{host_in_url(config.text('Registry/Host'))}:{config.text('Registry/Port')}"


def _registration(config: LiveConfig) -> Registration:
    return Registration(
        service_id=config.key,
        host=config.text("Service/Host"),
        port=config.get("Service/Port"),
        HealthCheck=HealthCheck(interval=config.text("Service/HealthCheckInterval") or "10s", type=scheme_of(config)),
    )


def _follow_log_level(config: LiveConfig) -> None:
    def on_change(paths: frozenset[str]) -> None:
        if "Writable/LogLevel" in paths:
            set_log_level(config.text("Writable/LogLevel"))

    set_log_level(config.text("Writable/LogLevel"))
    config.watch(on_change)


@asynccontextmanager
async def _registered(service: EdgexService, budget: Budget, stopping: asyncio.Event) -> AsyncIterator[None]:
    """Be in keeper's registry inside the block, and say HALT at its end in order; who ends by an error is missed."""
    keeper, own = service.keeper, _registration(service.config)
    if keeper is None or not service.options.use_registry:
        yield
        return
    await budget.until(f"registration in core-keeper at {keeper.url}", lambda: keeper.register(own))
    try:
        yield
    finally:
        try:
            if stopping.is_set():
                await keeper.halt(own)
        except TheirError as error:
            log.warning("core-keeper was not told that we stop: %s", error)
