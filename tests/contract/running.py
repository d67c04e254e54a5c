"""Our services in this process, beside an EdgeX: started as `python -m services.x` would, stopped in order."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from edgeagents.adapters.bootstrap import Build, EdgexService, ServiceSpec, serve
from edgeagents.adapters.config import merge
from edgeagents.adapters.options import read_options
from edgeagents.settings import SiteTime
from tests.contract.edgex import Edgex
from tests.contract.waiting import until
from tests.nats import free_port

STOP_S = 10.0
START_S = 15.0
HEALTH_INTERVAL = "1s"


@dataclass
class Running:
    """A service that runs; `stop` ends it in order."""

    service: EdgexService
    _stopping: asyncio.Event
    _life: "asyncio.Task[int]"

    async def stop(self) -> int:
        """Tell it to stop; return its exit code."""
        self._stopping.set()
        return await asyncio.wait_for(self._life, STOP_S)


def app_spec(edgex: Edgex, key: str, config: dict[str, Any] | None = None) -> ServiceSpec:
    """Return an application service on a free port; `config` is merged over what it needs here."""
    return ServiceSpec(
        key=key, kind="app", port=free_port(), config=merge({"Service": own_service_section(edgex)}, config or {})
    )


@asynccontextmanager
async def nothing_more(service: EdgexService) -> AsyncIterator[None]:
    """Build a service that has nothing of its own."""
    yield


def own_service_section(edgex: Edgex) -> dict[str, Any]:
    """Return the section `Service` that lets EdgeX reach us, with a health check that does not take long."""
    target = edgex.target
    return {"Host": target.host, "ServerBindAddr": target.bind, "HealthCheckInterval": HEALTH_INTERVAL}


async def run(
    edgex: Edgex, nats_url: str, spec: ServiceSpec, build: Build, stopping: asyncio.Event,
    environ: Mapping[str, str] | None = None,
) -> int:  # fmt: skip
    """Run a service until `stopping` is set, with the flags and variables of EdgeX; return its exit code."""
    base = {"EDGEX_SECURITY_SECRET_STORE": "false", "EDGEX_STARTUP_DURATION": "10", "EDGEX_STARTUP_INTERVAL": "0.1"}
    variables = base | dict(environ or {})
    options = read_options(spec.key, _flags(edgex), variables)
    return await serve(
        spec, build, options, edgex.target.settings(nats_url), SiteTime(), stopping, environ=variables
    )  # fmt: skip


def _flags(edgex: Edgex) -> Sequence[str]:
    provider = edgex.target.keeper_url.replace("http://", "keeper.http://")
    hosts = (edgex.target.host, edgex.other_host, edgex.target.bind)
    return [f"-cp={provider}", "-r", *([f"-rsh={','.join(hosts)}"] if edgex.other_host else [])]


@asynccontextmanager
async def running(
    edgex: Edgex, nats_url: str, spec: ServiceSpec, build: Build, environ: Mapping[str, str] | None = None
) -> AsyncIterator[Running]:
    """Run a service while the context is open; entered once it is registered and knows EdgeX's devices."""
    made: asyncio.Future[EdgexService] = asyncio.get_running_loop().create_future()

    @asynccontextmanager
    async def noted(service: EdgexService) -> AsyncIterator[None]:
        async with build(service):
            made.set_result(service)
            yield

    stopping = asyncio.Event()
    life = asyncio.create_task(run(edgex, nats_url, spec, noted, stopping, environ), name=spec.key)
    try:
        await until(lambda: made.done() or life.done(), f"{spec.key} starts", timeout_s=START_S)
        assert made.done(), f"{spec.key} ended with {life.result()}: see the log"
        await until(lambda: _registered(edgex, made.result()), f"{spec.key} is registered", timeout_s=START_S)
        await made.result().devices.wait_ready(START_S)
        yield Running(made.result(), stopping, life)
    finally:
        stopping.set()
        _, late = await asyncio.wait({life}, timeout=STOP_S)
        if late:
            life.cancel()
            await asyncio.wait({life})


async def _registered(edgex: Edgex, service: EdgexService) -> bool:
    known = await edgex.keeper.registrations()
    return any((item.service_id, item.base_url) == (service.key, service.base_url) for item in known)


@asynccontextmanager
async def listening_only(host: str) -> AsyncIterator[int]:
    """Take connections and never answer while the context is open; yields the port."""
    taken: set[asyncio.StreamWriter] = set()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.add(writer)

    server = await asyncio.start_server(take, host, 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for writer in taken:
            writer.transport.abort()
