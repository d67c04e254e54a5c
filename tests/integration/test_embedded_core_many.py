"""A thousand devices in the embedded core: what concerns a few of them takes about as long as among ten."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from edgeagents.adapters.bus import Bus
from tests.embedded_core import LAMP, WAIT_S, EmbeddedCore
from tests.nats import NatsServer
from tests.recorded_devices import RecordedDevices

FEW, MANY = 10, 1000
FACTOR = 3.0  # of the quickest of some calls, among many devices against among few
CALLS = 25
ANSWER = '{"apiVersion":"v3","statusCode":200}'


@pytest.fixture
def core(tmp_path: Path, nats_server: NatsServer) -> Iterator[EmbeddedCore]:
    running = EmbeddedCore(tmp_path / "core", nats_server.url).start().linked()
    yield running
    running.kill()


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False, timeout=WAIT_S) as client:
        yield client


@pytest.fixture
async def devices(bus: Bus) -> AsyncIterator[RecordedDevices]:
    service = RecordedDevices(bus)
    await service.start()
    await bus.flush(30)  # it hears what the core asks from now on
    yield service
    await service.stop()


def device(name: str, **more: Any) -> dict[str, Any]:
    whole = {
        "name": name, "serviceName": "device-lamp", "profileName": LAMP["name"], "adminState": "UNLOCKED",
        "operatingState": "UP", "protocols": {"p": {"a": "1"}}, "labels": ["lamp", name],
    } | more  # fmt: skip
    return {"apiVersion": "v3", "device": whole}


class Owner:
    """Asks the core what an owner and its services ask."""

    def __init__(self, core: EmbeddedCore, http: httpx.AsyncClient) -> None:
        self.http = http
        self.metadata = f"{core.urls['metadata']}/api/v3"
        self.command = f"{core.urls['command']}/api/v3"
        self.made = 0

    async def add(self, first: int, beyond: int) -> None:
        bodies = [device(f"lamp-{number}") for number in range(first, beyond)]
        answer = await self.http.post(f"{self.metadata}/device?bypassValidation=true", json=bodies)
        assert {item["statusCode"] for item in answer.json()} == {201}

    async def validated(self) -> None:
        """Have one more device validated, added and deleted."""
        self.made += 1
        name = f"more-{self.made}"
        answer = await self.http.post(f"{self.metadata}/device", json=[device(name)])
        assert answer.json()[0]["statusCode"] == 201, answer.text
        assert (await self.http.delete(f"{self.metadata}/device/name/{name}")).status_code == 200

    async def patched(self) -> None:
        body = [{"apiVersion": "v3", "device": {"name": "lamp-5", "description": "x"}}]
        assert (await self.http.patch(f"{self.metadata}/device", json=body)).json()[0]["statusCode"] == 200

    def get(self, url: str) -> Callable[[], Awaitable[None]]:
        async def call() -> None:
            answer = await self.http.get(url)
            assert answer.status_code == 200, answer.text

        return call

    def calls(self) -> dict[str, Callable[[], Awaitable[None]]]:
        """Return what is measured."""
        return {
            "page of devices": self.get(f"{self.metadata}/device/all?limit=10"),
            "devices of a label": self.get(f"{self.metadata}/device/all?labels=lamp-5"),
            "one device": self.get(f"{self.metadata}/device/name/lamp-5"),
            "one profile": self.get(f"{self.metadata}/deviceprofile/name/lamp"),
            "page of commands": self.get(f"{self.command}/device/all?limit=10"),
            "commands of a device": self.get(f"{self.command}/device/name/lamp-5"),
            "a read": self.get(f"{self.command}/device/name/lamp-5/Power"),
            "a change, validated": self.patched,
            "a device, validated": self.validated,
        }

    async def measured(self) -> dict[str, float]:
        """Return the time of the quickest call of each kind, in seconds."""
        quickest = {}
        for name, call in self.calls().items():
            took = []
            for _ in range(CALLS):
                began = time.perf_counter()
                await call()
                took.append(time.perf_counter() - began)
            quickest[name] = min(took)
        return quickest


async def test_a_thousand_devices_slow_nothing_down(
    core: EmbeddedCore, http: httpx.AsyncClient, devices: RecordedDevices
) -> None:
    devices.say(200, ANSWER)
    owner = Owner(core, http)
    service = {"name": "device-lamp", "baseAddress": devices.url, "adminState": "UNLOCKED"}
    for path, part, given in (("deviceservice", "service", service), ("deviceprofile", "profile", LAMP)):
        await http.post(f"{owner.metadata}/{path}", json=[{"apiVersion": "v3", part: given}])
    await owner.add(0, FEW)
    few = await owner.measured()
    for first in range(FEW, MANY, 100):
        await owner.add(first, min(first + 100, MANY))
    total = (await http.get(f"{owner.metadata}/device/all?limit=-1")).json()
    assert (total["totalCount"], len(total["devices"])) == (MANY, MANY)
    many = await owner.measured()
    slower = {name: round(many[name] / few[name], 1) for name in few}
    assert max(slower.values()) <= FACTOR, slower
