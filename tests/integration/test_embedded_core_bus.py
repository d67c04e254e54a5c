"""The embedded core among others: a broker that comes and goes, device services that answer, refuse or hang."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from edgeagents.adapters.bus import Bus, BusMessage
from tests.embedded_core import WAIT_S, EmbeddedCore, add_lamp, count, envelope, event, until
from tests.nats import NatsServer, free_port
from tests.recorded_devices import RecordedDevices

# For tests in which somebody is silent: all others wait as long as an answer takes.
impatient = pytest.mark.parametrize("core", [("--request-timeout-s", "0.5")], indirect=True, ids=["impatient"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "core"


@pytest.fixture
def core(request: pytest.FixtureRequest, folder: Path, nats_server: NatsServer) -> Iterator[EmbeddedCore]:
    running = EmbeddedCore(folder, nats_server.url, *getattr(request, "param", ())).start().linked()
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


# --- the broker -------------------------------------------------------------------------------------


async def test_core_may_start_before_the_broker(tmp_path: Path, folder: Path, http: httpx.AsyncClient) -> None:
    (tmp_path / "nats").mkdir()
    server = NatsServer(tmp_path / "nats")
    core = EmbeddedCore(folder, server.url).start()
    try:
        assert core.ready["bus"] == "waiting"
        response = await http.put(f"{core.urls['keeper']}/api/v3/kvs/key/edgex/v4/a", json={"value": "early"})
        assert response.status_code == 200
        server.start()
        assert await told_of_change(core, http, server)
    finally:
        core.kill()
        server.kill()


async def told_of_change(core: EmbeddedCore, http: httpx.AsyncClient, server: NatsServer) -> bool:
    """Write keys until the notice of one arrives."""
    heard = asyncio.Event()

    async def hear(message: BusMessage) -> None:
        heard.set()

    bus = await Bus.connect(server.settings(), "listener")
    try:
        await bus.subscribe("edgex.configs.>", hear)

        async def written() -> bool:
            await http.put(f"{core.urls['keeper']}/api/v3/kvs/key/edgex/v4/a/Writable/B", json={"value": "x"})
            return heard.is_set()

        await until(written)
    finally:
        await bus.close()
    return heard.is_set()


@impatient
async def test_core_outlives_the_broker(core: EmbeddedCore, http: httpx.AsyncClient, nats_server: NatsServer) -> None:
    await add_lamp(core, http, "http://127.0.0.1:1")
    nats_server.kill()
    assert (await http.get(f"{core.urls['metadata']}/api/v3/device/name/lamp-1")).status_code == 200
    patch = [{"apiVersion": "v3", "device": {"name": "lamp-1", "labels": ["hall"]}}]
    response = await http.patch(f"{core.urls['metadata']}/api/v3/device", json=patch)
    assert response.json()[0]["statusCode"] == 503  # nobody could be asked
    nats_server.start()
    assert await told_of_change(core, http, nats_server)
    bus = await Bus.connect(nats_server.settings(), "publisher")
    try:
        await bus.publish("edgex.events.device.device-lamp.lamp.lamp-1.Power", envelope({"event": event()}))
        await bus.flush()

        async def kept() -> bool:
            return await count(core, http) == 1

        await until(kept)
    finally:
        await bus.close()


@impatient
async def test_everything_on_the_bus_goes_on_after_each_outage_of_the_broker(
    core: EmbeddedCore, http: httpx.AsyncClient, nats_server: NatsServer, bus: Bus, devices: RecordedDevices
) -> None:
    """The core and a device service lose the broker at once, twice: both come back by themselves."""
    await add_lamp(core, http, devices.url)
    notices: list[str] = []

    async def note(message: BusMessage) -> None:
        notices.append(message.subject)

    await bus.subscribe("edgex.system-events.>", note)
    for outage in (1, 2):
        nats_server.kill()
        nats_server.start()
        notices.clear()
        await notice_and_command_pass(core, http, bus, devices, notices, f"round-{outage}")
        await bus.publish("edgex.events.device.device-lamp.lamp.lamp-1.Power", envelope({"event": event()}))

        async def kept(number: int = outage) -> bool:
            return await count(core, http) == number

        await until(kept)
    assert "Traceback" not in core.log()


async def notice_and_command_pass(
    core: EmbeddedCore, http: httpx.AsyncClient, bus: Bus, devices: RecordedDevices, notices: list[str], word: str
) -> None:
    """Wait until a change is validated over the bus and told there, and a command is passed on to its service."""

    async def patched() -> bool:
        body = [{"apiVersion": "v3", "device": {"name": "lamp-1", "labels": [word]}}]
        answer = await http.patch(f"{core.urls['metadata']}/api/v3/device", json=body)
        return bool(answer.json()[0]["statusCode"] == 200)

    async def told() -> bool:
        return "edgex.system-events.core-metadata.device.update.device-lamp.lamp" in notices

    async def passed_on() -> bool:
        await bus.publish("edgex.core.command.request.lamp-1.Power.get", envelope(None, word))
        return word in {request["requestID"] for request in devices.bus_requests}

    for happened in (patched, told, passed_on):
        await until(happened)


async def test_rubbish_on_the_bus_harms_nobody(core: EmbeddedCore, http: httpx.AsyncClient, bus: Bus) -> None:
    await add_lamp(core, http, "http://127.0.0.1:1")
    chance = random.Random(7)
    reply = "edgex.response.core-command"
    subjects = (
        "edgex.events.device.s.p.d.r", "edgex.events.device", "edgex.events.device.x", "edgex.core.command.request",
        "edgex.core.command.request.lamp-1.Power.get", "edgex.core.command.request.%ff.%00.set.x",
        "edgex.core.command.request.lamp-1.Power.jump", "edgex.core.commandquery.request.all",
        "edgex.core.commandquery.request", "edgex.core.commandquery.request.Nope",
    )  # fmt: skip
    hostile = [
        b"", b"null", b"[]", b"{bad", b'{"requestID": 5}', b'{"requestID": "a b"}', b'{"requestID": "*"}',
        b'{"requestID": "x", "payload": "\\ud800", "queryParams": [1]}', b'{"requestID": "x", "errorCode": "y"}',
        b'{"requestID": "x", "queryParams": {"offset": "-5", "limit": "x"}}', b"[" * 100_000,
        envelope({"event": event() | {"deviceName": "\ud800"}}), envelope({"event": event() | {"origin": 2**63}}),
        envelope({"event": event() | {"tags": {"a": "\ud800"}}}),
        envelope({"event": event("d", "perhaps")}),
        *(chance.randbytes(chance.randrange(200)) for _ in range(50)),
    ]  # fmt: skip
    for subject in subjects:
        for data in hostile:
            await bus.publish(subject, data)
    answered = asyncio.Event()

    async def hear(message: BusMessage) -> None:
        answered.set()

    await bus.subscribe(f"{reply}.good", hear)
    await bus.publish("edgex.core.commandquery.request.lamp-1", envelope(None, "good"))
    await asyncio.wait_for(answered.wait(), WAIT_S)
    assert await count(core, http) == 0
    assert core.stop()[0] == 0
    assert "Traceback" not in core.log()


# --- devices and commands ---------------------------------------------------------------------------


async def test_device_is_taken_only_if_its_service_agrees(
    core: EmbeddedCore, http: httpx.AsyncClient, devices: RecordedDevices
) -> None:
    await add_lamp(core, http, devices.url)
    url = f"{core.urls['metadata']}/api/v3/device"
    second = (await http.get(f"{url}/name/lamp-1")).json()["device"] | {"name": "lamp-2"}

    async def add(device: dict[str, Any]) -> dict[str, Any]:
        response = await http.post(url, json=[{"apiVersion": "v3", "device": device}])
        assert response.status_code == 207
        answer: dict[str, Any] = response.json()[0]
        return answer

    devices.refusal = "no such lamp"
    refused = await add(second)
    assert (refused["statusCode"], refused["message"]) == (500, "Device lamp-2 validation failed: no such lamp")
    assert (await http.get(f"{url}/check/name/lamp-2")).status_code == 404
    devices.refusal = ""
    assert (await add(second))["statusCode"] == 201


@impatient
async def test_device_of_a_service_that_says_nothing_is_not_taken(
    core: EmbeddedCore, http: httpx.AsyncClient, devices: RecordedDevices
) -> None:
    await add_lamp(core, http, devices.url)
    url = f"{core.urls['metadata']}/api/v3/device"
    second = (await http.get(f"{url}/name/lamp-1")).json()["device"]
    service = {"name": "device-silent", "baseAddress": "http://127.0.0.1:1", "adminState": "UNLOCKED"}
    await http.post(f"{core.urls['metadata']}/api/v3/deviceservice", json=[{"apiVersion": "v3", "service": service}])
    await devices.stop_validating()
    device = second | {"name": "lamp-3", "serviceName": "device-silent"}
    response = await http.post(url, json=[{"apiVersion": "v3", "device": device}])
    assert response.status_code == 207
    silent = response.json()[0]
    assert silent["statusCode"] == 503
    assert silent["message"] == "Error sending request to topic 'edgex/device-silent/validate/device'"


@impatient
async def test_call_goes_on_after_the_caller_was_told_that_time_is_up(
    core: EmbeddedCore, http: httpx.AsyncClient, devices: RecordedDevices
) -> None:
    await add_lamp(core, http, devices.url)
    devices.held.clear()
    url = f"{core.urls['command']}/api/v3/device/name/lamp-1/Power"
    response = await http.put(url, json={"Power": "true"})
    assert response.status_code == 503

    async def asked() -> bool:  # it may have taken longer than the caller was told to wait
        return len(devices.requests) == 1

    await until(asked)
    devices.held.set()

    async def carried_out() -> bool:
        return devices.answered_to_caller == [True]

    await until(carried_out)
    assert len(devices.requests) == 1


async def test_hanging_device_service_does_not_keep_the_core_from_ending(
    folder: Path, nats_server: NatsServer, http: httpx.AsyncClient, devices: RecordedDevices
) -> None:
    core = EmbeddedCore(folder, nats_server.url, "--request-timeout-s", "60").start().linked()
    try:
        await add_lamp(core, http, devices.url)
        devices.held.clear()
        asking = asyncio.create_task(http.get(f"{core.urls['command']}/api/v3/device/name/lamp-1/Power"))

        async def asked() -> bool:
            return len(devices.requests) == 1

        await until(asked)
        code, took_s = await asyncio.to_thread(core.stop)
        assert code == 0, core.log()
        assert took_s < 20  # of the 60 s that its request may take
        (answer,) = await asyncio.gather(asking, return_exceptions=True)
        assert isinstance(answer, httpx.HTTPError) or getattr(answer, "status_code", 0) == 503
        assert "Traceback" not in core.log(), core.log()
    finally:
        core.kill()


async def test_caller_that_goes_away_within_its_request_harms_nobody(
    core: EmbeddedCore, http: httpx.AsyncClient
) -> None:
    host, port = core.urls["keeper"].removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"PUT /api/v3/kvs/key/a HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert (await http.get(f"{core.urls['keeper']}/api/v3/kvs/key/a")).status_code == 404
    assert core.stop()[0] == 0
    assert "Traceback" not in core.log(), core.log()


async def test_device_service_that_cannot_be_reached_is_503(core: EmbeddedCore, http: httpx.AsyncClient) -> None:
    await add_lamp(core, http, f"http://127.0.0.1:{free_port()}")
    response = await http.get(f"{core.urls['command']}/api/v3/device/name/lamp-1/Power")
    assert response.status_code == 503
    assert response.json()["message"] == "failed to send a http request"


@impatient
async def test_silent_device_service_gets_no_answer_on_the_bus(
    core: EmbeddedCore, http: httpx.AsyncClient, bus: Bus
) -> None:
    await add_lamp(core, http, "http://127.0.0.1:1")
    heard: list[str] = []

    async def hear(message: BusMessage) -> None:
        heard.append(message.subject)

    await bus.subscribe("edgex.response.core-command.*", hear)
    await bus.publish("edgex.core.command.request.lamp-1.Power.get", envelope(None, "silent"))

    async def told_in_the_log() -> bool:
        return "no answer on edgex/response/device-lamp/silent" in core.log()

    await until(told_in_the_log)
    await bus.publish("edgex.core.commandquery.request.lamp-1", envelope(None, "after"))

    async def answered() -> bool:
        return bool(heard)

    await until(answered)
    assert heard == ["edgex.response.core-command.after"]


async def test_names_with_slash_blank_and_dot_are_escaped_on_the_way(
    core: EmbeddedCore, http: httpx.AsyncClient, devices: RecordedDevices, bus: Bus
) -> None:
    await add_lamp(core, http, devices.url, "Flur 1/Süd.x")
    escaped = "Flur%201%2FS%C3%BCd%2Ex"
    metadata, command = core.urls["metadata"], core.urls["command"]
    assert (await http.get(f"{metadata}/api/v3/device/name/{escaped}")).json()["device"]["name"] == "Flur 1/Süd.x"
    devices.say(200, '{"apiVersion":"v3","statusCode":200}')
    response = await http.put(f"{command}/api/v3/device/name/{escaped}/Power?x=1", json={"Power": True})
    assert response.status_code == 200
    assert devices.requests[-1]["path"] == "/api/v3/device/name/Flur%201%2FS%C3%BCd.x/Power?x=1"
    await bus.publish(f"edgex.core.command.request.{escaped}.Power.get", envelope(None, "escaped"))

    async def passed_on() -> bool:
        return bool(devices.bus_requests)

    await until(passed_on)
    assert devices.bus_requests[-1]["receivedTopic"] == f"edgex/core/command/request/{escaped}/Power/get"


# --- the registry -----------------------------------------------------------------------------------


async def test_registered_service_is_asked_until_it_says_goodbye(
    core: EmbeddedCore, http: httpx.AsyncClient, devices: RecordedDevices
) -> None:
    check = {"interval": "200ms", "path": "/api/v3/ping", "type": "http"}
    port = int(devices.url.rsplit(":", 1)[1])
    row = {"serviceId": "app-x", "host": "127.0.0.1", "port": port, "HealthCheck": check}
    url = f"{core.urls['keeper']}/api/v3/registry"

    async def status(service: str = "app-x") -> str:
        return str((await http.get(f"{url}/serviceId/{service}")).json()["registration"]["status"])

    def becomes(wanted: str) -> Callable[[], Awaitable[bool]]:
        async def holds() -> bool:
            return await status() == wanted

        return holds

    # Not asked yet: after half its interval it would be, so not the one whose interval is short.
    rare = row | {"serviceId": "app-y", "port": free_port(), "HealthCheck": check | {"interval": "20s"}}
    assert (await http.post(url, json={"apiVersion": "v3", "registration": rare})).status_code == 201
    assert await status("app-y") == "UNKNOWN"

    devices.say(500, "")
    assert (await http.post(url, json={"apiVersion": "v3", "registration": row})).status_code == 201
    await until(becomes("DOWN"))
    devices.say(204, "")
    await until(becomes("UP"))
    core.kill()
    devices.say(500, "")
    core.start()
    await until(becomes("DOWN"))  # asked anew after the restart
    await http.put(url, json={"apiVersion": "v3", "registration": row | {"status": "HALT"}})
    asked = len(devices.requests)
    everyone = (await http.get(f"{url}/all")).json()
    assert "app-x" not in [found["serviceId"] for found in everyone["registrations"]]
    assert await status() == "HALT"
    assert len(devices.requests) <= asked + 1  # one question may have been under way
