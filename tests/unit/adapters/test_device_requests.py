"""A device service's doors answer in the encoding EdgeX expects, and our clients read it."""

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping
from typing import Any

import cbor2
import httpx
import pytest
from fastapi import FastAPI

from edgeagents.adapters.device_commands import Query
from edgeagents.adapters.device_requests import BusDoor, add_routes
from edgeagents.adapters.edgex import CommandClient
from edgeagents.adapters.edgex_bus import EdgexBus
from edgeagents.adapters.envelopes import PLAIN, Encoding
from edgeagents.adapters.rest import FixedAddress, Rest
from edgeagents.errors import UpstreamError
from edgeagents.model.device import Device, Event, Profile, make_reading
from tests.unit.adapters.device_fakes import MemoryTransport

ORIGIN = 1_764_000_000_000_000_000
IMAGE = bytes(range(256))


class Camera:
    """A device service of one camera."""

    def __init__(self) -> None:
        self.readings = [make_reading("cam", "p", "Shot", "Binary", IMAGE, ORIGIN, reading_id="i", media_type="x/y")]

    async def get(self, name: str, command: str, query: Query | None = None, correlation_id: str = "") -> Event:
        readings = tuple(self.readings)
        return Event(id="e", device_name=name, profile_name="p", source_name=command, origin=ORIGIN, readings=readings)

    async def set(self, name: str, command: str, settings: Mapping[str, Any], correlation_id: str) -> None: ...

    def refusal(self, device: Device) -> str | None:
        return None


def http_of(camera: Camera, encoding: Encoding = PLAIN) -> httpx.AsyncClient:
    """Return a client of the REST door."""
    app = FastAPI()
    add_routes(app, camera, encoding)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://device")


def client_of(http: httpx.AsyncClient, bus: EdgexBus) -> CommandClient:
    """Return our own client, by REST straight to the device service."""

    async def profile_of(name: str) -> Profile:
        return Profile(name="p")

    return CommandClient(Rest("core-command", FixedAddress("http://device"), http), bus, profile_of)


@pytest.fixture
async def edgex() -> AsyncIterator[EdgexBus]:
    """A bus with the camera's door on it."""
    bus = EdgexBus(MemoryTransport())
    async with asyncio.TaskGroup() as tasks:
        door = BusDoor("device-cam", bus, Camera(), tasks, lambda state: None)
        await door.open()
        yield bus
        await door.close()


async def test_a_picture_is_answered_in_cbor_by_rest() -> None:
    async with http_of(Camera()) as http:
        response = await http.get("/api/v3/device/name/cam/Shot")
    assert response.headers["content-type"] == "application/cbor"
    (reading,) = cbor2.loads(response.content)["event"]["readings"]
    assert (reading["binaryValue"], reading["mediaType"]) == (IMAGE, "x/y")


async def test_other_values_are_answered_in_json_unless_all_events_are_cbor() -> None:
    camera = Camera()
    camera.readings = [make_reading("cam", "p", "Zoom", "Int8", 3, ORIGIN, reading_id="i")]
    for encoding, kind in ((PLAIN, "application/json"), (Encoding(events_cbor=True), "application/cbor")):
        async with http_of(camera, encoding) as http:
            response = await http.get("/api/v3/device/name/cam/Zoom")
            assert response.headers["content-type"] == kind


@pytest.mark.parametrize("encoding", [PLAIN, Encoding(events_cbor=True, optimise=True), Encoding(optimise=True)])
async def test_our_client_reads_any_answer_by_rest(encoding: Encoding) -> None:
    camera = Camera()

    async def rewritten(request: httpx.Request) -> httpx.Response:  # core-command passes on what it is answered
        async with http_of(camera, encoding) as inner:
            found = await inner.get(request.url.path)
            return httpx.Response(200, content=found.content, headers={"content-type": found.headers["content-type"]})

    async with httpx.AsyncClient(transport=httpx.MockTransport(rewritten)) as http:
        client = client_of(http, EdgexBus(MemoryTransport()))
        for readings in (camera.readings, [make_reading("cam", "p", "Shot", "Int8", 3, ORIGIN, reading_id="i")]):
            camera.readings = readings
            (reading,) = (await client.get("cam", "Shot")).readings
            assert (reading.device_name, reading.resource_name, reading.profile_name) == ("cam", "Shot", "p")
            assert reading.origin == ORIGIN
            assert reading.decoded() == readings[0].decoded()


async def test_an_answer_of_broken_cbor_is_an_upstream_error() -> None:
    def broken(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=b"\xa1", headers={"content-type": "application/cbor"})

    async with httpx.AsyncClient(transport=httpx.MockTransport(broken)) as http:
        with pytest.raises(UpstreamError, match="no CBOR"):
            await client_of(http, EdgexBus(MemoryTransport())).get("cam", "Shot")


async def test_a_picture_is_answered_in_cbor_over_the_bus(edgex: EdgexBus) -> None:
    answer = await edgex.request(
        "device/command/request/device-cam/cam/Shot/get", None, answer_from="device-cam", timeout_s=5
    )
    assert answer.envelope.content_type == "application/cbor"
    assert answer.event is not None
    assert answer.event.readings[0].decoded() == IMAGE
    assert answer.envelope.payload["event"]["readings"][0]["binaryValue"] == base64.b64encode(IMAGE).decode()
