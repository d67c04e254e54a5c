"""Live configuration: what keeper says about Writable takes effect, the rest does not."""

import asyncio
import logging
from collections.abc import AsyncIterator

import httpx
import pytest

from edgeagents.adapters.config import COMMON
from edgeagents.adapters.keeper import KeeperClient
from edgeagents.adapters.live_config import LiveConfig
from edgeagents.errors import ConfigurationError, UnavailableError
from tests.fake_edgex import FakeEdgex

OWN = "edgex/v4/app-x"
DEFAULTS = {
    "Writable": {"LogLevel": "INFO", "Telemetry": {"Interval": "30s"}, "Number": 5, "InsecureSecrets": {}},
    "Service": {"Port": 1},
    "Mine": {"Limit": 1.5},
}


@pytest.fixture
async def edgex() -> FakeEdgex:
    return FakeEdgex()


@pytest.fixture
async def keeper(edgex: FakeEdgex) -> AsyncIterator[KeeperClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(edgex.app)) as http:
        yield KeeperClient("http://keeper", http)


@pytest.fixture
async def config() -> LiveConfig:
    return LiveConfig("app-x", "app", DEFAULTS, private={"Service": {"Port": "59740"}})


async def test_text_has_the_types_of_the_defaults(config: LiveConfig) -> None:
    assert config.get("Service/Port") == 59740
    assert config.get("Writable/Number") == 5
    assert config.get("Nowhere/At/All", "default") == "default"


async def test_a_value_of_the_wrong_type_at_the_start_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="Service/Port"):
        LiveConfig("app-x", "app", DEFAULTS, private={"Service": {"Port": "http"}})


async def test_writable_and_own_sections_are_live_and_watchers_hear_which_paths(
    edgex: FakeEdgex, keeper: KeeperClient, config: LiveConfig
) -> None:
    heard: list[frozenset[str]] = []
    config.watch(heard.append)
    edgex.kvs |= {f"{OWN}/Writable/LogLevel": "DEBUG", f"{OWN}/Mine/Limit": "2.5", f"{OWN}/Service/Port": "1"}
    await config.reread(keeper)
    assert heard == [frozenset({"Writable/LogLevel", "Mine/Limit"})]
    assert config.get("Mine/Limit") == 2.5
    assert config.get("Service/Port") == 59740  # counts from the next start


async def test_a_watcher_that_ended_hears_no_more(edgex: FakeEdgex, keeper: KeeperClient, config: LiveConfig) -> None:
    heard: list[frozenset[str]] = []
    config.watch(heard.append)()
    edgex.kvs[f"{OWN}/Writable/LogLevel"] = "DEBUG"
    await config.reread(keeper)
    assert heard == []


async def test_the_common_sections_are_live_unless_overridden(
    edgex: FakeEdgex, keeper: KeeperClient, config: LiveConfig
) -> None:
    edgex.kvs |= {f"{COMMON}/all-services/Writable/Telemetry/Interval": "5s", f"{OWN}/Writable/LogLevel": "WARN"}
    await config.reread(keeper)
    assert config.get("Writable/Telemetry/Interval") == "5s"
    edgex.kvs |= {f"{COMMON}/app-services/Writable/Telemetry/Interval": "7s"}
    edgex.kvs |= {f"{COMMON}/app-services/Writable/LogLevel": "DEBUG"}
    edgex.kvs |= {f"{COMMON}/device-services/Writable/Telemetry/Interval": "9s"}
    await config.reread(keeper)
    assert config.get("Writable/Telemetry/Interval") == "7s"
    assert config.get("Writable/LogLevel") == "WARN"


async def test_a_deleted_key_falls_back_to_what_lies_below(
    edgex: FakeEdgex, keeper: KeeperClient, config: LiveConfig
) -> None:
    edgex.kvs[f"{OWN}/Writable/Number"] = "9"
    await config.reread(keeper)
    assert config.get("Writable/Number") == 9
    del edgex.kvs[f"{OWN}/Writable/Number"]
    await config.reread(keeper)
    assert config.get("Writable/Number") == 5


async def test_a_live_value_of_the_wrong_type_changes_nothing_else(
    edgex: FakeEdgex, keeper: KeeperClient, config: LiveConfig, caplog: pytest.LogCaptureFixture
) -> None:
    edgex.kvs |= {f"{OWN}/Writable/Number": "many", f"{OWN}/Writable/LogLevel": "DEBUG"}
    with caplog.at_level(logging.WARNING):
        await config.reread(keeper)
    assert config.get("Writable/Number") == 5
    assert config.get("Writable/LogLevel") == "DEBUG"
    assert "Writable/Number" in caplog.text


async def test_insecure_secrets_are_live(edgex: FakeEdgex, keeper: KeeperClient, config: LiveConfig) -> None:
    assert config.secret("mail") == {}
    root = f"{OWN}/Writable/InsecureSecrets/mail"
    edgex.kvs |= {f"{root}/SecretName": "mail", f"{root}/SecretData/user": "u", f"{root}/SecretData/pass": "p"}
    await config.reread(keeper)
    assert config.secret("mail") == {"user": "u", "pass": "p"}


async def test_a_local_value_wins_over_all(edgex: FakeEdgex, keeper: KeeperClient, config: LiveConfig) -> None:
    config.set_local("Service/Port", 59755)
    config.set_local("Writable/LogLevel", "ERROR")
    edgex.kvs[f"{OWN}/Writable/LogLevel"] = "DEBUG"
    await config.reread(keeper)
    assert config.get("Service/Port") == 59755
    assert config.get("Writable/LogLevel") == "ERROR"


async def test_a_burst_of_notices_makes_one_reading(edgex: FakeEdgex, keeper: KeeperClient, config: LiveConfig) -> None:
    readings = 0
    applied = asyncio.Event()
    reread = config.reread

    async def counted(keeper: KeeperClient) -> None:
        nonlocal readings
        readings += 1
        await reread(keeper)

    config.reread = counted  # type: ignore[method-assign]
    config.watch(lambda paths: applied.set())
    task = asyncio.create_task(config.run(keeper))
    edgex.kvs[f"{OWN}/Writable/LogLevel"] = "DEBUG"
    for _ in range(20):
        config.refresh()
        await asyncio.sleep(0)
    await asyncio.wait_for(applied.wait(), 5)
    assert readings == 1
    task.cancel()
    await asyncio.wait({task})


async def test_a_keeper_that_is_away_is_asked_again(
    edgex: FakeEdgex, keeper: KeeperClient, config: LiveConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeagents.adapters.live_config._RETRY_S", 0.01)
    applied = asyncio.Event()
    config.watch(lambda paths: applied.set())
    reread, failures = config.reread, 2

    async def failing(keeper: KeeperClient) -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise UnavailableError("keeper is away")
        await reread(keeper)

    config.reread = failing  # type: ignore[method-assign]
    edgex.kvs[f"{OWN}/Writable/LogLevel"] = "DEBUG"
    config.refresh()
    task = asyncio.create_task(config.run(keeper))
    await asyncio.wait_for(applied.wait(), 5)
    assert config.get("Writable/LogLevel") == "DEBUG"
    task.cancel()
    await asyncio.wait({task})
