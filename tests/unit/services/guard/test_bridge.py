"""The guard bridges to EdgeX's own broker only when asked to, with the login that EdgeX's configuration names."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from edgeagents.adapters.bootstrap import EdgexService
from edgeagents.adapters.metrics import Metrics
from edgeagents.adapters.mqtt_bridge import MqttSettings
from edgeagents.adapters.security import InsecureSecrets
from edgeagents.errors import ConfigurationError
from edgeagents.settings import BusSettings, check_environment
from services.guard.app import SPEC
from services.guard.bridge import METRICS, bridge_of
from tests.unit.adapters.test_bus_credentials import config


def service(bus: str = "mqtt", **message_bus: Any) -> EdgexService:
    """Return as much of a started guard as the bridge needs."""
    settings = BusSettings(edgex_bus=cast(Any, bus))
    live = config(**message_bus)
    fake = SimpleNamespace(
        key="app-guard", settings=settings, config=live, secrets=InsecureSecrets(live, None), metrics=Metrics(),
        options=SimpleNamespace(secret_store=None), bus=SimpleNamespace(settings=settings),
        edgex=SimpleNamespace(base="edgex"),
    )  # fmt: skip
    return cast(EdgexService, fake)


async def test_without_an_address_there_is_no_bridge() -> None:
    assert await bridge_of(service(), MqttSettings()) is None


async def test_with_an_address_there_is_one_that_counts() -> None:
    bridge = await bridge_of(service(), MqttSettings(url="mqtt://broker:1883"))
    assert bridge is not None
    assert (bridge.gaps, dict(bridge.counts)) == (0, {})


@pytest.mark.parametrize("url", ["broker:1883", "http://broker", "mqtt://", "mqtt://broker:port"])
async def test_an_address_that_is_none_ends_the_start(url: str) -> None:
    with pytest.raises(ConfigurationError, match="write mqtt://host:port"):
        await bridge_of(service(), MqttSettings(url=url))


async def test_a_secret_that_is_not_there_ends_the_start() -> None:
    with pytest.raises(ConfigurationError, match="no secret 'away'"):
        await bridge_of(service(AuthMode="clientcert", SecretName="away"), MqttSettings(url="mqtt://broker"))


async def test_an_edgex_on_nats_has_no_such_broker() -> None:
    with pytest.raises(ConfigurationError, match="unset one of the two"):
        await bridge_of(service("nats-core"), MqttSettings(url="mqtt://broker"))


def test_the_guard_knows_its_variables_and_metrics() -> None:
    check_environment(
        [BusSettings, *SPEC.settings], {"EDGEAGENTS_MQTT_URL": "mqtt://b", "EDGEAGENTS_MQTT_PENDING": "5"}
    )
    assert set(METRICS) <= set(SPEC.config["Writable"]["Telemetry"]["Metrics"])
