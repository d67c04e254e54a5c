"""A service that is told to speak HTTPS does, and registers so that keeper asks it over HTTPS."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from edgeagents.adapters.bootstrap import EdgexService, ServiceSpec, serve
from edgeagents.adapters.options import Options
from edgeagents.settings import SiteTime
from tests.certificates import a_pair
from tests.fake_edgex import FakeEdgex
from tests.nats import NatsServer, free_port, until


@asynccontextmanager
async def nothing_to_build(service: EdgexService) -> AsyncIterator[None]:
    """Add nothing."""
    yield


def a_start(edgex: FakeEdgex, nats: NatsServer, stopping: asyncio.Event, **secret: str) -> "asyncio.Task[int]":
    """Start a service whose web secret holds this."""
    config = {
        "HttpServer": {"Protocol": "https", "SecretName": "web", "HTTPSCertName": "crt", "HTTPSKeyName": "key"},
        "Writable": {"InsecureSecrets": {"web": {"SecretName": "web", "SecretData": secret}}},
    }
    spec = ServiceSpec("app-test", "app", free_port(), config)
    options = Options(
        "app-test", keeper_url=edgex.url, use_registry=True, startup_duration_s=10.0, startup_interval_s=0.02
    )
    environ = {"SERVICE_HOST": "127.0.0.1"}
    running = serve(spec, nothing_to_build, options, nats.settings(), SiteTime(), stopping, environ)
    return asyncio.create_task(running)


async def test_a_service_serves_https_and_tells_keeper(nats_server: NatsServer) -> None:
    edgex, stopping, (certificate, key) = FakeEdgex(), asyncio.Event(), a_pair()
    async with edgex.serving():
        edgex.register_core()
        task = a_start(edgex, nats_server, stopping, crt=certificate, key=key)
        await until(lambda: "app-test" in edgex.registry)
        entry = edgex.registry["app-test"]
        assert entry["HealthCheck"]["type"] == "https"
        trusting = ssl.create_default_context(cadata=certificate)
        async with httpx.AsyncClient(verify=trusting, trust_env=False) as client:
            answer = await client.get(f"https://127.0.0.1:{entry['port']}/api/v3/config")
        assert answer.status_code == 200
        assert key not in answer.text
        assert answer.json()["config"]["HttpServer"]["SecretName"] == "web"
        stopping.set()
        assert await asyncio.wait_for(task, 10) == 0


async def test_https_without_its_secret_ends_the_start_with_what_is_missing(
    nats_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    edgex, stopping = FakeEdgex(), asyncio.Event()
    async with edgex.serving():
        edgex.register_core()
        assert await asyncio.wait_for(a_start(edgex, nats_server, stopping), 10) == 1
    assert "secret 'web' holds no 'crt' (HTTPSCertName)" in caplog.text
    assert "app-test" not in edgex.registry
