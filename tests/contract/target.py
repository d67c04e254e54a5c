"""Which EdgeX is tested: the embedded core, started here, or one that runs elsewhere.

Only keeper and the broker are named; how EdgeX speaks on the broker stands in its common configuration.
"""

import ipaddress
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from edgeagents.settings import BusSettings
from tests.nats import NatsServer

COMMON = "edgex/v4/core-common-config-bootstrapper/all-services"
START_S = 30.0


@dataclass(frozen=True, slots=True)
class Target:
    """An EdgeX: where keeper and the broker are, what is spoken there, and where EdgeX reaches this process."""

    keeper_url: str
    broker: str
    bus: str
    format: str
    base: str
    host: str

    @property
    def is_mqtt(self) -> bool:
        """Whether the broker is reached by MQTT."""
        return self.broker.startswith("mqtt://")

    @property
    def bind(self) -> str:
        """Address that our services listen on: all of them, unless EdgeX is on this machine's loopback."""
        return "127.0.0.1" if _is_loopback(self.host) else "0.0.0.0"

    def settings(self, nats_url: str = "") -> BusSettings:
        """Return the bus settings of a service that is connected to `nats_url`, the broker itself when empty."""
        return BusSettings.model_validate(
            {
                "gateway": "contract", "nats_url": nats_url or self.broker, "edgex_bus": self.bus,
                "edgex_format": self.format, "edgex_base": self.base,
            }
        )  # fmt: skip


def running_elsewhere(keeper: str, broker: str, bus: str = "", host: str = "") -> Target:
    """Return the EdgeX whose keeper and broker have these addresses; `bus` and `host` are found out when empty."""
    scheme = urlsplit(broker).scheme
    if scheme not in ("nats", "mqtt"):
        pytest.exit(f"--broker {broker!r}: write nats://host:4222 or mqtt://host:1883", returncode=2)
    common = _common_configuration(keeper.rstrip("/"))
    said = str(common.get("MessageBus/Type", "mqtt"))
    if bus and bus != said:
        pytest.exit(f"--edgex-bus {bus}: keeper's common configuration says MessageBus/Type {said}", returncode=2)
    if scheme == "mqtt" and said != "mqtt":
        pytest.exit(f"--broker {broker}: this EdgeX speaks {said}: give the NATS address", returncode=2)
    # What the Go client takes when the key is absent.
    spoken = str(common.get("MessageBus/Optional/Format") or "nats")
    return Target(
        keeper.rstrip("/"), broker.rstrip("/"), said, "nats" if spoken == "nats" else "json",
        str(common.get("MessageBus/BaseTopicPrefix") or "edgex"), host or _own_address(keeper),
    )  # fmt: skip


def _common_configuration(keeper: str) -> dict[str, Any]:
    url = f"{keeper}/api/v3/kvs/key/{COMMON}?plaintext=true"
    try:
        answer = httpx.get(url, timeout=5.0, trust_env=False)
        pairs = answer.raise_for_status().json()["response"]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError) as error:
        pytest.exit(f"--keeper {keeper}: no common configuration there: {error}", returncode=2)
    return {pair["key"].removeprefix(f"{COMMON}/"): pair["value"] for pair in pairs}


def _own_address(keeper: str) -> str:
    """Return the address that keeper's machine sees us by."""
    parts = urlsplit(keeper)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((parts.hostname or "127.0.0.1", parts.port or 80))  # sends nothing, only chooses the route
        return str(probe.getsockname()[0])


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def embedded(folder: Path, bus: str = "mqtt") -> Iterator[Target]:
    """Run nats-server and the embedded core in `folder` while the context is open."""
    spoken = "json" if bus == "mqtt" else "nats"
    (folder / "nats").mkdir()
    broker = NatsServer(folder / "nats")
    broker.start()
    try:
        with _core(folder, broker, bus, spoken) as ready:
            yield Target(ready["keeper"], broker.url, bus, spoken, "edgex", "127.0.0.1")
    finally:
        broker.kill()


@contextmanager
def _core(folder: Path, broker: NatsServer, bus: str, spoken: str) -> Iterator[dict[str, Any]]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("EDGEAGENTS_")}
    env = clean | {
        "EDGEAGENTS_NATS_URL": broker.url, "EDGEAGENTS_EDGEX_BUS": bus, "EDGEAGENTS_EDGEX_FORMAT": spoken,
        "EDGEAGENTS_CORE_MQTT_PORT": str(broker.mqtt_port),
    }  # fmt: skip
    ports = [part for name in ("keeper", "metadata", "data", "command") for part in (f"--{name}-port", "0")]
    command = [sys.executable, "-m", "edgeagents.embedded.core", "--state", str(folder / "core"), *ports]
    with (folder / "core.log").open("wb") as log, (folder / "core.out").open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=log, env=env)
        try:
            yield _ready(process, folder)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _ready(process: "subprocess.Popen[bytes]", folder: Path) -> dict[str, Any]:
    """Return the line with addresses that the core prints once it serves."""
    give_up = time.monotonic() + START_S
    while not (line := (folder / "core.out").read_bytes()).endswith(b"\n"):
        if process.poll() is not None or time.monotonic() > give_up:
            pytest.fail(f"the embedded core did not start:\n{(folder / 'core.log').read_text()[-2000:]}")
        time.sleep(0.02)
    ready: dict[str, Any] = json.loads(line)
    return ready
