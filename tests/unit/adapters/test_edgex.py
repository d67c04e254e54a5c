"""The clients of core-metadata, core-command and core-data against the recorded answers of real ones."""

import json
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest

from edgeagents.adapters.edgex import CommandClient, DataClient, MetadataClient, check_parameters
from edgeagents.adapters.edgex_bus import EdgexBus, RawHandler
from edgeagents.adapters.envelopes import encode_envelope
from edgeagents.adapters.rest import FixedAddress, Rest
from edgeagents.adapters.token_files import FileToken
from edgeagents.errors import (
    ConflictError,
    DeviceSilentError,
    InvalidInputError,
    LockedError,
    NotAllowedError,
    NotFoundError,
    UnavailableError,
    UpstreamError,
)
from edgeagents.model.device import Device, DeviceService, Profile
from edgeagents.model.envelope import Envelope
from tests.fake_edgex import LAMP, LAMP_PROFILE
from tests.recorded_http import Recorded

ABC = "0e5b1f6c-6f4c-4a1e-9b8e-2b1d6f1f0abc"
LAMP_KIND = Profile.model_validate(LAMP_PROFILE)


class CarbonBus:
    """A transport that answers each request with what `answer` makes of it; None is silence."""

    def __init__(self, answer: Envelope | None = None) -> None:
        self.answer = answer
        self.sent: list[tuple[str, Envelope]] = []
        self._handlers: dict[str, RawHandler] = {}

    async def publish(self, topic: str, envelope: Envelope) -> None:
        self.sent.append((topic, envelope))
        if self.answer is not None:
            for where, handler in list(self._handlers.items()):
                await handler(where, encode_envelope(self.answer), {})

    async def subscribe(self, topic_filter: str, handler: RawHandler) -> Any:
        self._handlers[topic_filter] = handler

        async def cancel() -> None:
            del self._handlers[topic_filter]

        return cancel


async def lamp_of(device: str) -> Profile:
    return LAMP_KIND


def command_client(rest: Rest, bus: CarbonBus | None = None) -> CommandClient:
    return CommandClient(rest, EdgexBus(bus or CarbonBus()), lamp_of)


def recorded_command(case: str) -> tuple[CommandClient, Recorded]:
    recorded = Recorded("command").case(case)
    return command_client(recorded.rest("core-command")), recorded


def answering(status: int, body: Any) -> Rest:
    transport = httpx.MockTransport(lambda request: httpx.Response(status, json=body))
    return Rest("core-command", FixedAddress("http://command"), httpx.AsyncClient(transport=transport))


# --- core-metadata -------------------------------------------------------------------------------


@pytest.mark.recordings
async def test_recorded_devices_profiles_and_services_are_read() -> None:
    recorded = Recorded("metadata")
    metadata = MetadataClient(recorded.rest())
    device = await metadata.device("lamp-1")
    assert (device.profile_name, device.service_name, device.labels) == ("probe-lamp", "device-probe", ("hall",))
    assert device.auto_events[0].on_change_threshold == 0.5
    profile = await metadata.profile("probe-lamp")
    assert profile.resource("Level").properties.maximum == 100  # type: ignore[union-attr]
    assert (await metadata.service("device-probe")).base_address == "http://localhost:59980"
    assert [found.name for found in await metadata.devices(service="device-probe")] == ["lamp-1"]
    assert [found.name for found in await metadata.devices(profile="probe-lamp")] == ["lamp-1"]
    assert await metadata.version() == "4.0.2"


@pytest.mark.recordings
@pytest.mark.parametrize(
    ("case", "error"),
    [
        ("metadata add device again", ConflictError),
        ("metadata add device unknown profile", InvalidInputError),
        ("metadata add device unknown service", InvalidInputError),
        ("metadata add device bad autoevent", InvalidInputError),
    ],
)
async def test_a_refused_device_is_told_with_core_metadatas_reason(case: str, error: type[Exception]) -> None:
    recorded = Recorded("metadata").case(case)
    with pytest.raises(error, match="device"):
        await MetadataClient(recorded.rest()).add_device(Device.model_validate(LAMP))


@pytest.mark.recordings
async def test_what_is_added_and_changed_goes_out_as_edgex_expects() -> None:
    recorded = Recorded("metadata").case("metadata add device")
    await MetadataClient(recorded.rest()).add_device(Device.model_validate(LAMP), validate=False)
    body = json.loads(recorded.asked[0].content)
    assert body[0]["apiVersion"] == "v3"
    assert body[0]["device"]["profileName"] == "lamp"
    assert recorded.asked[0].url.params["bypassValidation"] == "true"

    recorded = Recorded("metadata").case("metadata patch device")
    await MetadataClient(recorded.rest()).update_device("lamp-1", {"labels": ["hall", "lamp"]})
    assert json.loads(recorded.asked[0].content)[0]["device"] == {"name": "lamp-1", "labels": ["hall", "lamp"]}

    recorded = Recorded("metadata").case("metadata add service")
    await MetadataClient(recorded.rest()).add_service(DeviceService(name="device-probe", base_address="http://h:1"))
    assert json.loads(recorded.asked[0].content)[0]["service"]["baseAddress"] == "http://h:1"

    recorded = Recorded("metadata").case("metadata put profile")
    await MetadataClient(recorded.rest()).update_profile(LAMP_KIND)
    assert json.loads(recorded.asked[0].content)[0]["profile"]["deviceResources"][0]["name"] == "Power"


@pytest.mark.recordings
@pytest.mark.parametrize(
    ("case", "error"),
    [("metadata add profile again", ConflictError), ("metadata bad profile", InvalidInputError)],
)
async def test_a_refused_profile_is_told(case: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        await MetadataClient(Recorded("metadata").case(case).rest()).add_profile(LAMP_KIND)


@pytest.mark.recordings
async def test_a_profile_in_use_is_not_deleted() -> None:
    metadata = MetadataClient(Recorded("metadata").rest())
    with pytest.raises(ConflictError):
        await metadata.delete_profile("Random-Boolean-Device")
    await metadata.delete_device("lamp-1")
    await metadata.delete_service("device-probe")


async def test_long_lists_are_read_page_by_page_with_escaped_names() -> None:
    asked: list[httpx.Request] = []
    everything = [LAMP | {"name": f"lamp-{number}"} for number in range(250)]

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        offset, limit = int(request.url.params["offset"]), int(request.url.params["limit"])
        return httpx.Response(200, json={"totalCount": 250, "devices": everything[offset : offset + limit]})

    http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    metadata = MetadataClient(Rest("core-metadata", FixedAddress("http://m"), http))
    found = await metadata.devices(service="a/b c", labels=("x", "y"))
    assert [device.name for device in found] == [device["name"] for device in everything]
    assert asked[0].url.raw_path.startswith(b"/api/v3/device/service/name/a%2Fb%20c?")
    assert asked[0].url.params["labels"] == "x,y"


async def test_a_list_that_shrinks_between_two_pages_ends() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.params["offset"] == "0":
            return httpx.Response(200, json={"totalCount": 101, "devices": [LAMP] * 100})
        return httpx.Response(416, json={"message": "query objects bounds out of range"})

    http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    assert len(await MetadataClient(Rest("m", FixedAddress("http://m"), http)).devices()) == 100


@pytest.mark.parametrize("body", [None, [], {"devices": 1}, {"totalCount": 1, "devices": [{"name": ""}]}, "text"])
async def test_a_list_of_another_shape_is_an_upstream_error(body: Any) -> None:
    with pytest.raises(UpstreamError):
        await MetadataClient(answering(200, body)).devices()


async def test_an_empty_list_that_go_writes_as_null_is_empty() -> None:
    assert await MetadataClient(answering(200, {"totalCount": 0, "devices": None})).devices() == []


# --- core-command --------------------------------------------------------------------------------


@pytest.mark.recordings
@pytest.mark.parametrize(
    ("case", "device", "command"),
    [
        ("command get", "Random-Boolean-Device", "Bool"),
        ("event of type Int64", "Random-Integer-Device", "Int64"),
        ("event of type Float32Array", "Random-Float-Device", "Float32Array"),
        ("event of type Binary", "Random-Binary-Device", "Binary"),
        ("event of type Object", "Fixed-Object-Device", "Object"),
        ("own get command", "lamp-1", "State"),
    ],
)
async def test_recorded_values_are_read(case: str, device: str, command: str) -> None:
    client, recorded = recorded_command(case)
    event = await client.get(device, command, correlation_id="abc", push_event=True)
    assert (event.device_name, event.source_name) == (device, command)
    assert all(reading.decoded() is not None for reading in event.readings)
    assert recorded.asked[0].headers["X-Correlation-ID"] == "abc"


@pytest.mark.recordings
@pytest.mark.parametrize(
    ("case", "device", "command", "error"),
    [
        ("command get unknown device", "Nope", "Bool", NotFoundError),
        ("command get unknown command", "Random-Boolean-Device", "Nope", NotFoundError),
        ("command get write-only", "Random-Boolean-Device", "EnableRandomization_Bool", NotAllowedError),
        ("command get locked device", "Random-Float-Device", "Float32", LockedError),
        ("command get down device", "Random-Float-Device", "Float32", LockedError),
    ],
)
async def test_a_refused_read_is_its_error(case: str, device: str, command: str, error: type[Exception]) -> None:
    client, _ = recorded_command(case)
    with pytest.raises(error):
        await client.get(device, command)


@pytest.mark.recordings
async def test_a_set_goes_out_with_its_values_correlation_id_and_token(tmp_path: Path) -> None:
    client, recorded = recorded_command("own set")
    (tmp_path / "token").write_text("t0ken\n")
    client.use_tokens(FileToken(tmp_path / "token"))
    await client.set("lamp-1", "State", {"Power": "true", "Level": "40"}, correlation_id="abc")
    assert json.loads(recorded.asked[0].content) == {"Power": "true", "Level": "40"}
    assert recorded.asked[0].headers["X-Correlation-ID"] == "abc"
    assert recorded.asked[0].headers["Authorization"] == "Bearer t0ken"


@pytest.mark.parametrize(
    ("command", "values", "why"),
    [
        ("Level", {"Nope": "1"}, "unknown Nope; missing Level"),
        ("State", {"Power": "true"}, "missing Level"),
        ("State", {}, "missing Power, Level"),
        ("State", {"Power": "true", "Level": "1", "Temp": "2"}, "unknown Temp"),
        ("Temp", {"Temp": "1"}, "read-only"),
        ("Nope", {"Nope": "1"}, "no command or resource"),
    ],
)
async def test_names_that_are_not_the_commands_are_refused_before_anything_is_sent(
    command: str, values: dict[str, Any], why: str
) -> None:
    bus = CarbonBus()
    client = command_client(answering(500, {}), bus)
    with pytest.raises(InvalidInputError, match=why):
        await client.set("lamp-1", command, values)
    with pytest.raises(InvalidInputError, match=why):
        await client.set_by_bus("lamp-1", command, values)
    assert bus.sent == []


@pytest.mark.parametrize(
    ("status", "message", "error"),
    [
        (400, "bad value", InvalidInputError),
        (404, "no device", NotFoundError),
        (405, "read-only", NotAllowedError),
        (423, "device lamp-1 locked", LockedError),
        (500, "driver failed", UpstreamError),
        (503, "HTTP request timeout", DeviceSilentError),
        (503, "failed to send a http request -> dial tcp 127.0.0.1:59980: connect: connection refused",
         UnavailableError),
    ],
)  # fmt: skip
async def test_what_a_failed_set_means(status: int, message: str, error: type[Exception]) -> None:
    client = command_client(answering(status, {"apiVersion": "v3", "message": message, "statusCode": status}))
    with pytest.raises(error, match=message) as caught:
        await client.set("lamp-1", "Level", {"Level": "1"})
    assert type(caught.value) is error


@pytest.mark.parametrize(
    ("failure", "silent"),
    [(httpx.ConnectError, False), (httpx.ReadTimeout, True), (httpx.RemoteProtocolError, True)],
)
async def test_a_set_without_an_answer_is_silent_unless_it_was_never_sent(failure: Any, silent: bool) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise failure("broken", request=request)

    http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    client = command_client(Rest("core-command", FixedAddress("http://command"), http))
    with pytest.raises(UnavailableError) as caught:
        await client.set("lamp-1", "Level", {"Level": "1"})
    assert isinstance(caught.value, DeviceSilentError) is silent


async def test_over_the_bus_an_answer_is_matched_and_read() -> None:
    event = {
        "apiVersion": "v3", "id": "e1", "deviceName": "lamp-1", "profileName": "lamp", "sourceName": "Level",
        "origin": 1, "readings": [{"origin": 1, "deviceName": "lamp-1", "profileName": "lamp", "resourceName": "Level",
                                   "valueType": "Uint8", "value": "40"}],
    }  # fmt: skip
    bus = CarbonBus(Envelope({"apiVersion": "v3", "statusCode": 200, "event": event}, "c", "r"))
    found = await command_client(answering(500, {}), bus).get_by_bus("lamp-1", "Level", correlation_id=ABC)
    assert found.readings[0].decoded() == 40
    topic, request = bus.sent[0]
    assert topic == "edgex/core/command/request/lamp-1/Level/get"
    assert (request.correlation_id, request.payload) == (ABC, None)


async def test_over_the_bus_a_set_carries_its_values() -> None:
    bus = CarbonBus(Envelope(None, "c", "r"))
    await command_client(answering(500, {}), bus).set_by_bus("lamp-1", "Level", {"Level": 40})
    topic, request = bus.sent[0]
    assert topic == "edgex/core/command/request/lamp-1/Level/set"
    assert request.payload == {"Level": 40}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("request failed, status code: 404, err: no device with name 'Nope' found", NotFoundError),
        ("request failed, status code: 423, err: device lamp-1 locked", LockedError),
        ("device lamp-1 locked", LockedError),
        ("device lamp-1 OperatingState is DOWN", LockedError),
        ("service locked", LockedError),
        ("device lamp-1 not found", NotFoundError),
        ("DeviceResource Binary is marked as read-only", NotAllowedError),
        ("failed to create CommandValue -> failed to convert set parameter 700 to ValueType Int8", InvalidInputError),
        ("device service busy: too many concurrent commands", UnavailableError),
        ("error writing DeviceResource Level for lamp-1 -> device lamp-1 locked", UpstreamError),
        ("invalid UUID length: 21", UpstreamError),
    ],
)
async def test_over_the_bus_an_error_is_its_text(text: str, error: type[Exception]) -> None:
    bus = CarbonBus(Envelope(text, "c", "r", 1, "text/plain"))
    with pytest.raises(error, match=text) as caught:
        await command_client(answering(500, {}), bus).set_by_bus("lamp-1", "Level", {"Level": "1"})
    assert type(caught.value) is error


@pytest.mark.parametrize("name", ["hand-18eb634c4b2bd4cd", "", "9F1DD6B3-93C5-4D13-A3D7-0E7F1C2B3A4D"])
async def test_over_the_bus_any_id_travels_as_a_uuid_and_the_same_id_as_the_same(name: str) -> None:
    bus = CarbonBus(Envelope(None, "c", "r"))
    for _ in range(2):
        await command_client(answering(500, {}), bus).set_by_bus("lamp-1", "Level", {"Level": 1}, correlation_id=name)
    first, second = (str(uuid.UUID(request.correlation_id)) for _, request in bus.sent)
    assert (first == second) == bool(name)


async def test_over_the_bus_silence_is_no_definite_answer() -> None:
    with pytest.raises(DeviceSilentError):
        await command_client(answering(500, {})).set_by_bus("lamp-1", "Level", {"Level": "1"}, timeout_s=0.05)


async def test_over_the_bus_an_answer_to_a_set_that_cannot_be_read_is_no_definite_answer() -> None:
    bus = CarbonBus(Envelope({"event": {"id": "no event"}}, "c", "r"))
    with pytest.raises(DeviceSilentError):
        await command_client(answering(500, {}), bus).set_by_bus("lamp-1", "Level", {"Level": "1"})
    with pytest.raises(UpstreamError):
        await command_client(answering(500, {}), bus).get_by_bus("lamp-1", "Level")


def test_exactly_the_commands_names_are_accepted() -> None:
    check_parameters(LAMP_KIND, "State", {"Power": True, "Level": 5})
    check_parameters(LAMP_KIND, "Level", {"Level": 5})


# --- core-data -----------------------------------------------------------------------------------


@pytest.mark.recordings
async def test_recorded_events_and_readings_are_read() -> None:
    data = DataClient(Recorded("data").rest())
    events = await data.events(device="Random-Float-Device", limit=2)
    assert {event.device_name for event in events} == {"Random-Float-Device"}
    readings = await data.readings(device="Random-Float-Device", resource="Float32", limit=1)
    assert readings[0].decoded() == 25.0
    assert await data.event_count() == 17


async def test_queries_go_where_core_data_answers_them() -> None:
    paths: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.path)
        return httpx.Response(200, json={"totalCount": 0, "events": [], "readings": []})

    http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    data = DataClient(Rest("core-data", FixedAddress("http://data"), http))
    await data.events()
    await data.events(start_ns=1, end_ns=2)
    await data.readings()
    await data.readings(resource="T")
    await data.readings(device="d", resource="T", start_ns=1, end_ns=2)
    assert paths == [
        "/api/v3/event/all",
        "/api/v3/event/start/1/end/2",
        "/api/v3/reading/all",
        "/api/v3/reading/resourceName/T",
        "/api/v3/reading/device/name/d/resourceName/T/start/1/end/2",
    ]
    with pytest.raises(InvalidInputError):
        await data.events(device="d", start_ns=1)
