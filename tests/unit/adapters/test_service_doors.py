"""A shut door counts as one only where the service itself was heard before; then a SET that failed never arrived."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
import pytest_asyncio

from edgeagents.adapters.command_route import commands_by
from edgeagents.adapters.edgex import CommandClient, MetadataClient
from edgeagents.adapters.service_doors import ServiceDoors
from edgeagents.errors import DeviceSilentError, LockedError, NotFoundError, UnavailableError
from edgeagents.model.device import Device, DeviceService

PING = {"apiVersion": "v3", "serviceName": "device-lamp"}


class House:
    """A service whose door opens and shuts, and core-metadata that says where it is."""

    def __init__(self) -> None:
        self.address = ""
        self.ping: Any = PING
        self.asked = 0
        self._server: asyncio.Server | None = None
        http = httpx.AsyncClient(transport=httpx.MockTransport(lambda request: httpx.Response(200, json=self.ping)))
        device = Device(name="lamp-1", profile_name="lamp", service_name="device-lamp")
        self.doors = ServiceDoors({"lamp-1": device}.get, cast(MetadataClient, self), http)

    async def service(self, name: str) -> DeviceService:
        """Answer as core-metadata's client does."""
        self.asked += 1
        if not self.address:
            raise NotFoundError(f"no service {name!r}")
        return DeviceService(name=name, base_address=self.address)

    async def open(self) -> None:
        """Listen, at a new address."""
        self._server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        self.address = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def shut(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()


@pytest_asyncio.fixture
async def house() -> AsyncIterator[House]:
    """An open one."""
    found = House()
    await found.open()
    yield found
    await found.shut()


async def test_a_door_that_was_open_and_is_shut_is_shut(house: House) -> None:
    assert not await house.doors.is_shut("lamp-1")
    await house.shut()
    assert await house.doors.is_shut("lamp-1")


async def test_the_address_is_asked_for_once_as_long_as_it_is_open(house: House) -> None:
    for _ in range(5):
        await house.doors.is_shut("lamp-1")
    assert house.asked == 1


@pytest.mark.parametrize("answer", [{"serviceName": "device-other"}, [], "pong"])
async def test_where_somebody_else_answered_a_shut_door_says_nothing(house: House, answer: Any) -> None:
    house.ping = answer
    assert not await house.doors.is_shut("lamp-1")
    await house.shut()
    assert not await house.doors.is_shut("lamp-1")


async def test_where_nobody_was_ever_heard_a_shut_door_says_nothing(house: House) -> None:
    await house.shut()
    assert not await house.doors.is_shut("lamp-1")


async def test_a_service_that_has_moved_is_not_shut(house: House) -> None:
    await house.doors.is_shut("lamp-1")
    await house.shut()
    await house.open()
    assert not await house.doors.is_shut("lamp-1"), "core-metadata says where it is now"
    assert not await house.doors.is_shut("lamp-1")
    await house.shut()
    assert await house.doors.is_shut("lamp-1")


@pytest.mark.parametrize("address", ["http://no-such-host.invalid:1", "http://:99999", "not an address", ""])
async def test_what_cannot_be_asked_says_nothing(house: House, address: str) -> None:
    house.address = address
    assert not await house.doors.is_shut("lamp-1")
    assert not await house.doors.is_shut("lamp-2"), "nobody knows that device"


class Answers:
    """core-command's client: each SET ends in the same way."""

    def __init__(self, error: Exception) -> None:
        self.error, self.sets = error, 0

    async def set(self, *arguments: Any, **named: Any) -> None:
        """Fail."""
        self.sets += 1
        raise self.error

    async def set_by_bus(self, *arguments: Any, **named: Any) -> None:
        """Fail, too."""
        await self.set()


SILENT = DeviceSilentError("core-command: failed to send a http request")


@pytest.mark.parametrize(
    ("route", "doors", "error", "means"),
    [
        ("rest", [True, True], SILENT, UnavailableError),
        ("rest", [False, True], SILENT, DeviceSilentError),  # it was killed with the SET under way, perhaps
        ("rest", [True, False], SILENT, DeviceSilentError),  # it was just started
        ("rest", [False, False], SILENT, DeviceSilentError),
        ("rest", [True, True], LockedError("locked"), LockedError),
        ("bus", [True, True], SILENT, DeviceSilentError),  # the broker may keep it
    ],
)
async def test_only_a_door_shut_before_and_after_a_set_means_that_it_never_arrived(
    route: Any, doors: list[bool], error: Exception, means: type[Exception]
) -> None:
    answers, now = list(doors), Answers(error)

    async def is_shut(device: str) -> bool:
        return answers.pop(0)

    commands = commands_by(
        route, cast(CommandClient, now), cast(ServiceDoors, SimpleNamespace(is_shut=is_shut))
    )  # fmt: skip
    with pytest.raises(means) as caught:
        await commands.set("lamp-1", "Level", {"Level": "1"})
    assert type(caught.value) is means
    assert now.sets == 1, "core-command is asked in any case"
