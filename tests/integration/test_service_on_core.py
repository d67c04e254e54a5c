"""A trivial service on the embedded core: what keeper, core-metadata and the owner see of it."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edgeagents.adapters.bootstrap import EdgexService, ServiceSpec, serve
from edgeagents.adapters.device_cache import Change
from edgeagents.adapters.keeper import KeeperClient
from edgeagents.adapters.options import Options
from edgeagents.adapters.rest import make_http
from edgeagents.model.device import Device, DeviceService, Profile
from edgeagents.settings import SiteTime
from tests.contract.waiting import until
from tests.embedded_core import EmbeddedCore
from tests.fake_edgex import LAMP, LAMP_PROFILE
from tests.nats import NatsServer, free_port

SPEC = ServiceSpec(
    "app-trivial", "app", 59750, {"Service": {"HealthCheckInterval": "1s"}}, free_port_range=range(59750, 59800)
)


@pytest.fixture
def core(nats_server: NatsServer, tmp_path: Path) -> Iterator[EmbeddedCore]:
    """A running embedded core on the test's broker."""
    running = EmbeddedCore(tmp_path / "core", nats_server.url).start()
    yield running
    running.kill()


@pytest.fixture(autouse=True)
def log_level() -> Iterator[None]:
    """Give the root logger its level back: a service sets it."""
    before = logging.getLogger().level
    yield
    logging.getLogger().setLevel(before)


class Trivial:
    """A service that only holds what every service has."""

    def __init__(self, nats: NatsServer, keeper_url: str) -> None:
        self.stopping = asyncio.Event()
        self.built: asyncio.Future[EdgexService] = asyncio.get_running_loop().create_future()
        options = Options("app-trivial", keeper_url=keeper_url, use_registry=True, startup_interval_s=0.05)
        environ = {"SERVICE_HOST": "127.0.0.1", "SERVICE_PORT": str(free_port())}
        self.task = asyncio.create_task(
            serve(SPEC, self._build, options, nats.settings(), SiteTime(), self.stopping, environ)
        )

    @asynccontextmanager
    async def _build(self, service: EdgexService) -> AsyncIterator[None]:
        self.built.set_result(service)
        yield

    async def __aenter__(self) -> "Trivial":
        return self

    async def __aexit__(self, *_: object) -> None:
        assert await self.stop() == 0

    async def stop(self) -> int:
        """End in order; return the exit code."""
        self.stopping.set()
        return await asyncio.wait_for(self.task, 10)


async def test_keeper_shows_up_then_halt(nats_server: NatsServer, core: EmbeddedCore) -> None:
    async with Trivial(nats_server, core.urls["keeper"]) as trivial, make_http() as http:
        keeper = KeeperClient(core.urls["keeper"], http)

        async def status() -> str:
            found = [item.status for item in await keeper.registrations(halted=True) if item.service_id == SPEC.key]
            return found[0] if found else ""

        async def is_up() -> bool:
            return await status() == "UP"

        await until(is_up, "UP in keeper's registry", timeout_s=15)
        assert await trivial.stop() == 0
        assert await status() == "HALT"


async def test_a_log_level_put_into_keeper_applies_in_under_a_second(
    nats_server: NatsServer, core: EmbeddedCore
) -> None:
    async with Trivial(nats_server, core.urls["keeper"]) as trivial:
        service = await asyncio.wait_for(trivial.built, 10)
        keeper, changed = service.keeper, asyncio.Event()
        assert keeper is not None
        service.config.watch(lambda paths: changed.set() if "Writable/LogLevel" in paths else None)

        async def applied(word: str, level: int, putting: Awaitable[object]) -> float:
            """Return the seconds that a change of the log level takes."""
            changed.clear()
            began_s = time.monotonic()
            await putting
            await asyncio.wait_for(changed.wait(), 15)
            took_s = time.monotonic() - began_s
            assert (service.config.get("Writable/LogLevel"), logging.getLogger().level) == (word, level)
            return took_s

        # A disk that stands still for once says nothing of how long a change takes: the best of three does.
        key, tree = "edgex/v4/app-trivial/Writable/LogLevel", "edgex/v4/app-trivial"
        one_by_one = [
            await applied(word, level, keeper.put(key, word))
            for word, level in (("ERROR", logging.ERROR), ("DEBUG", logging.DEBUG), ("INFO", logging.INFO))
        ]
        in_a_tree = [
            await applied(word, level, keeper.put_tree(tree, {"Writable": {"LogLevel": word}}))
            for word, level in (("WARN", logging.WARNING), ("DEBUG", logging.DEBUG), ("ERROR", logging.ERROR))
        ]
        assert min(one_by_one) < 1.0, one_by_one
        assert min(in_a_tree) < 1.0, in_a_tree


async def test_a_service_waits_for_a_core_that_starts_later(nats_server: NatsServer, core: EmbeddedCore) -> None:
    core.kill()
    async with Trivial(nats_server, core.urls["keeper"]) as trivial:
        await asyncio.sleep(0)
        assert not trivial.built.done()
        core.start()
        service = await asyncio.wait_for(trivial.built, 30)
        assert service.config.get("Trigger/SubscribeTopics") == "events/#"
        await service.devices.wait_ready(10)


async def test_devices_added_and_deleted_in_core_metadata_refresh_the_cache(
    nats_server: NatsServer, core: EmbeddedCore
) -> None:
    async with Trivial(nats_server, core.urls["keeper"]) as trivial:
        service = await asyncio.wait_for(trivial.built, 10)
        await service.devices.wait_ready(10)
        changes: list[Change] = []
        service.devices.on_change(changes.append)
        await service.metadata.add_service(DeviceService(name="device-x", base_address="http://127.0.0.1:1"))
        await service.metadata.add_profile(Profile.model_validate(LAMP_PROFILE))
        await service.metadata.add_device(Device.model_validate(LAMP), validate=False)
        await until(lambda: Change("device", "add", "lamp-1") in changes, "the added device")
        assert service.devices.profile_of("lamp-1") is not None
        await service.metadata.update_device("lamp-1", {"adminState": "LOCKED"}, validate=False)
        await until(lambda: Change("device", "update", "lamp-1") in changes, "the locked device")
        assert service.devices.devices_by_name["lamp-1"].admin_state == "LOCKED"
        await service.metadata.delete_device("lamp-1")
        await until(lambda: Change("device", "delete", "lamp-1") in changes, "the deleted device")
