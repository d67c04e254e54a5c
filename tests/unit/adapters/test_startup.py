"""The steps before a service serves: waits with one budget, loading and seeding, being alone."""

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.responses import PlainTextResponse

from edgeagents.adapters.config import COMMON, READY
from edgeagents.adapters.edgex import MetadataClient
from edgeagents.adapters.keeper import KeeperClient
from edgeagents.adapters.live_config import LiveConfig
from edgeagents.adapters.options import Options
from edgeagents.adapters.rest import FixedAddress, Rest
from edgeagents.adapters.startup import (
    Budget,
    ConfigLoader,
    apply_hosts,
    check_version,
    client_url,
    refuse_duplicate,
)
from edgeagents.errors import ConfigurationError, UnavailableError
from tests.fake_edgex import FakeEdgex

OWN = "edgex/v4/app-x"
SPEC = {"Service": {"MaxRequestSize": 64}, "Mine": {"Limit": 1.5, "Names": ["a", "b"]}}


@pytest.fixture
async def edgex() -> FakeEdgex:
    return FakeEdgex()


@pytest.fixture
async def http(edgex: FakeEdgex) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(edgex.app)) as client:
        yield client


@pytest.fixture
def keeper(http: httpx.AsyncClient) -> KeeperClient:
    return KeeperClient("http://keeper", http)


def loader(options: Options | None = None, environ: dict[str, str] | None = None) -> ConfigLoader:
    return ConfigLoader(options or Options("app-x"), "app", SPEC, 59740, environ or {})


# --- the budget ----------------------------------------------------------------------------------


async def test_a_wait_is_told_once_and_ends_with_success(caplog: pytest.LogCaptureFixture) -> None:
    tries = 0

    async def attempt() -> str:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise UnavailableError("not yet")
        return "there"

    with caplog.at_level(logging.WARNING):
        assert await Budget(5, 0.001).until("keeper", attempt) == "there"
    assert [record.message for record in caplog.records] == ["waiting for keeper: not yet"]


async def test_all_waits_share_one_budget_and_the_end_says_what_was_waited_for() -> None:
    async def never() -> None:
        raise UnavailableError("connection refused")

    budget = Budget(0.05, 0.01)
    with pytest.raises(UnavailableError, match=r"gave up waiting for keeper after 0\.05 s.*connection refused"):
        await budget.until("keeper", never)
    tried = 0

    async def counted() -> None:
        nonlocal tried
        tried += 1
        raise UnavailableError("no")

    with pytest.raises(UnavailableError, match="gave up waiting for nats"):
        await budget.until("nats", counted)
    assert tried == 1  # nothing was left of it


# --- configuration -------------------------------------------------------------------------------


async def test_an_absent_private_configuration_is_seeded_with_every_leaf(
    edgex: FakeEdgex, keeper: KeeperClient, http: httpx.AsyncClient
) -> None:
    environ = {"SERVICE_HOST": "gateway", "WRITABLE_LOGLEVEL": "DEBUG", "MINE_LIMIT": "2.5", "SERVICE_UNKNOWN": "x"}
    config = await loader(environ=environ).load(keeper, http, Budget(1, 0.01))
    assert edgex.kvs[f"{OWN}/Service/Host"] == "gateway"
    assert edgex.kvs[f"{OWN}/Service/Port"] == "59740"
    assert edgex.kvs[f"{OWN}/Service/MaxRequestSize"] == "64"
    assert edgex.kvs[f"{OWN}/Writable/LogLevel"] == "DEBUG"
    assert edgex.kvs[f"{OWN}/Mine/Limit"] == "2.5"
    assert edgex.kvs[f"{OWN}/Mine/Names"] == "a,b"
    assert edgex.kvs[f"{OWN}/Trigger/Type"] == "edgex-messagebus"
    assert f"{OWN}/Service/Unknown" not in edgex.kvs
    assert f"{OWN}/Service/RequestTimeout" not in edgex.kvs  # belongs to the common configuration
    assert (config.get("Service/Port"), config.get("Mine/Limit"), config.get("Mine/Names")) == (59740, 2.5, ["a", "b"])
    assert config.get("Trigger/SubscribeTopics") == "events/#"


async def test_what_keeper_holds_wins_over_file_and_environment(
    edgex: FakeEdgex, keeper: KeeperClient, http: httpx.AsyncClient
) -> None:
    edgex.kvs |= {f"{OWN}/Service/Port": "59999", f"{OWN}/Service/Host": "kept"}
    config = await loader(environ={"SERVICE_HOST": "gateway"}).load(keeper, http, Budget(1, 0.01))
    assert (config.get("Service/Host"), config.get("Service/Port")) == ("kept", 59999)
    assert config.get("Mine/Limit") == 1.5  # a leaf keeper lacks keeps its default
    assert f"{OWN}/Mine/Limit" not in edgex.kvs


async def test_overwriting_lets_the_file_win(edgex: FakeEdgex, keeper: KeeperClient, http: httpx.AsyncClient) -> None:
    edgex.kvs |= {f"{OWN}/Service/Host": "kept"}
    options = Options("app-x", overwrite=True)
    config = await loader(options, {"SERVICE_HOST": "gateway"}).load(keeper, http, Budget(1, 0.01))
    assert config.get("Service/Host") == edgex.kvs[f"{OWN}/Service/Host"] == "gateway"


async def test_a_file_on_disk_is_merged_over_the_built_in_defaults(
    edgex: FakeEdgex, keeper: KeeperClient, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "configuration.yaml").write_text("Mine:\n  Limit: 3\nService:\n  Port: '59741'\n")
    options = Options("app-x", config_dir=str(tmp_path), profile="home")
    config = await loader(options).load(keeper, http, Budget(1, 0.01))
    assert (config.get("Mine/Limit"), config.get("Service/Port"), config.get("Mine/Names")) == (3.0, 59741, ["a", "b"])


@pytest.mark.parametrize("text", ["Service: [", "Service:\n  Port: http\n", None])
async def test_a_file_that_cannot_be_is_named(
    keeper: KeeperClient, http: httpx.AsyncClient, tmp_path: Path, text: str | None
) -> None:
    if text is not None:
        (tmp_path / "configuration.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match=r"configuration\.yaml"):
        await loader(Options("app-x", config_dir=str(tmp_path))).load(keeper, http, Budget(1, 0.01))


async def test_a_file_may_lie_behind_a_url(http: httpx.AsyncClient, edgex: FakeEdgex) -> None:
    @edgex.app.get("/x.yaml")
    async def file() -> PlainTextResponse:
        return PlainTextResponse("Mine:\n  Limit: 4\n")

    config = await loader(Options("app-x", config_file="http://files/x.yaml")).load(None, http, Budget(1, 0.01))
    assert config.get("Mine/Limit") == 4.0
    with pytest.raises(UnavailableError, match=r"http://files/none\.yaml"):
        await loader(Options("app-x", config_file="http://files/none.yaml")).load(None, http, Budget(1, 0.01))


async def test_without_a_provider_files_and_environment_make_the_configuration(
    http: httpx.AsyncClient, tmp_path: Path
) -> None:
    common = tmp_path / "common.yaml"
    common.write_text(
        "all-services:\n  Service:\n    RequestTimeout: 9s\n  Clients:\n    core-metadata:\n      Host: meta\n"
        "app-services:\n  Writable:\n    StoreAndForward:\n      MaxRetryCount: 3\n"
        "device-services:\n  MaxEventSize: 7\n"
    )
    environ = {"CLIENTS_CORE_METADATA_PORT": "1234", "SERVICE_HOST": "gateway"}
    config = await loader(Options("app-x", common_config=str(common)), environ).load(None, http, Budget(1, 0.01))
    assert config.get("Service/RequestTimeout") == "9s"
    assert config.get("Writable/StoreAndForward/MaxRetryCount") == 3
    assert config.get("MaxEventSize") is None
    assert config.get("Service/Host") == "gateway"
    assert client_url(config, "core-metadata") == "http://meta:1234"


async def test_the_common_configuration_is_waited_for(
    edgex: FakeEdgex, keeper: KeeperClient, http: httpx.AsyncClient
) -> None:
    edgex.kvs[READY] = "false"
    with pytest.raises(UnavailableError, match=r"the common configuration.*core-common-config-bootstrapper"):
        await loader().load(keeper, http, Budget(0.02, 0.01))
    del edgex.kvs[READY]
    with pytest.raises(UnavailableError, match="the common configuration"):
        await loader().load(keeper, http, Budget(0.02, 0.01))


@pytest.mark.parametrize(("version", "words"), [("5.1.0", "is version 5.1.0: this service needs 4.x"),
                                                ("4.0.2", "has core-common-config-bootstrapper run")])  # fmt: skip
async def test_a_keeper_of_another_major_version_without_the_common_configuration_is_named(
    edgex: FakeEdgex, keeper: KeeperClient, http: httpx.AsyncClient, version: str, words: str
) -> None:
    edgex.version = version
    del edgex.kvs[READY]
    with pytest.raises(UnavailableError, match="the common configuration") as caught:
        await loader().load(keeper, http, Budget(0.02, 0.01))
    assert words in str(caught.value)


async def test_a_keeper_that_is_away_is_waited_for_by_name() -> None:
    def refused(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("connection refused", request=request)

    async with httpx.AsyncClient(transport=httpx.MockTransport(refused)) as http:
        with pytest.raises(UnavailableError, match="core-keeper at http://keeper:1"):
            await loader().load(KeeperClient("http://keeper:1", http), http, Budget(0.02, 0.01))


async def test_a_value_in_keeper_that_cannot_be_is_named_with_its_place(
    edgex: FakeEdgex, keeper: KeeperClient, http: httpx.AsyncClient
) -> None:
    edgex.kvs |= {f"{OWN}/Service/Port": "http", f"{COMMON}/all-services/Service/Host": "x"}
    with pytest.raises(ConfigurationError, match=r"Service/Port.*read from core-keeper, edgex/v4/app-x"):
        await loader().load(keeper, http, Budget(1, 0.01))


# --- hosts, versions, duplicates -----------------------------------------------------------------


def config_of(tree: dict[str, Any]) -> LiveConfig:
    return LiveConfig("app-x", "app", tree)


async def test_remote_hosts_take_the_place_of_the_configured_ones() -> None:
    tree = {"Service": {"Host": "localhost"}, "Clients": {"core-data": {"Host": "localhost", "Port": 1}}}
    config = config_of(tree)
    apply_hosts(config, Options("app-x", remote_hosts=("me", "them", "0.0.0.0")))
    assert (config.get("Service/Host"), config.get("Service/ServerBindAddr")) == ("me", "0.0.0.0")
    assert client_url(config, "core-data") == "http://them:1"
    apply_hosts(config, Options("app-x", remote_hosts=("me", "::1", "0.0.0.0")))
    assert client_url(config, "core-data") == "http://[::1]:1"
    config = config_of(tree)
    apply_hosts(config, Options("app-x"))
    assert config.get("Service/Host") == "localhost"


async def test_a_client_without_an_address_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="Clients/core-data"):
        client_url(config_of({"Clients": {"core-data": {"Host": ""}}}), "core-data")


@pytest.mark.parametrize(("version", "fits"), [("4.0.2", True), ("0.0.0", True), ("master", True), ("3.1.0", False)])
async def test_core_metadatas_major_version_must_fit(
    edgex: FakeEdgex, http: httpx.AsyncClient, version: str, fits: bool
) -> None:
    edgex.version = version
    metadata = MetadataClient(Rest("core-metadata", FixedAddress("http://m"), http))
    if fits:
        await check_version(metadata, 0.01)
    else:
        with pytest.raises(ConfigurationError, match=r"version 3\.1\.0"):
            await check_version(metadata, 0.01)


@pytest.mark.parametrize(
    ("registered", "answers", "refused"),
    [
        (None, False, False),
        (("other", 1), True, True),
        (("other", 1), False, False),
    ],
    ids=["nobody", "another that answers", "one that is gone, or ourselves before a restart"],
)
async def test_a_key_that_runs_elsewhere_is_refused(
    registered: tuple[str, int] | None, answers: bool, refused: bool
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "keeper":
            if registered is None:
                return httpx.Response(404, json={"message": "registration not found by serviceId"})
            entry = {"serviceId": "app-x", "host": registered[0], "port": registered[1], "HealthCheck": {}}
            return httpx.Response(200, json={"registration": entry})
        if not answers:
            raise httpx.ConnectError("connection refused", request=request)
        return httpx.Response(200, json={"apiVersion": "v3", "serviceName": "app-x"})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        checking = refuse_duplicate(KeeperClient("http://keeper", http), http, "app-x", 0.001)
        if refused:
            with pytest.raises(ConfigurationError, match="service key app-x is already running at http://other:1"):
                await checking
        else:
            await checking


async def test_another_service_at_the_registered_address_is_no_duplicate() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "keeper":
            entry = {"serviceId": "app-x", "host": "other", "port": 1, "HealthCheck": {}}
            return httpx.Response(200, json={"registration": entry})
        return httpx.Response(200, json={"apiVersion": "v3", "serviceName": "app-y"})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        await refuse_duplicate(KeeperClient("http://keeper", http), http, "app-x", 0.001)
